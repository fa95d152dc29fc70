// Package scheme adds the plugin arguments to the scheduler's own scheme, so
// that a KubeSchedulerConfiguration decodes them strictly. Import it for its
// effect.
package scheme

import (
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	schedulerscheme "k8s.io/kubernetes/pkg/scheduler/apis/config/scheme"

	"github.com/ai-storage/orchestrator/pkg/apis/config"
	configv1 "github.com/ai-storage/orchestrator/pkg/apis/config/v1"
)

func init() {
	utilruntime.Must(config.AddToScheme(schedulerscheme.Scheme))
	utilruntime.Must(configv1.AddToScheme(schedulerscheme.Scheme))
}
