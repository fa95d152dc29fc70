package observe

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/ai-storage/orchestrator/pkg/scheduling/cluster"
)

// With a memory, the snapshots are those that come out without one, also when
// pods are replaced by others of the same name.
func TestAssessmentsChangeNothing(t *testing.T) {
	options, remembering := testOptions(), testOptions()
	remembering.Assessments = NewAssessments()
	running := testPod()
	finished := running.DeepCopy()
	finished.Status.ContainerStatuses[0].State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}
	other := running.DeepCopy()
	other.Name, other.UID = "other", "other"
	for turn, pods := range [][]*corev1.Pod{{running, other}, {running}, {finished, other}, {finished}} {
		observation := testObservation()
		observation.Pods = pods
		var want, got *cluster.Snapshot
		want, got = Build(observation, options), Build(observation, remembering)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("turn %d (-without +with memory):\n%s", turn, diff)
		}
		if len(remembering.Assessments.last)+len(remembering.Assessments.current) > 4 {
			t.Errorf("turn %d: pods that are gone are not removed", turn)
		}
	}
}
