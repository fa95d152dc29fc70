package checkpointvolume

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods"
	"github.com/ai-storage/orchestrator/pkg/pods/containers"
)

// filters are those of a profile (framework.Framework).
type filters interface {
	RunPreFilterPlugins(ctx context.Context, state fwk.CycleState, pod *corev1.Pod) (*fwk.PreFilterResult, *fwk.Status, sets.Set[string])
	fwk.PluginsRunner
}

// imagined is the replacement that a placeholder holds a place for, before it exists.
// The placeholder has none of its labels, so the anti-affinity of other pods and spread
// constraints judge another pod than the one that will come.
type imagined struct {
	pod *corev1.Pod
	// state is what PreFilter found, on the cluster as it will be: without the original,
	// and with other replacements where their places are held.
	state fwk.CycleState
	nodes *fwk.PreFilterResult
	// standIns are those other replacements, by their placeholder.
	standIns map[types.UID]fwk.PodInfo
}

// imagine asks PreFilter about the replacement of a placeholder. It returns nil when the
// original is gone: then nothing is left that could continue. The replacement
// is built from the original and the status of its migration, which users cannot write.
func (p *Plugin) imagine(ctx context.Context, placeholder *corev1.Pod) (*imagined, *fwk.Status) {
	m := p.migrationOf(placeholder)
	if m == nil {
		return nil, nil
	}
	original := p.pod(m.Namespace, m.Status.Original)
	if original == nil || pods.IsTerminal(original) {
		return nil, nil
	}
	replacement, err := imaginedReplacement(m, original)
	if err != nil {
		return nil, fwk.AsStatus(err)
	}
	i := &imagined{pod: replacement, state: framework.NewCycleState(), standIns: map[types.UID]fwk.PodInfo{}}
	var status *fwk.Status
	if i.nodes, status, _ = p.filters.RunPreFilterPlugins(ctx, i.state, replacement); !status.IsSuccess() {
		return nil, ofReplacement(status)
	}
	nodes, err := p.nodeInfos().List()
	if err != nil {
		return nil, fwk.AsStatus(err)
	}
	for _, node := range nodes {
		if status := p.advance(ctx, i, original.UID, node); !status.IsSuccess() {
			return nil, status
		}
	}
	return i, nil
}

// advance brings what PreFilter found to what a node will be: without the original, and
// with the replacements whose places are held there.
func (p *Plugin) advance(ctx context.Context, i *imagined, original types.UID, node fwk.NodeInfo) *fwk.Status {
	for _, info := range node.GetPods() {
		pod := info.GetPod()
		if pod.UID == original {
			without := node.Snapshot()
			if err := without.RemovePod(klog.FromContext(ctx), pod); err != nil {
				return fwk.AsStatus(fmt.Errorf("imagining node %s without the original: %w", node.Node().Name, err))
			}
			if status := p.filters.RunPreFilterExtensionRemovePod(ctx, i.state, i.pod, info, without); !status.IsSuccess() {
				return status
			}
			continue
		}
		standIn := p.standIn(pod)
		if standIn == nil {
			continue
		}
		i.standIns[pod.UID] = standIn
		with := node.Snapshot()
		with.AddPodInfo(standIn)
		if status := p.filters.RunPreFilterExtensionAddPod(ctx, i.state, i.pod, standIn, with); !status.IsSuccess() {
			return status
		}
	}
	return nil
}

// standIn is the replacement that another placeholder holds a place for, on its node; nil
// when the pod is no placeholder, or nothing is known of its replacement.
func (p *Plugin) standIn(placeholder *corev1.Pod) fwk.PodInfo {
	if !isPlaceholder(placeholder) || placeholder.DeletionTimestamp != nil {
		return nil
	}
	m := p.migrationOf(placeholder)
	if m == nil {
		return nil
	}
	var pod *corev1.Pod
	if original := p.pod(m.Namespace, m.Status.Original); original != nil {
		pod, _ = imaginedReplacement(m, original)
	} else if made := p.pod(m.Namespace, m.Status.Replacement); made != nil && made.Spec.NodeName == "" {
		pod = made.DeepCopy()
	}
	if pod == nil {
		return nil
	}
	pod.UID = "stands-in/" + placeholder.UID
	pod.Spec.NodeName = placeholder.Spec.NodeName
	info, err := framework.NewPodInfo(pod)
	if err != nil {
		return nil
	}
	return info
}

// judge asks the filters of the profile whether the replacement could go to a node.
func (p *Plugin) judge(ctx context.Context, i *imagined, node fwk.NodeInfo) *fwk.Status {
	if !i.nodes.AllNodes() && !i.nodes.NodeNames.Has(node.Node().Name) {
		return fwk.NewStatus(fwk.UnschedulableAndUnresolvable, ReasonNotForReplacement)
	}
	future := node
	for _, info := range node.GetPods() {
		standIn := i.standIns[info.GetPod().UID]
		if standIn == nil {
			continue
		}
		if future == node {
			future = node.Snapshot()
		}
		if err := future.RemovePod(klog.FromContext(ctx), info.GetPod()); err != nil {
			return fwk.AsStatus(fmt.Errorf("imagining node %s with other replacements: %w", node.Node().Name, err))
		}
		future.AddPodInfo(standIn)
	}
	return ofReplacement(p.filters.RunFilterPlugins(ctx, i.state, i.pod, future))
}

// ofReplacement says that a refusal is one of the replacement.
func ofReplacement(status *fwk.Status) *fwk.Status {
	if !status.IsRejected() {
		return status
	}
	var reasons []string
	for _, reason := range status.Reasons() {
		reasons = append(reasons, ReasonNotForReplacement+": "+reason)
	}
	return fwk.NewStatus(status.Code(), reasons...)
}

// imaginedReplacement is the replacement as it will be once the original is gone. It is
// judged without what does not exist yet: claims that are created with the pod. The
// placeholder has the ResourceClaims.
func imaginedReplacement(m *v1alpha1.PodMigration, original *corev1.Pod) (*corev1.Pod, error) {
	verdicts := containers.Verdicts{Containers: m.Status.Containers, Mode: m.CheckpointMode()}
	pod, err := containers.BuildReplacement(original, verdicts, containers.OptionsOf(m, ""))
	if err != nil {
		return nil, fmt.Errorf("imagining the replacement of pod %s: %w", klog.KObj(original), err)
	}
	// What an author wrote does not make it a placeholder of its own.
	delete(pod.Labels, v1alpha1.RoleLabel)
	pod.UID = "imagined/" + m.UID
	pod.Spec.ResourceClaims = nil
	pod.Spec.Volumes = slices.DeleteFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Ephemeral != nil })
	return pod, nil
}

// migrationOf is the migration that a pod is the placeholder of; nil when there is none.
func (p *Plugin) migrationOf(placeholder *corev1.Pod) *v1alpha1.PodMigration {
	m := p.seals.migration(types.UID(placeholder.Labels[v1alpha1.MigrationUIDLabel]))
	if m == nil || m.Namespace != placeholder.Namespace || m.Status.Phase.IsFinished() || m.Status.Original == nil || m.Status.Replacement == nil {
		return nil
	}
	if recorded := m.Status.Placeholder; recorded == nil || recorded.Name != placeholder.Name {
		return nil
	}
	return m
}

// pod is the one that a status records; nil when it is gone.
func (p *Plugin) pod(namespace string, recorded *v1alpha1.PodReference) *corev1.Pod {
	found, err := p.pods.Pods(namespace).Get(recorded.Name)
	if err != nil || found.UID != recorded.UID {
		return nil
	}
	return found
}
