package containers

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// BeforeGate returns the name of the first sidecar that starts before the gate of a
// replacement; "" when there is none, or no gate. An injector has put it there after the
// pod was built: it runs while state is restored, and a second copy of it runs before the
// original has stopped. Read the pod that the API server has stored.
//
// An init container that ends is none of those: it has ended before the gate waits, and
// nothing is restored before.
func BeforeGate(pod *corev1.Pod) string {
	first := ""
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		if c.Name == v1alpha1.GateContainer {
			return first
		}
		if first == "" && isSidecar(c) && !v1alpha1.IsGateContainer(c.Name) {
			first = c.Name
		}
	}
	return ""
}
