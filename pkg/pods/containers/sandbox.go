package containers

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// hostMounting are the handlers of container runtimes that are known to mount the
// emptyDirs of the node into their containers: what a container writes, the node agent
// sees. gVisor (runsc) and Kata Containers keep it in memory of the sandbox, or in the
// file system of a virtual machine, and the directory of the node stays empty.
var hostMounting = []string{
	"runc", "crun", "youki", // runtimes of the OCI
	"nvidia", "nvidia-cdi", "nvidia-legacy", // the NVIDIA Container Toolkit, around runc or crun
	v1alpha1.ProcessRuntimeClass, // ours, around runc
}

// RefuseSandbox refuses to carry the emptyDirs of a pod with a runtimeClassName whose
// handler (spec.handler of the RuntimeClass) is not known to mount them from the node;
// nil when nothing would be carried. Further handlers are those that the admin vouches
// for. A handler that is not known, such as that of a RuntimeClass that is gone ("",
// too), is refused: the copy of an empty directory would look complete.
func RefuseSandbox(pod *corev1.Pod, v Verdicts, handler string, further ...string) *Refusal {
	class := valueOr(pod.Spec.RuntimeClassName, "")
	carried := CarriedVolumes(pod, v)
	if class == "" || len(carried) == 0 || slices.Contains(hostMounting, handler) || slices.Contains(further, handler) {
		return nil
	}
	why := fmt.Sprintf("runtimeClassName %s has handler %q, which is not known to keep them on the node", class, handler)
	switch {
	case handler == "":
		why = fmt.Sprintf("runtimeClassName %s: there is no such RuntimeClass to tell whether they are on the node", class)
	case isSandbox(handler):
		why = fmt.Sprintf("runtimeClassName %s has handler %q, which keeps them inside its sandbox", class, handler)
	}
	return &Refusal{RefusalSandbox, fmt.Sprintf("%s cannot be carried: %s. %s", volumeList(carried), why, howToDiscard(strings.Join(carried, ",")))}
}

// isSandbox names the handlers of gVisor and Kata Containers as their installers do.
func isSandbox(handler string) bool {
	return handler == "runsc" || strings.Contains(handler, "gvisor") || strings.HasPrefix(handler, "kata")
}
