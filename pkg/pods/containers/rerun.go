package containers

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// networkCapabilities are those with which a container changes the network of its
// pod: addresses, routes, and the rules by which a service mesh gets its traffic.
var networkCapabilities = []corev1.Capability{"NET_ADMIN", "NET_RAW", "ALL"}

// defaultCapabilities are those that container runtimes give to a container that asks
// for none (containerd, pkg/oci, defaultUnixCaps), without NET_RAW, which CRI-O does not
// give.
var defaultCapabilities = []corev1.Capability{
	"CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "SETGID", "SETUID", "SETFCAP", "SETPCAP",
	"NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE",
}

// runsAgain says why a finished init container runs again in the replacement: it may
// have changed what no volume carries, and what the replacement finds as if it had
// never run. Empty when it does not.
func runsAgain(pod *corev1.Pod, c *corev1.Container) string {
	switch {
	case rerun(pod)[c.Name]:
		return "annotation " + v1alpha1.RerunInitContainersAnnotation + " names it"
	case skipped(pod)[c.Name]:
		return ""
	}
	return effect(pod, c)
}

// effect says what an init container may have changed besides the volumes that go
// along; empty when nothing.
func effect(pod *corev1.Pod, c *corev1.Container) string {
	context := c.SecurityContext
	if context == nil {
		context = &corev1.SecurityContext{}
	}
	capabilities := addedCapabilities(context)
	isNetwork := func(capability corev1.Capability) bool { return slices.Contains(networkCapabilities, capability) }
	switch {
	case valueOr(context.Privileged, false):
		return "changes its node or the network of the pod: it is privileged"
	case isHostProcess(pod, context):
		return "changes its node: it is a process of the host"
	case slices.ContainsFunc(capabilities, isNetwork):
		return fmt.Sprintf("changes the network of the pod: it has capability %s", capabilities[slices.IndexFunc(capabilities, isNetwork)])
	case len(capabilities) > 0:
		return fmt.Sprintf("changes its node: it has capability %s", capabilities[0])
	case valueOr(context.ProcMount, corev1.DefaultProcMount) == corev1.UnmaskedProcMount:
		return "changes settings of its node: it has procMount Unmasked"
	}
	if used := hostNamespacesOf(&pod.Spec); len(used) > 0 {
		return fmt.Sprintf("changes its node: the pod uses %s", used[0])
	}
	mayGo := discardable(pod)
	for i := range pod.Spec.Volumes {
		if volume := &pod.Spec.Volumes[i]; volume.HostPath != nil && !mayGo[volume.Name] && canWrite(pod, volume, c.Name) {
			return fmt.Sprintf("changes its node: it writes to %s through volume %s", volume.HostPath.Path, volume.Name)
		}
	}
	return ""
}

// addedCapabilities are those beyond what every container has, without the prefix that
// some write.
func addedCapabilities(context *corev1.SecurityContext) []corev1.Capability {
	if context.Capabilities == nil {
		return nil
	}
	var added []corev1.Capability
	for _, capability := range context.Capabilities.Add {
		capability = corev1.Capability(strings.TrimPrefix(strings.ToUpper(string(capability)), "CAP_"))
		if !slices.Contains(defaultCapabilities, capability) {
			added = append(added, capability)
		}
	}
	return added
}

// isHostProcess follows the setting of the container, and then that of its pod
// (Windows).
func isHostProcess(pod *corev1.Pod, context *corev1.SecurityContext) bool {
	if context.WindowsOptions != nil && context.WindowsOptions.HostProcess != nil {
		return *context.WindowsOptions.HostProcess
	}
	of := pod.Spec.SecurityContext
	return of != nil && of.WindowsOptions != nil && valueOr(of.WindowsOptions.HostProcess, false)
}

