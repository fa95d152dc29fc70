// Package cluster is the picture of a cluster at one moment: nodes, pods and
// what they request and use. It is plain data. A snapshot is never changed
// after it was built; whoever wants to try something copies what it needs.
//
// It must not read a clock, an API server or a file.
package cluster
