// Package observe turns what the API server and the metrics API say into a
// snapshot, and gives every pod and node that the loop must skip its
// reason. It only reads.
package observe
