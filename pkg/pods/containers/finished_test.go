package containers_test

import (
	"maps"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"

	. "github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/pkg/pods/containers"
)

func TestFinished(t *testing.T) {
	for _, test := range []struct {
		name            string
		pod             *PodBuilder
		finished, inits []string
	}{
		{"nothing", MakePod("p").Node("a").RestartPolicy(never).Container("main", Running()), nil, nil},
		{"one of two, and its init container", MakePod("p").Node("a").RestartPolicy(never).
			Init("i", Exited(0)).Sidecar("s", Running()).Container("main", Running()).Container("done", Exited(0)), []string{"done"}, []string{"i"}},
		{"would restart", MakePod("p").Node("a").RestartPolicy(corev1.RestartPolicyAlways).
			Container("main", Running()).Container("done", Exited(0)), nil, nil},
		{"failed", MakePod("p").Node("a").RestartPolicy(never).Container("main", Running()).Container("failed", Exited(1)), nil, nil},
		{"init container runs again when the pod moves", MakePod("p").Node("a").RestartPolicy(never).Volume("c", ConfigMap("m")).Volume("v", EmptyDir()).
			Init("i", Exited(0)).Container("main", Running()), nil, []string{"i"}},
	} {
		finished, inits := containers.Finished(test.pod.Obj())
		if got := slices.Sorted(maps.Keys(finished)); !slices.Equal(got, test.finished) {
			t.Errorf("%s: containers %v, want %v", test.name, got, test.finished)
		}
		if got := slices.Sorted(maps.Keys(inits)); !slices.Equal(got, test.inits) {
			t.Errorf("%s: init containers %v, want %v", test.name, got, test.inits)
		}
	}
}
