package tracing

import (
	"fmt"
	"os"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	tracingapi "k8s.io/component-base/tracing/api/v1"
	"sigs.k8s.io/yaml"
)

// configuration is the file that the API server reads for its own traces
// (KEP-647, apiserver.config.k8s.io).
type configuration struct {
	metav1.TypeMeta                 `json:",inline"`
	tracingapi.TracingConfiguration `json:",inline"`
}

// apiVersions that kube-apiserver reads.
var apiVersions = map[string]bool{
	"apiserver.config.k8s.io/v1": true, "apiserver.config.k8s.io/v1beta1": true, "apiserver.config.k8s.io/v1alpha1": true,
}

// Load reads a TracingConfiguration. Unknown fields, and values out of range, are
// errors that name the field.
func Load(path string) (*tracingapi.TracingConfiguration, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the tracing configuration: %w", err)
	}
	c := &configuration{}
	if err := yaml.UnmarshalStrict(content, c); err != nil {
		return nil, fmt.Errorf("reading the tracing configuration %s: %w", path, err)
	}
	if c.Kind != "TracingConfiguration" || !apiVersions[c.APIVersion] {
		return nil, fmt.Errorf("the tracing configuration %s is a %s of %s, want a TracingConfiguration of apiserver.config.k8s.io/v1", path, c.Kind, c.APIVersion)
	}
	if errs := tracingapi.ValidateTracingConfiguration(&c.TracingConfiguration, nil, nil); len(errs) > 0 {
		return nil, fmt.Errorf("the tracing configuration %s: %w", path, errs.ToAggregate())
	}
	return &c.TracingConfiguration, nil
}