// hostNamespacesOf lists the fields by which a pod is in namespaces of its node.
func hostNamespacesOf(spec *corev1.PodSpec) []string {
	var used []string
	for _, namespace := range []struct {
		field string
		used  bool
	}{{"hostNetwork", spec.HostNetwork}, {"hostPID", spec.HostPID}, {"hostIPC", spec.HostIPC}} {
		if namespace.used {
			used = append(used, namespace.field)
		}
	}
	return used
}

func rerun(pod *corev1.Pod) map[string]bool {
	return namesIn(pod, v1alpha1.RerunInitContainersAnnotation)
}

func skipped(pod *corev1.Pod) map[string]bool {
	return namesIn(pod, v1alpha1.SkipInitContainersAnnotation)
}

// initContainerNames refuses lists of init containers that name something else: a
// name with a fault in it would have no effect, and nobody would see that.
func initContainerNames(pod *corev1.Pod, _ Verdicts) *Refusal {
	known := initContainersOf(pod)
	for _, key := range []string{v1alpha1.RerunInitContainersAnnotation, v1alpha1.SkipInitContainersAnnotation} {
		for _, name := range listOf(pod, key) {
			if c := containerOf(pod, name); c != nil && isSidecar(c) {
				return &Refusal{RefusalInitContainers, fmt.Sprintf("annotation %s names %s, which is a sidecar: sidecars move with their pod", key, name)}
			}
			if !slices.Contains(known, name) {
				return &Refusal{RefusalInitContainers, fmt.Sprintf("annotation %s names %q, which is no init container of the pod; its init containers: %s", key, name, orNone(known))}
			}
		}
	}
	for _, name := range listOf(pod, v1alpha1.SkipInitContainersAnnotation) {
		if rerun(pod)[name] {
			return &Refusal{RefusalInitContainers, fmt.Sprintf("annotations %s and %s both name init container %s: remove it from one of them",
				v1alpha1.RerunInitContainersAnnotation, v1alpha1.SkipInitContainersAnnotation, name)}
		}
	}
	return nil
}

// initContainersOf names the init containers that end, those included that an earlier
// migration left out, which the template of the owner still names.
func initContainersOf(pod *corev1.Pod) []string {
	var names []string
	for i := range pod.Spec.InitContainers {
		if c := &pod.Spec.InitContainers[i]; !isSidecar(c) && !v1alpha1.IsGateContainer(c.Name) {
			names = append(names, c.Name)
		}
	}
	for _, v := range leftOutBefore(pod) {
		if v.Kind == v1alpha1.KindInit {
			names = append(names, v.Name)
		}
	}
	return names
}

func orNone(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// keepWhatRunsAgain returns the verdicts for a pod that the owner is about to create,
// with the init containers kept that act on more than volumes in this very pod. An
// injector may have added them since the original was judged, or may have given them
// more rights, and does not add them again to a pod that lacks them.
func keepWhatRunsAgain(pod *corev1.Pod, v Verdicts) Verdicts {
	v.Containers = slices.Clone(v.Containers)
	for i := range v.Containers {
		verdict := &v.Containers[i]
		if verdict.ShouldMigrate || verdict.Kind != v1alpha1.KindInit || verdict.Reason == ReasonGate {
			continue
		}
		if c := containerOf(pod, verdict.Name); c != nil {
			if why := runsAgain(pod, c); why != "" {
				verdict.ShouldMigrate, verdict.Reason, verdict.Message = true, ReasonInitRunsAgain, runsAgainMessage(why)
			}
		}
	}
	return v
}

func runsAgainMessage(why string) string { return "finished, but runs again: " + why }

// withoutStripped takes the names of init containers that stay behind from the lists of
// the author, so that the lists of the replacement name its own.
func withoutStripped(annotations map[string]string, v Verdicts) {
	for _, key := range []string{v1alpha1.RerunInitContainersAnnotation, v1alpha1.SkipInitContainersAnnotation} {
		text, set := annotations[key]
		if !set {
			continue
		}
		names := slices.DeleteFunc(splitNames(text), func(name string) bool { return !v.Keeps(name) })
		setOrDelete(annotations, key, strings.Join(names, ","))
	}
}
