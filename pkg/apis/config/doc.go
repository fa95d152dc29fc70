// Package config holds the internal arguments of the scheduler plugins, which
// tune the rebalancer too: both binaries read one KubeSchedulerConfiguration.
// Files are written in the versioned form of package v1.
//
// +k8s:deepcopy-gen=package
// +groupName=kubescheduler.config.k8s.io
package config
