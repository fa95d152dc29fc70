package containers

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// Reasons why a pod cannot move with the memory of its processes.
const (
	RefusalRuntimeClass     = "RuntimeClassNotOurs"
	RefusalHostNamespace    = "HostNamespace"
	RefusalSharedProcesses  = "ProcessNamespaceShared"
	RefusalUserNamespace    = "UserNamespace"
	RefusalEphemeral        = "EphemeralContainerRuns"
	RefusalDevice           = "Device"
	RefusalPrivileged       = "Privileged"
	RefusalInteractive      = "Interactive"
	RefusalPostStart        = "PostStartHook"
	RefusalInitAgain        = "InitContainerAgain"
	RefusalSidecarProbe     = "SidecarStartupProbe"
	RefusalNotRunning       = "ContainerNotRunning"
	RefusalProcessHugePages = "HugePages"
)

// MovingProcesses returns the containers of a pod whose processes move, sorted:
// those that are kept and run.
func MovingProcesses(v Verdicts) []string {
	var names []string
	for _, c := range v.Containers {
		if c.ShouldMigrate && c.State == v1alpha1.StateRunning {
			names = append(names, c.Name)
		}
	}
	slices.Sort(names)
	return names
}

// RefuseProcesses returns the first reason in a pod why the memory of its
// processes cannot move; nil when there is none. What its processes hold open
// only its node can tell.
func RefuseProcesses(pod *corev1.Pod, v Verdicts) *Refusal {
	for _, rule := range processRules {
		if r := rule(pod); r != nil {
			return r
		}
	}
	for _, verdict := range v.Containers {
		if !verdict.ShouldMigrate {
			continue
		}
		c := containerOf(pod, verdict.Name)
		if c == nil {
			continue
		}
		for _, rule := range processContainerRules {
			if r := rule(c, verdict); r != nil {
				return r
			}
		}
	}
	return nil
}

var processRules = []func(*corev1.Pod) *Refusal{
	runtimeClass, hostNamespaces, sharedProcesses, userNamespace, ephemeralRuns, resourceClaims,
}

var processContainerRules = []func(*corev1.Container, v1alpha1.ContainerVerdict) *Refusal{
	notRunning, initAgain, interactive, privileged, devices, postStart, sidecarProbe,
}

// PreferredMode is how the state of a pod should be carried when nobody says: those that
// were started for it move with their memory.
func PreferredMode(pod *corev1.Pod) v1alpha1.CheckpointMode {
	if valueOr(pod.Spec.RuntimeClassName, "") == v1alpha1.ProcessRuntimeClass {
		return v1alpha1.CheckpointProcess
	}
	return v1alpha1.CheckpointFrozen
}

func runtimeClass(pod *corev1.Pod) *Refusal {
	if PreferredMode(pod) == v1alpha1.CheckpointProcess {
		return nil
	}
	return &Refusal{RefusalRuntimeClass, fmt.Sprintf("the pod has runtimeClassName %q: only what was started with %q can be dumped and restored",
		valueOr(pod.Spec.RuntimeClassName, ""), v1alpha1.ProcessRuntimeClass)}
}

func hostNamespaces(pod *corev1.Pod) *Refusal {
	if used := hostNamespacesOf(&pod.Spec); len(used) > 0 {
		return &Refusal{RefusalHostNamespace, fmt.Sprintf("the pod uses %s: its processes are tied to what is on the node", used[0])}
	}
	return nil
}

func sharedProcesses(pod *corev1.Pod) *Refusal {
	if valueOr(pod.Spec.ShareProcessNamespace, false) {
		return &Refusal{RefusalSharedProcesses, "the containers share a process namespace (shareProcessNamespace), in which the numbers of their processes may be taken on the other node"}
	}
	return nil
}

func userNamespace(pod *corev1.Pod) *Refusal {
	if !valueOr(pod.Spec.HostUsers, true) {
		return &Refusal{RefusalUserNamespace, "the pod has a user namespace of its own (hostUsers: false), whose map is another one on the other node"}
	}
	return nil
}

func ephemeralRuns(pod *corev1.Pod) *Refusal {
	for _, s := range pod.Status.EphemeralContainerStatuses {
		if s.State.Running != nil {
			return &Refusal{RefusalEphemeral, fmt.Sprintf("ephemeral container %s runs: whoever works in it would lose it", s.Name)}
		}
	}
	return nil
}

func resourceClaims(pod *corev1.Pod) *Refusal {
	if len(pod.Spec.ResourceClaims) > 0 {
		return &Refusal{RefusalDevice, fmt.Sprintf("the pod has devices of resource claim %s, whose state is not in memory", pod.Spec.ResourceClaims[0].Name)}
	}
	return nil
}

func notRunning(c *corev1.Container, v v1alpha1.ContainerVerdict) *Refusal {
	if v.Kind != v1alpha1.KindInit && v.State != v1alpha1.StateRunning {
		return &Refusal{RefusalNotRunning, fmt.Sprintf("container %s would move, but does not run (%s): there is no memory to carry", c.Name, v.State)}
	}
	return nil
}

func initAgain(c *corev1.Container, v v1alpha1.ContainerVerdict) *Refusal {
	if v.Kind == v1alpha1.KindInit {
		return &Refusal{RefusalInitAgain, fmt.Sprintf("init container %s would run again before the processes that continue: %s", c.Name, v.Message)}
	}
	return nil
}

func interactive(c *corev1.Container, _ v1alpha1.ContainerVerdict) *Refusal {
	if c.TTY || c.Stdin {
		return &Refusal{RefusalInteractive, fmt.Sprintf("container %s has a terminal or an open input (tty, stdin), which is tied to its node", c.Name)}
	}
	return nil
}

func privileged(c *corev1.Container, _ v1alpha1.ContainerVerdict) *Refusal {
	if c.SecurityContext != nil && valueOr(c.SecurityContext.Privileged, false) {
		return &Refusal{RefusalPrivileged, fmt.Sprintf("container %s is privileged: it has the devices of its node", c.Name)}
	}
	return nil
}

func devices(c *corev1.Container, _ v1alpha1.ContainerVerdict) *Refusal {
	if len(c.VolumeDevices) > 0 {
		return &Refusal{RefusalDevice, fmt.Sprintf("container %s has block device %s", c.Name, c.VolumeDevices[0].Name)}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Resources.Limits)) {
		switch {
		case strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix):
			return &Refusal{RefusalProcessHugePages, fmt.Sprintf("container %s uses %s, which are not carried", c.Name, name)}
		case strings.Contains(string(name), "/"):
			return &Refusal{RefusalDevice, fmt.Sprintf("container %s has a device (%s), whose state is not in memory", c.Name, name)}
		}
	}
	return nil
}

func postStart(c *corev1.Container, _ v1alpha1.ContainerVerdict) *Refusal {
	if c.Lifecycle != nil && c.Lifecycle.PostStart != nil {
		return &Refusal{RefusalPostStart, fmt.Sprintf("container %s has a postStart hook, which the kubelet would run again in processes that continue", c.Name)}
	}
	return nil
}

func sidecarProbe(c *corev1.Container, v v1alpha1.ContainerVerdict) *Refusal {
	if v.Kind == v1alpha1.KindSidecar && c.StartupProbe != nil {
		return &Refusal{RefusalSidecarProbe, fmt.Sprintf("sidecar %s has a startup probe, which it cannot answer before the other containers are restored", c.Name)}
	}
	return nil
}

// valueOr is what a pointer of the API means.
func valueOr[T any](set *T, otherwise T) T {
	if set == nil {
		return otherwise
	}
	return *set
}
