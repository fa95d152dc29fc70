// Package scheme adds the plugin arguments, ours and those of the
// scheduler-plugins catalogue, to the scheduler's own schemes, so that a
// KubeSchedulerConfiguration decodes them strictly. Import it for its effect.
package scheme

import (
	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	schedulerscheme "k8s.io/kubernetes/pkg/scheduler/apis/config/scheme"
	schedulerv1 "k8s.io/kubernetes/pkg/scheduler/apis/config/v1"
	_ "sigs.k8s.io/scheduler-plugins/apis/config/scheme" // the catalogue adds itself

	"github.com/ai-storage/orchestrator/pkg/apis/config"
	configv1 "github.com/ai-storage/orchestrator/pkg/apis/config/v1"
)

func init() {
	// Files are decoded with the first scheme; arguments are then defaulted and
	// converted with the second.
	for _, scheme := range []*runtime.Scheme{schedulerscheme.Scheme, schedulerv1.GetPluginArgConversionScheme()} {
		utilruntime.Must(config.AddToScheme(scheme))
		utilruntime.Must(configv1.AddToScheme(scheme))
	}
}
