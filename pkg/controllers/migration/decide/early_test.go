package decide

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// What cannot start, or has no place, ends a migration after its grace and with the reason
// of the kubelet or of the scheduler, whichever pod of the migration it is.
func TestWhatCannotStartEndsEarly(t *testing.T) {
	pulling := func(builder *fixture.PodBuilder, since time.Duration, init bool) *corev1.Pod {
		pod := builder.Phase(corev1.PodPending).Ready(false).
			Condition(corev1.PodCondition{Type: corev1.PodScheduled, Status: corev1.ConditionTrue}, t0.Add(-since)).Obj()
		status := *fixture.Waiting("ImagePullBackOff")
		status.Name, status.State.Waiting.Message = "of-the-agent", "no basic auth credentials"
		pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses = nil, []corev1.ContainerStatus{status}
		if init {
			pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses = pod.Status.ContainerStatuses, nil
		}
		return pod
	}
	of := func(name, node string) *fixture.PodBuilder {
		return fixture.MakePod(name).Label(v1alpha1.MigrationUIDLabel, "m").Node(node)
	}
	gate := func(since time.Duration) *scene {
		return carrying(v1alpha1.PhasePlacing).with(func(s *scene) { s.Replacement = pulling(replacementPod().Node("b"), since, true) })
	}
	placeholder := func(since time.Duration) *scene {
		return in(v1alpha1.PhasePlacing).with(func(s *scene) {
			s.Migration.Status.Handover.Order = v1alpha1.OrderStopFirst
			s.Migration.Status.Placeholder = &v1alpha1.PodReference{Name: "placeholder", UID: "uid-placeholder"}
			s.Replacement, s.Migration.Status.Replacement.UID = nil, ""
			s.Placeholder = pulling(of("placeholder", "b"), since, false)
		})
	}
	const noCredentials = "container of-the-agent: ImagePullBackOff: no basic auth credentials"
	for name, test := range map[string]struct {
		scene         *scene
		reason, words string
	}{
		"the gate, for a while":        {gate(59 * time.Second), "", noCredentials},
		"the gate":                     {gate(time.Minute), ReasonCannotStart, noCredentials},
		"the placeholder, for a while": {placeholder(59 * time.Second), "", noCredentials},
		"the placeholder":              {placeholder(time.Minute), ReasonCannotStart, noCredentials},
		// The condition was written a moment ago, by our clock: what others wrote seems long ago.
		"the gate, and our clock is ahead": {gate(time.Hour).set(v1alpha1.ConditionPlaced, metav1.ConditionTrue, ReasonPlaced), "", noCredentials},
		"no place, and our clock is ahead": {in(v1alpha1.PhasePlacing).with(func(s *scene) { s.Replacement = unscheduled(time.Hour).Obj() }).
			set(v1alpha1.ConditionPlaced, metav1.ConditionFalse, ReasonCreated), "", "0/2 nodes"},
		"a container that an injector has put before the gate": {carrying(v1alpha1.PhasePlacing).with(func(s *scene) {
			s.Replacement = replacementPod().Node("b").Sidecar("injected", nil).Init(v1alpha1.GateContainer, nil).Obj()
		}), ReasonReplacementRejected, "container injected"},
	} {
		d := next(t, test.scene.State)
		reason, message := "", d.Status.Message
		if c := meta.FindStatusCondition(d.Status.Conditions, v1alpha1.ConditionRolledBack); c != nil {
			reason, message = c.Reason, c.Message
		}
		if reason != test.reason || !strings.Contains(message, test.words) {
			t.Errorf("%s: %q, %q; want %q, %q", name, reason, message, test.reason, test.words)
		}
	}
}
