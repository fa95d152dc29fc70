// Package demo shows the product at work on a local cluster: a skewed
// workload, the rebalancer that nobody asks, and a table of before and after.
//
// Every figure is measured (metrics.k8s.io) or recorded (PodMigration status);
// the demo only makes pods, and never tells the scheduler or the rebalancer
// what to do. The cluster belongs to the demo and goes with it.
package demo
