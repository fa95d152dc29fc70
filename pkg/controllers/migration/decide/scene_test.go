package decide

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods"
	"github.com/ai-storage/orchestrator/pkg/pods/containers"
)

var t0 = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// scene is a state that a row changes.
type scene struct{ State }

func ago(d time.Duration) *metav1.MicroTime { return ptr.To(metav1.NewMicroTime(t0.Add(-d))) }

func originalPod() *fixture.PodBuilder {
	return fixture.MakePod("train").Node("a").RestartPolicy(corev1.RestartPolicyNever).
		Container("batch", fixture.Exited(0), fixture.Requests("900m", "64Mi")).
		Container("serve", fixture.Running(), fixture.Requests("500m", "64Mi"))
}

func replacementPod() *fixture.PodBuilder {
	return fixture.MakePod("train-r").Label(v1alpha1.MigrationUIDLabel, "m").Phase(corev1.PodPending).With(func(p *corev1.Pod) { p.Spec.SchedulerName = v1alpha1.SchedulerName }).
		RestartPolicy(corev1.RestartPolicyNever).Container("serve", nil)
}

func readyReplacement() *fixture.PodBuilder {
	return fixture.MakePod("train-r").Label(v1alpha1.MigrationUIDLabel, "m").Node("b").Ready(true).
		RestartPolicy(corev1.RestartPolicyNever).Container("serve", fixture.Running(), fixture.Requests("500m", "64Mi"))
}

// in returns a scene in a phase, as it is when all goes well.
func in(phase v1alpha1.Phase) *scene {
	m := &v1alpha1.PodMigration{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "m", UID: "m", Generation: 1,
			Finalizers: []string{v1alpha1.Finalizer}, CreationTimestamp: metav1.NewTime(t0.Add(-time.Minute))},
		Spec: v1alpha1.PodMigrationSpec{PodName: "train", TimeoutSeconds: 600, Checkpoint: v1alpha1.CheckpointSpec{ReclaimPolicy: v1alpha1.ClaimDelete}},
	}
	s := &scene{State{Now: t0, Migration: m, Pod: originalPod().Obj(), Claims: noClaims,
		Limits: Limits{UnschedulableGrace: 30 * time.Second, MeasureTimeout: 90 * time.Second, AgentGrace: 30 * time.Second, StartGrace: time.Minute, Settling: 5 * time.Second}}}
	if phase == "" || phase == v1alpha1.PhasePending {
		return s
	}
	m.Status = v1alpha1.PodMigrationStatus{
		Phase: phase, ObservedGeneration: 1, Original: &v1alpha1.PodReference{Name: "train", UID: "uid-train", NodeName: "a"},
		Replacement: &v1alpha1.PodReference{Name: "train-r"}, CheckpointClaim: "checkpoint",
		Containers: containers.Judge(s.Pod, containers.Policy{}).Containers, Times: v1alpha1.StepTimes{Started: ago(50 * time.Second)},
		Handover:   &v1alpha1.Handover{Method: v1alpha1.MethodCreate, Order: v1alpha1.OrderStartFirst},
		Checkpoint: &v1alpha1.CheckpointStatus{Mode: v1alpha1.CheckpointFrozen, Attempt: 1},
	}
	if phase == v1alpha1.PhasePreparing {
		return s
	}
	m.Status.Before = record(pods.Requests(s.Pod), nil)
	m.Status.Times.Prepared = ago(40 * time.Second)
	m.Status.Replacement.UID = "uid-train-r"
	s.Claim = fixture.MakeClaim("checkpoint", corev1.ReadWriteOnce)
	s.Claim.Labels = map[string]string{v1alpha1.MigrationUIDLabel: "m"}
	s.Replacement = replacementPod().Obj()
	if phase == v1alpha1.PhasePlacing {
		return s
	}
	s.Replacement = readyReplacement().Obj()
	m.Status.Replacement.NodeName = "b"
	m.Status.Times.ReplacementReady = ago(20 * time.Second)
	m.Status.Times.HandingOver = m.Status.Times.ReplacementReady
	s.set(v1alpha1.ConditionPlaced, metav1.ConditionTrue, ReasonPlaced)
	s.set(v1alpha1.ConditionReplacementReady, metav1.ConditionTrue, ReasonReady)
	return s
}

func noClaims(string) (*corev1.PersistentVolumeClaim, *corev1.PersistentVolume) { return nil, nil }

// set sets a condition. What commits a migration is written together with it.
func (s *scene) set(kind string, status metav1.ConditionStatus, reason string) *scene {
	isDone := status == metav1.ConditionTrue && (kind == v1alpha1.ConditionHandedOver || kind == v1alpha1.ConditionReleased)
	if isDone || kind == v1alpha1.ConditionHandedOver && (reason == ReasonDisrupted || reason == ReasonOffered) {
		s.set(v1alpha1.ConditionCommitted, metav1.ConditionTrue, reason)
	}
	meta.SetStatusCondition(&s.Migration.Status.Conditions, metav1.Condition{Type: kind, Status: status, Reason: reason, Message: "why", LastTransitionTime: metav1.NewTime(t0)})
	return s
}

// committed is a scene in which the original is about to be evicted.
func (s *scene) committed() *scene {
	return s.set(v1alpha1.ConditionCommitted, metav1.ConditionTrue, ReasonEvicting)
}

func (s *scene) with(change func(*scene)) *scene { change(s); return s }

