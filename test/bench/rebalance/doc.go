// Command rebalance is the benchmark of our rebalancer against the descheduler:
// the same skewed cluster of simulated nodes is given to both, and a watcher that
// knows neither of them counts what they do to it.
//
// Nodes and pods have the sizes of openb's, and what a pod uses follows a
// PlanetLab trace. A scenario is a matter of its seed alone, so that every arm
// starts from the same placement and meets the same load at the same time.
package main
