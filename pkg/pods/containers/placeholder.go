package containers

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
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
// overhead of the runtime class) within the same limits, the same host ports, and devices
// of the same ResourceClaimTemplates, goes where the replacement and its volumes may go,
// and does nothing. No Service and no controller of the original finds it: so other pods'
// anti-affinity and spread constraints do not see it. Plugin CheckpointVolume judges the
// replacement itself before it lets the placeholder have a node.
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
			ResourceClaims:                slices.DeleteFunc(spec.ResourceClaims, func(c corev1.PodResourceClaim) bool { return c.ResourceClaimTemplateName == nil }),
			AutomountServiceAccountToken:  new(false),
			EnableServiceLinks:            new(false),
			TerminationGracePeriodSeconds: new(int64(0)),
			Containers:                    placeholderContainers(&spec, image, requests),
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

// placeholderContainers request together what the scheduler counts for the replacement.
// There is one for each container that runs all the time, with its requests and limits:
// what a quota or a limit range accepts of that one it accepts of this one. What the pod
// requests beyond the sum of these, as for an init container, is added to the first.
func placeholderContainers(spec *corev1.PodSpec, image string, requests corev1.ResourceList) []corev1.Container {
	shares := sharesOf(spec)
	rest := requests.DeepCopy()
	for _, share := range shares {
		for name, amount := range share.Requests {
			if left := less(rest[name], amount, resource.Quantity{}); left.Sign() > 0 {
				rest[name] = left
				continue
			}
			delete(rest, name)
		}
	}
	var made []corev1.Container
	for i, share := range shares {
		c := corev1.Container{Name: "placeholder", Image: image, Args: []string{"pause"}, SecurityContext: restricted(), Resources: share}
		if i == 0 {
			add(c.Resources.Requests, rest)
			c.Ports = hostPorts(spec)
		} else {
			c.Name += fmt.Sprintf("-%d", i)
		}
		limitEnough(c.Resources)
		made = append(made, c)
	}
	return made
}

// sharesOf are the requests and limits of the containers of a pod that run all the time,
// or those of the pod where it has some of its own.
func sharesOf(spec *corev1.PodSpec) []corev1.ResourceRequirements {
	share := func(of *corev1.ResourceRequirements) corev1.ResourceRequirements {
		share := corev1.ResourceRequirements{Requests: corev1.ResourceList{}, Limits: corev1.ResourceList{}}
		add(share.Requests, of.Requests)
		add(share.Limits, of.Limits)
		return share
	}
	if spec.Resources != nil {
		return []corev1.ResourceRequirements{share(spec.Resources)}
	}
	var shares []corev1.ResourceRequirements
	for i := range spec.InitContainers {
		if c := &spec.InitContainers[i]; isSidecar(c) {
			shares = append(shares, share(&c.Resources))
		}
	}
	for i := range spec.Containers {
		shares = append(shares, share(&spec.Containers[i].Resources))
	}
	return shares
}

// limitEnough raises limits to what is requested, and to what a program of the node agent
// needs. What cannot be overcommitted must be limited to what is requested.
func limitEnough(resources corev1.ResourceRequirements) {
	for name, request := range resources.Requests {
		limit, limited := resources.Limits[name]
		switch {
		case name != corev1.ResourceCPU && name != corev1.ResourceMemory && name != corev1.ResourceEphemeralStorage:
			resources.Limits[name] = request.DeepCopy()
		case limited:
			resources.Limits[name] = atLeast(limit, request)
		}
	}
	for name, least := range leastResources() {
		if limit, limited := resources.Limits[name]; limited {
			resources.Limits[name] = atLeast(limit, least)
		}
	}
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
