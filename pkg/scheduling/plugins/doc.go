// Package plugins lists every scheduler plugin beyond Kubernetes' own: ours,
// and the scheduler-plugins catalogue, which is off unless configured. It is
// the one place where the list stands, so that the scheduler and the
// simulation of it can never differ. It must not contain a plugin itself.
package plugins
