// Package rebalance is the scheduler plugin that scores nodes by the
// objective of the planner, so that the scheduler and the rebalancer never pull
// in different directions. It prefers the node that the plan of a move names.
//
// It must not keep a pod off a node: that is for Filter plugins. It must not
// invent a measurement: what is not measured is scored by requests.
package rebalance
