// Package v1 is the form of the plugin arguments that users write, with its
// defaults.
//
// +k8s:deepcopy-gen=package
// +k8s:conversion-gen=github.com/ai-storage/orchestrator/pkg/apis/config
// +k8s:defaulter-gen=TypeMeta
// +k8s:defaulter-gen-input=github.com/ai-storage/orchestrator/pkg/apis/config/v1
// +groupName=kubescheduler.config.k8s.io
package v1
