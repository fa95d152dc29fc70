// Package v1alpha1 defines PodMigration, the one record of a migration: what
// was asked, what was decided, how far it is and how it ended. It must hold
// every fact that a restarted controller needs to continue.
//
// +kubebuilder:object:generate=true
// +groupName=migration.ai-storage
package v1alpha1
