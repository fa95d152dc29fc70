package simulation

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/sets"
	fwk "k8s.io/kube-scheduler/framework"
	schedulerconfig "k8s.io/kubernetes/pkg/scheduler/apis/config"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	schedulerplugins "k8s.io/kubernetes/pkg/scheduler/framework/plugins"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/names"

	"github.com/ai-storage/orchestrator/pkg/scheduling/plugins/checkpointvolume"
)

// knownPods bounds what a session remembers: what plugins note for a pod can be
// large.
const knownPods = 512

// preFiltered is what PreFilter said of a pod.
type preFiltered struct {
	pod     *corev1.Pod
	state   fwk.CycleState
	result  *fwk.PreFilterResult
	status  *fwk.Status
	plugins sets.Set[string]
}

// followsChanges reports whether all PreFilter plugins are ours or the
// scheduler's own. They keep what they noted up to date when notified of a pod that
// came or went, as in preemption. Plugins of others are asked anew.
func followsChanges(built framework.Framework) bool {
	inTree := schedulerplugins.NewInTreeRegistry()
	return !slices.ContainsFunc(built.ListPlugins().PreFilter.Enabled, func(plugin schedulerconfig.Plugin) bool {
		_, known := inTree[plugin.Name]
		return !known && plugin.Name != checkpointvolume.Name
	})
}

// change tells what is known of other pods that a pod came to a node (sign 1) or
// left it (sign -1), and forgets what cannot be kept up to date.
func (s *Session) change(changed fwk.PodInfo, node fwk.NodeInfo, sign int) {
	s.simulator.mu.Lock()
	defer s.simulator.mu.Unlock()
	s.simulator.lister.session = s
	for pod, before := range s.known {
		if !s.follow(before, changed, node, sign) {
			delete(s.known, pod)
		}
	}
}

func (s *Session) follow(before *preFiltered, changed fwk.PodInfo, node fwk.NodeInfo, sign int) bool {
	if !s.simulator.follows || !before.status.IsSuccess() || !before.result.AllNodes() {
		return false
	}
	// The plugin of affinity asks to be left out for pods that no term concerns,
	// and is then not notified of a pod with a term that does.
	if before.state.GetSkipFilterPlugins().Has(names.InterPodAffinity) && mayRepel(changed, before.pod) {
		return false
	}
	ctx := context.Background()
	tell := s.simulator.framework.RunPreFilterExtensionAddPod
	if sign < 0 {
		tell = s.simulator.framework.RunPreFilterExtensionRemovePod
	}
	return tell(ctx, before.state, before.pod, changed, node).IsSuccess()
}

// mayRepel reports whether a pod has an anti-affinity term that may concern the
// other. Namespaces are not looked at: forgetting too much does no harm.
func mayRepel(pod fwk.PodInfo, other *corev1.Pod) bool {
	return slices.ContainsFunc(pod.GetRequiredAntiAffinityTerms(), func(term fwk.AffinityTerm) bool {
		return term.Selector.Matches(labels.Set(other.Labels))
	})
}
