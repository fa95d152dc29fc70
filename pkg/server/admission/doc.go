// Package admission is the mutating webhook that turns the next pod of an owner
// into the replacement of a migration: for Jobs, for ReplicaSets whose original
// has to stop first, for StatefulSets, and for others that opted in.
//
// It must never stand in the way of a pod. It denies nothing: what it cannot
// rewrite passes as it is, with a warning, and the migration notices and is
// rolled back. The API server asks it only about pods of owners that are being
// migrated at that moment: a reconciler keeps the matchConditions of the webhook
// configuration in step with the PodMigrations. And when it is down, the failure
// policy lets every pod pass.
//
// Every replica of the rebalancer serves, with a certificate from a Secret that
// they share; whichever finds it missing or about to expire creates a new one.
package admission
