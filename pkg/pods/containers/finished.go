package containers

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// Finished returns the names of the containers and of the init containers of a pod
// that have finished with exit code 0 and that nothing starts again. What they
// requested is of no use any more. Of the containers it comes free by a resize in
// place; of the init containers only when the pod moves, since the API does not
// resize them. Sidecars never finish for good, ephemeral containers request nothing.
func Finished(pod *corev1.Pod) (finished, inits map[string]bool) {
	finished, inits = map[string]bool{}, map[string]bool{}
	for _, verdict := range Judge(pod, Policy{}).Containers {
		switch {
		case verdict.ShouldMigrate:
		case verdict.Kind == v1alpha1.KindContainer && verdict.Reason == ReasonCompleted:
			finished[verdict.Name] = true
		case verdict.Kind == v1alpha1.KindInit && verdict.Reason == ReasonInitCompleted:
			inits[verdict.Name] = true
		}
	}
	return finished, inits
}
