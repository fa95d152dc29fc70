// Package devcluster brings a whole local cluster up and down: a control
// plane, simulated or real nodes, and our own components under their own
// service accounts with exactly the rights in manifests/. It is for the demo
// and for tests, on one Linux machine.
//
// A cluster is its state directory: what runs, the ports, the credentials and the
// logs are all there, so every command, and every crash of one, can be picked
// up by the next. Nothing here is meant for a cluster that others can reach.
package devcluster
