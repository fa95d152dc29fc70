// Package world makes up clusters of any size that look like real ones: zones,
// pools, taints, workloads with anti-affinity and spread, DaemonSets, and nodes
// that are more utilized than others. The same seed gives the same cluster.
package world
