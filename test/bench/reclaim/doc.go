// Command reclaim measures how much of what finished containers request is
// reclaimed in place. Pods of real pipelines are packed on the nodes of a real
// cluster until it is full; then their steps finish one after another, and what
// package reclaim makes of each pod is counted as the scheduler counts it.
//
// The exact ceiling is what the finished steps requested. It is summed up from the
// data, without looking at a pod. Pods of a single container are the negative
// control: nothing of them may be reclaimed.
//
// It reads whatever files of the known formats lie in the data directory, and without
// any it makes its own from a seed, and says so.
package main
