// Package pods has the one answer to each small question about a pod that several
// packages ask: what it requests, whether it holds a place on its node, its
// quality of service, a condition of it. Every answer is a pure function of the
// pod.
//
// It must not call an API server, read a clock or log.
package pods
