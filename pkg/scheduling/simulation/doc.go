// Package simulation asks the real scheduler framework, with the plugins and
// arguments of our profile, whether a pod would fit on a node of a snapshot.
// What it says no to is in the scheduler's own words.
//
// It runs PreFilter and Filter only. It must not place anything in the real
// cluster, and it must not decide which node is best. Scheduler extenders,
// which are other programs, are not asked. Nor does it know what only the
// running scheduler does: nominated pods, pods that are being bound, and nodes
// to which an attach failed lately. At worst a move is refused later.
package simulation
