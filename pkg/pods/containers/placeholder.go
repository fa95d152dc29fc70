package containers

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// PlaceholderName is the name of the placeholder of a migration.
func PlaceholderName(root string, migration types.UID, created time.Time) string {
	return fitName("", root, "-placeholder-"+timestamp(migration, created))
}

// PauseImage of Kubernetes, which the container runtimes of most nodes have, is
// what placeholders run where there is no node agent. It takes no notice of arguments.
const PauseImage = "registry.k8s.io/pause:3.10"

// BuildPlaceholder returns the pod that holds the place of a replacement until
// the original is gone: it requests the same resources (requests, without the
// overhead of the runtime class) within the same limits, and the same host ports, goes
// where the replacement and its volumes may go, and does nothing. No Service and no
// controller of the original finds it.
func BuildPlaceholder(replacement *corev1.Pod, name, image string, requests corev1.ResourceList, volumes []*corev1.PersistentVolume) *corev1.Pod {
	spec := *replacement.Spec.DeepCopy()
	// The placeholder has no labels of the pod.
	ResolveLabelKeys(&spec, replacement.Labels)
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: replacement.Namespace, Name: name,
			Labels: map[string]string{
				v1alpha1.MigrationUIDLabel: replacement.Labels[v1alpha1.MigrationUIDLabel],
				v1alpha1.RoleLabel:         v1alpha1.RolePlaceholder,
				v1alpha1.OriginalPodLabel:  replacement.Labels[v1alpha1.OriginalPodLabel],
			},
			Annotations: map[string]string{v1alpha1.ExcludeAnnotation: "true"},
		},
		Spec: corev1.PodSpec{
			SchedulerName: v1alpha1.SchedulerName, PriorityClassName: spec.PriorityClassName, RuntimeClassName: spec.RuntimeClassName,
			NodeSelector: spec.NodeSelector, Tolerations: spec.Tolerations, Affinity: spec.Affinity,
			TopologySpreadConstraints: spec.TopologySpreadConstraints, ImagePullSecrets: spec.ImagePullSecrets,
			AutomountServiceAccountToken:  new(false),
			EnableServiceLinks:            new(false),
			TerminationGracePeriodSeconds: new(int64(0)),
			Containers: []corev1.Container{{
				Name: "placeholder", Image: image, Args: []string{"pause"}, SecurityContext: restricted(),
				Resources: placeholderResources(&spec, requests), Ports: hostPorts(&spec),
			}},
		},
	}
	if target := replacement.Labels[v1alpha1.TargetNodeLabel]; target != "" {
		pod.Labels[v1alpha1.TargetNodeLabel] = target
	}
	for _, volume := range volumes {
		reach(pod, volume)
	}
	return pod
}

// placeholderResources are what the scheduler counts for the replacement, and what it
// is limited to: a quota on limits wants them of every pod. What cannot be overcommitted
// must be limited.
func placeholderResources(spec *corev1.PodSpec, requests corev1.ResourceList) corev1.ResourceRequirements {
	limits := limitsOfAll(spec)
	for name, amount := range requests {
		limit, limited := limits[name]
		switch {
		case name != corev1.ResourceCPU && name != corev1.ResourceMemory && name != corev1.ResourceEphemeralStorage:
			limits[name] = amount
		case limited:
			limits[name] = atLeast(limit, amount)
		}
	}
	return corev1.ResourceRequirements{Requests: requests, Limits: limits}
}

// limitsOfAll sums the limits of CPU, memory and ephemeral storage that every container
// has, or takes them from the pod. A pod of which one container has no limit has none.
func limitsOfAll(spec *corev1.PodSpec) corev1.ResourceList {
	limits := corev1.ResourceList{}
	sums := aggregate(spec, limitsOf)
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage} {
		all := true
		eachContainer(spec, func(c *corev1.Container) {
			_, limited := c.Resources.Limits[name]
			all = all && limited
		})
		if all {
			limits[name] = sums[name]
		}
		if spec.Resources == nil {
			continue
		}
		if limit, limited := spec.Resources.Limits[name]; limited {
			limits[name] = limit
		}
	}
	return limits
}

func hostPorts(spec *corev1.PodSpec) []corev1.ContainerPort {
	var ports []corev1.ContainerPort
	eachContainer(spec, func(c *corev1.Container) {
		for _, port := range c.Ports {
			if port.HostPort != 0 {
				ports = append(ports, corev1.ContainerPort{ContainerPort: port.ContainerPort, HostPort: port.HostPort, HostIP: port.HostIP, Protocol: port.Protocol})
			}
		}
	})
	return ports
}

// reach keeps a pod where a volume can go. The terms of both are alternatives:
// every pair of them is one.
func reach(pod *corev1.Pod, volume *corev1.PersistentVolume) {
	if volume.Spec.NodeAffinity == nil || volume.Spec.NodeAffinity.Required == nil {
		return
	}
	required := pod.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution
	var terms []corev1.NodeSelectorTerm
	for _, own := range required.NodeSelectorTerms {
		for _, its := range volume.Spec.NodeAffinity.Required.NodeSelectorTerms {
			if isEmptyTerm(own) || isEmptyTerm(its) {
				continue // matches no node
			}
			terms = append(terms, corev1.NodeSelectorTerm{
				MatchExpressions: slices.Concat(own.MatchExpressions, its.MatchExpressions),
				MatchFields:      slices.Concat(own.MatchFields, its.MatchFields),
			})
		}
	}
	if len(terms) == 0 {
		terms = []corev1.NodeSelectorTerm{{}}
	}
	required.NodeSelectorTerms = terms
}