// handedOver is a scene after the original has gone.
func handedOver() *scene {
	return in(v1alpha1.PhaseHandingOver).set(v1alpha1.ConditionHandedOver, metav1.ConditionTrue, ReasonHandedOver).with(func(s *scene) {
		s.Pod = nil
		s.Migration.Status.Times.OriginalGone = ago(10 * time.Second)
		s.Claim.OwnerReferences = []metav1.OwnerReference{{UID: "uid-train-r"}}
	})
}

func rollingBack(reason string) *scene {
	return in(v1alpha1.PhasePlacing).set(v1alpha1.ConditionRolledBack, metav1.ConditionFalse, reason)
}

// behindBarrier is a scene in which nothing that was prepared to end the original can
// happen any more.
func (s *scene) behindBarrier() *scene {
	metav1.SetMetaDataAnnotation(&s.Pod.ObjectMeta, v1alpha1.RollbackBarrierAnnotation, "m")
	return s
}

// barrierSet is a rollback that has nothing left to do but to remove the claim.
func barrierSet(reason string) *scene {
	return rollingBack(reason).with(func(s *scene) {
		s.Replacement, s.Pod.Annotations = nil, map[string]string{v1alpha1.RollbackBarrierAnnotation: "m"}
	})
}

func deleting(object metav1.Object) {
	object.SetDeletionTimestamp(ptr.To(metav1.NewTime(t0)))
}

func disrupted(b *fixture.PodBuilder) *fixture.PodBuilder {
	return b.Condition(corev1.PodCondition{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue}, t0)
}

func unscheduled(since time.Duration) *fixture.PodBuilder {
	return replacementPod().Condition(corev1.PodCondition{Type: corev1.PodScheduled, Status: corev1.ConditionFalse,
		Reason: corev1.PodReasonUnschedulable, Message: "0/2 nodes"}, t0.Add(-since))
}

// NoAction stands for a step that only waits, or writes something down.
const NoAction v1alpha1.Step = ""

// taken is the step whose action is taken.
func taken(d Decision) v1alpha1.Step {
	if d.Action == nil {
		return NoAction
	}
	return d.Step
}

// objects are those of an action: what is created, changed, deleted or asked about,
// what it becomes, and the probe.
func objects(a Action) (object, becomes Object, probe *corev1.Pod) {
	switch a := a.(type) {
	case CreateObject:
		return a.Object, nil, nil
	case ChangeObject:
		return a.From, a.To, nil
	case ChangeStatus:
		return a.From, a.To, nil
	case DeleteObject:
		return a.Object, nil, nil
	case EvictPod:
		return a.Pod, nil, nil
	case ProbeAdmission:
		if a.From == nil {
			return nil, nil, a.Probe
		}
		return a.From, a.To, a.Probe
	case TakePlace:
		return a.Pod, nil, nil
	case MeasurePod:
		return a.Pod, nil, nil
	}
	return nil, nil, nil
}

// podOf and becomesOf are objects of a decision that are pods; nil where they are not.
func podOf(d Decision) *corev1.Pod {
	object, _, _ := objects(d.Action)
	pod, _ := object.(*corev1.Pod)
	return pod
}

func becomesOf(d Decision) *corev1.Pod {
	_, becomes, _ := objects(d.Action)
	pod, _ := becomes.(*corev1.Pod)
	return pod
}

// row is a scene with what is most important of its decision. All of the decision is
// in the golden file of the test.
type row struct {
	name  string
	scene *scene
	// action is the step whose action is taken; NoAction where nothing is done.
	action v1alpha1.Step
	phase  v1alpha1.Phase
	// rollback is the reason of a rollback that begins or has begun; says is in the message.
	rollback string
	says     string
}

func check(t *testing.T, rows []row) {
	t.Helper()
	golden := newGolden(t)
	for _, test := range rows {
		t.Run(test.name, func(t *testing.T) { checkRow(t, golden, test) })
	}
}

func checkRow(t *testing.T, golden *golden, test row) Decision {
	t.Helper()
	d := next(t, test.scene.State)
	golden.check(t, test.name, test.scene.State, d)
	if taken(d) != test.action || d.Status.Phase != test.phase || !strings.Contains(d.Status.Message, test.says) {
		t.Errorf("action %q, phase %q (%s), want %q, %q and %q", taken(d), d.Status.Phase, d.Status.Message, test.action, test.phase, test.says)
	}
	c := ptr.Deref(meta.FindStatusCondition(d.Status.Conditions, v1alpha1.ConditionRolledBack), metav1.Condition{})
	if (test.rollback != "" || !test.scene.isRollingBack()) && c.Reason != test.rollback {
		t.Errorf("rolled back for %q (%s), want %q", c.Reason, c.Message, test.rollback)
	}
	if d.Status.Phase.IsFinished() && !test.scene.Migration.Status.Phase.IsFinished() && d.Status.Times.Finished == nil {
		t.Error("the end has no time")
	}
	checkProgress(t, test.scene, d)
	return d
}

// checkProgress fails for a decision that neither acts, nor changes the status,
// nor looks again: the migration would be stuck. Final ones may rest.
func checkProgress(t *testing.T, s *scene, d Decision) {
	t.Helper()
	rests := s.Migration.Status.Phase.IsFinished() || s.Migration.DeletionTimestamp != nil && len(s.Migration.Finalizers) == 0
	if !rests && d.Action == nil && d.Wait == 0 && cmp.Equal(s.Migration.Status, d.Status) {
		t.Error("nothing is done and nothing looks again")
	}
}
