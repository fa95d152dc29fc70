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
		Spec: v1alpha1.PodMigrationSpec{PodName: "train", TimeoutSeconds: 600},
	}
	s := &scene{State{Now: t0, Migration: m, Pod: originalPod().Obj(), Claims: noClaims,
		Limits: Limits{UnschedulableGrace: 30 * time.Second, MeasureTimeout: 90 * time.Second, AgentGrace: 30 * time.Second, StartGrace: time.Minute}}}
	if phase == "" || phase == v1alpha1.PhasePending {
		return s
	}
	m.Status = v1alpha1.PodMigrationStatus{
		Phase: phase, Original: &v1alpha1.PodReference{Name: "train", UID: "uid-train", NodeName: "a"},
		Replacement: &v1alpha1.PodReference{Name: "train-r"}, CheckpointClaim: "checkpoint",
		Containers: containers.Judge(s.Pod, containers.Policy{}).Containers, Times: v1alpha1.StepTimes{Started: ago(50 * time.Second)},
		Handover:   &v1alpha1.Handover{Method: v1alpha1.MethodCreate, Order: v1alpha1.OrderStartFirst},
		Checkpoint: &v1alpha1.CheckpointStatus{Mode: v1alpha1.CheckpointFrozen, Attempt: 1},
	}
	if phase == v1alpha1.PhasePreparing {
		return s
	}
	m.Status.Before = record(requestsOf(s.Pod), nil)
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

func (s *scene) set(kind string, status metav1.ConditionStatus, reason string) *scene {
	meta.SetStatusCondition(&s.Migration.Status.Conditions, metav1.Condition{Type: kind, Status: status, Reason: reason, Message: "why", LastTransitionTime: metav1.NewTime(t0)})
	return s
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

func TestNext(t *testing.T) {
	const pending, preparing, placing, handing = v1alpha1.PhasePending, v1alpha1.PhasePreparing, v1alpha1.PhasePlacing, v1alpha1.PhaseHandingOver
	const succeeded, failed, cancelled = v1alpha1.PhaseSucceeded, v1alpha1.PhaseFailed, v1alpha1.PhaseCancelled
	cancel := func(s *scene) { s.Migration.Spec.Cancel = true }
	remove := func(s *scene) { deleting(s.Migration) }
	unprotected := func(s *scene) { s.Migration.Finalizers = nil }
	tests := []struct {
		name   string
		scene  *scene
		action ActionType
		phase  v1alpha1.Phase
		// giveUp is the reason of a rollback that begins or ends; says is in the message.
		giveUp string
		says   string
	}{
		{"new", in("").with(func(s *scene) { s.Migration.Finalizers = nil }), AddFinalizer, "", "", ""},
		{"deleted before it began", in("").with(func(s *scene) { s.Migration.Finalizers = nil; deleting(s.Migration) }), NoAction, "", "", ""},
		{"valid", in(""), AskBudget, pending, "", ""},
		{"still waiting", in(pending), AskBudget, pending, "", ""},
		{"cancelled while pending", in(pending).with(cancel), NoAction, cancelled, "", "cancelled on request"},
		{"deleted while pending", in(pending).with(remove), NoAction, cancelled, "", "being deleted"},
		{"no pod", in(pending).with(func(s *scene) { s.Pod = nil }), NoAction, failed, "", "does not exist"},

		{"prepare: measure", in(preparing), MeasureBefore, preparing, "", ""},
		{"prepare: claim", in(preparing).with(func(s *scene) { s.Migration.Status.Before = record(nil, nil) }), CreateClaim, preparing, "", ""},
		{"prepare: done", in(placing).with(func(s *scene) { s.Migration.Status.Phase, s.Replacement = preparing, nil }), NoAction, placing, "", "left out: batch"},
		{"prepare: claim of others", in(placing).with(func(s *scene) {
			s.Migration.Status.Phase, s.Replacement, s.Claim.Labels = preparing, nil, nil
		}), NoAction, preparing, ReasonNameTaken, "claim checkpoint exists"},
		{"prepare: old claim goes", in(placing).with(func(s *scene) {
			s.Migration.Status.Phase, s.Replacement = preparing, nil
			deleting(s.Claim)
		}), NoAction, preparing, "", "waiting for the old claim"},
		{"prepare: old replacement", in(placing).with(func(s *scene) { s.Migration.Status.Phase = preparing }), DeleteReplacement, preparing, "", ""},
		{"prepare: old replacement goes", in(placing).with(func(s *scene) { s.Migration.Status.Phase = preparing; deleting(s.Replacement) }), NoAction, preparing, "", "waiting for replacement"},
		{"prepare: original gone", in(preparing).with(func(s *scene) { s.Pod = nil }), NoAction, preparing, ReasonOriginalDeleted, ""},
		{"prepare: another pod of its name", in(preparing).with(func(s *scene) { s.Pod.UID = "other" }), NoAction, preparing, ReasonOriginalDeleted, ""},
		{"prepare: all containers finished", in(preparing).with(func(s *scene) {
			s.Pod = fixture.MakePod("train").Node("a").RestartPolicy("Never").Container("batch", fixture.Exited(0)).Container("serve", fixture.Exited(0)).Obj()
		}), NoAction, preparing, ReasonOriginalFinished, ""},
		{"prepare: cancelled", in(preparing).with(cancel), NoAction, preparing, ReasonCancelled, ""},

		{"place: create", in(placing).with(func(s *scene) { s.Replacement, s.Migration.Status.Replacement.UID = nil, "" }), CreateReplacement, placing, "", ""},
		{"place: created before a crash", in(placing).with(func(s *scene) { s.Migration.Status.Replacement.UID = "" }), NoAction, placing, "", "waiting for scheduler"},
		{"place: pod of others", in(placing).with(func(s *scene) { s.Replacement.Labels, s.Migration.Status.Replacement.UID = nil, "" }), NoAction, placing, ReasonNameTaken, "pod train-r exists"},
		{"place: scheduler has not looked", in(placing), NoAction, placing, "", "waiting for scheduler ai-storage-scheduler"},
		{"place: within the grace", in(placing).with(func(s *scene) { s.Replacement = unscheduled(29 * time.Second).Obj() }), NoAction, placing, "", "0/2 nodes"},
		{"place: beyond the grace", in(placing).with(func(s *scene) { s.Replacement = unscheduled(30 * time.Second).Obj() }), NoAction, placing, ReasonUnschedulable, "0/2 nodes"},
		{"place: room is being made", in(placing).with(func(s *scene) {
			s.Replacement = unscheduled(300 * time.Second).Obj()
			s.Replacement.Status.NominatedNodeName = "b"
		}), NoAction, placing, "", "0/2 nodes"},
		{"place: the volume is being made", in(placing).with(func(s *scene) {
			s.Replacement = unscheduled(300 * time.Second).Obj()
			s.Replacement.Status.Conditions[0].Message = "0/2 nodes are available: pod has unbound immediate PersistentVolumeClaims."
			s.Claim.Spec.StorageClassName = ptr.To("slow")
		}), NoAction, placing, "", "unbound immediate"},
		{"place: nobody makes the volume", in(placing).with(func(s *scene) {
			s.Replacement = unscheduled(300 * time.Second).Obj()
			s.Replacement.Status.Conditions[0].Message = "0/2 nodes are available: pod has unbound immediate PersistentVolumeClaims."
		}), NoAction, placing, ReasonUnschedulable, "unbound immediate"},
		{"place: scheduler has an error", in(placing).with(func(s *scene) {
			s.Replacement = unscheduled(300 * time.Second).Obj()
			s.Replacement.Status.Conditions[0].Reason = corev1.PodReasonSchedulerError
		}), NoAction, placing, "", "0/2 nodes"},
		{"place: timeout", in(placing).with(func(s *scene) { s.Migration.Status.Times.Started = ago(600 * time.Second) }), NoAction, placing, ReasonTimedOut, "600 s"},
		{"place: on the source", in(placing).with(func(s *scene) { s.Replacement.Spec.NodeName = "a" }), NoAction, placing, ReasonLandedOnSource, ""},
		{"place: not on the target", in(placing).with(func(s *scene) { s.Replacement.Spec.NodeName = "b"; s.Migration.Spec.TargetNode = "c" }), NoAction, placing, ReasonLandedElsewhere, ""},
		{"place: starting", in(placing).with(func(s *scene) { s.Replacement.Spec.NodeName = "b" }), NoAction, placing, "", "not Ready yet"},
		{"place: image", in(placing).with(func(s *scene) {
			s.Replacement = replacementPod().Node("b").Container("x", fixture.Waiting("ErrImagePull")).Obj()
		}), NoAction, placing, "", "container x: ErrImagePull"},
		{"place: works", in(placing).with(func(s *scene) { s.Replacement = readyReplacement().Obj() }), NoAction, handing, "", "handing over"},
		{"place: finished at once", in(placing).with(func(s *scene) { s.Replacement = readyReplacement().Phase(corev1.PodSucceeded).Ready(false).Obj() }), NoAction, handing, "", "handing over"},
		{"place: one finished, the others ready", in(placing).with(func(s *scene) {
			s.Replacement = readyReplacement().Ready(false).Container("short", fixture.Exited(0)).Obj()
		}), NoAction, handing, "", "handing over"},
		{"place: one finished, a gate is closed", in(placing).with(func(s *scene) {
			s.Replacement = readyReplacement().Ready(false).Container("short", fixture.Exited(0)).Obj()
			s.Replacement.Spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: "example.com/lb"}}
		}), NoAction, placing, "", "not Ready yet"},
		{"place: failed", in(placing).with(func(s *scene) {
			s.Replacement = readyReplacement().Phase(corev1.PodFailed).Container("x", fixture.Exited(7)).Obj()
		}), NoAction, placing, ReasonReplacementFailed, "exit code 7"},
		{"place: deleted by others", in(placing).with(func(s *scene) { s.Replacement = nil }), NoAction, placing, ReasonReplacementDeleted, ""},
		{"place: made anew by others", in(placing).with(func(s *scene) { s.Replacement.UID = "other" }), NoAction, placing, ReasonReplacementDeleted, ""},
		{"place: being deleted by others", in(placing).with(func(s *scene) { deleting(s.Replacement) }), NoAction, placing, ReasonReplacementDeleted, ""},
		{"place: original finished", in(placing).with(func(s *scene) { s.Pod.Status.Phase = corev1.PodSucceeded }), NoAction, placing, ReasonOriginalFinished, ""},
		{"place: original failed", in(placing).with(func(s *scene) { s.Pod.Status.Phase = corev1.PodFailed }), NoAction, placing, ReasonOriginalFailed, ""},
		{"place: original deleted", in(placing).with(func(s *scene) { deleting(s.Pod) }), NoAction, placing, ReasonOriginalDeleted, ""},
		{"place: original drained", in(placing).with(func(s *scene) { s.Pod = disrupted(originalPod()).Obj(); deleting(s.Pod) }), NoAction, placing, "", "its replacement goes on"},
		{"place: original drained before there is a replacement", in(placing).with(func(s *scene) {
			s.Pod, s.Replacement, s.Migration.Status.Replacement.UID = disrupted(originalPod()).Obj(), nil, ""
			deleting(s.Pod)
		}), NoAction, placing, ReasonOriginalDeleted, ""},
		{"place: a container finished", in(placing).with(func(s *scene) {
			s.Pod = originalPod().Container("late", fixture.Exited(0)).Obj()
			s.Migration.Status.Containers = append(s.Migration.Status.Containers, v1alpha1.ContainerVerdict{Name: "late", ShouldMigrate: true})
		}), NoAction, preparing, "", "built anew"},
		{"place: cancelled", in(placing).with(cancel), NoAction, placing, ReasonCancelled, ""},
		{"place: deleted", in(placing).with(remove), NoAction, placing, ReasonCancelled, ""},
		{"place: drained and unschedulable waits on", in(placing).set(v1alpha1.ConditionHandedOver, metav1.ConditionFalse, ReasonDisrupted).with(func(s *scene) {
			s.Pod, s.Replacement = nil, unscheduled(time.Hour).Obj()
		}), NoAction, placing, "", "0/2 nodes"},
		{"place: drained and cancelled waits on", in(placing).set(v1alpha1.ConditionHandedOver, metav1.ConditionFalse, ReasonDisrupted).with(func(s *scene) {
			s.Pod = nil
			cancel(s)
		}), NoAction, placing, "", "waiting for scheduler"},

		{"hand over: evict", in(handing), Evict, handing, "", ""},
		{"hand over: replacement no longer works", in(handing).with(func(s *scene) { s.Replacement = readyReplacement().Ready(false).Obj() }), NoAction, handing, "", "not removing the original"},
		{"hand over: replacement gone", in(handing).with(func(s *scene) { s.Replacement = nil }), NoAction, handing, ReasonReplacementDeleted, ""},
		{"hand over: a container finished", in(handing).with(func(s *scene) {
			s.Pod = fixture.MakePod("train").Node("a").RestartPolicy("Never").Container("batch", fixture.Exited(0)).Container("serve", fixture.Exited(0)).Obj()
		}), NoAction, preparing, "", "built anew"},
		{"hand over: blocked until the timeout", in(handing).with(func(s *scene) { s.Migration.Status.Times.Started = ago(600 * time.Second) }), NoAction, handing, ReasonTimedOut, ""},
		{"hand over: cancelled before the eviction", in(handing).with(cancel), NoAction, handing, ReasonCancelled, ""},
		{"hand over: cancelled after the eviction", in(handing).with(func(s *scene) { cancel(s); deleting(s.Pod) }), NoAction, handing, "", "waiting for pod train to end"},
		{"hand over: timeout after the eviction", in(handing).with(func(s *scene) {
			s.Migration.Status.Times.Started = ago(time.Hour)
			deleting(s.Pod)
		}), NoAction, handing, "", "waiting for pod train to end"},
		{"hand over: gone", in(handing).with(func(s *scene) { s.Pod = nil }), NoAction, handing, "", "the original is gone"},
		{"hand over: its name is another pod's", in(handing).with(func(s *scene) { s.Pod.UID = "other" }), NoAction, handing, "", "the original is gone"},
		{"hand over: earlier claim", in(handing).with(func(s *scene) {
			s.PreviousClaim = fixture.MakeClaim("old", corev1.ReadWriteOnce)
			s.PreviousClaim.OwnerReferences = []metav1.OwnerReference{{UID: "uid-train"}}
		}), KeepPreviousClaim, handing, "", ""},
		{"hand over: failed by node pressure", in(handing).set(v1alpha1.ConditionHandedOver, metav1.ConditionFalse, ReasonDisrupted).with(func(s *scene) {
			s.Pod = disrupted(originalPod().Phase(corev1.PodFailed)).Obj()
		}), Evict, handing, "", ""},

		{"after: adopt the claim", handedOver().with(func(s *scene) { s.Claim.OwnerReferences = nil }), AdoptClaim, handing, "", ""},
		{"after: retained claim", handedOver().with(func(s *scene) {
			s.Claim.OwnerReferences = nil
			s.Migration.Spec.Checkpoint.ReclaimPolicy = v1alpha1.ClaimRetain
		}), MeasureAfter, handing, "", ""},
		{"after: measure", handedOver(), MeasureAfter, handing, "", ""},
		{"after: cancelled", handedOver().with(cancel), MeasureAfter, handing, "", ""},
		{"after: deleted, no measuring", handedOver().with(remove), NoAction, succeeded, "", "moved from node a to node b"},
		{"after: replacement has finished", handedOver().with(func(s *scene) { s.Replacement.Status.Phase = corev1.PodSucceeded }), NoAction, succeeded, "", "moved from"},
		{"after: replacement failed", handedOver().with(func(s *scene) { s.Replacement.Status.Phase = corev1.PodFailed }), NoAction, failed, "", "after the original had gone"},
		{"after: replacement failed, its claim is adopted", handedOver().with(func(s *scene) {
			s.Replacement.Status.Phase, s.Claim.OwnerReferences = corev1.PodFailed, nil
		}), AdoptClaim, handing, "", ""},
		{"after: replacement gone, its claim goes", handedOver().with(func(s *scene) { s.Replacement = nil }), DeleteClaim, handing, "", ""},
		{"after: replacement gone, a retained claim stays", handedOver().with(func(s *scene) {
			s.Replacement, s.Migration.Spec.Checkpoint.ReclaimPolicy = nil, v1alpha1.ClaimRetain
		}), NoAction, failed, "", "after the original had gone"},
		{"after: replacement and claim gone", handedOver().with(func(s *scene) { s.Replacement, s.Claim = nil, nil }), NoAction, failed, "", "after the original had gone"},
		{"after: measured", handedOver().with(func(s *scene) { s.Migration.Status.After = record(requestsOf(s.Replacement), nil) }), NoAction, succeeded, "", "requests freed: cpu 900m"},

		{"roll back: replacement", rollingBack(ReasonUnschedulable), DeleteReplacement, placing, "", ""},
		{"roll back: replacement goes", rollingBack(ReasonUnschedulable).with(func(s *scene) { deleting(s.Replacement) }), NoAction, placing, "", ""},
		{"roll back: not the pod of others", barrierSet(ReasonNameTaken).with(func(s *scene) { s.Replacement = replacementPod().Obj(); s.Replacement.Labels = nil }), DeleteClaim, placing, "", ""},
		{"roll back: older judgements are void", rollingBack(ReasonUnschedulable).with(func(s *scene) { s.Replacement = nil }), SetRollbackBarrier, placing, "", ""},
		{"roll back: no replacement was ever made", rollingBack(ReasonUnschedulable).with(func(s *scene) { s.Replacement, s.Migration.Status.Replacement.UID = nil, "" }), DeleteClaim, placing, "", ""},
		{"roll back: claim", barrierSet(ReasonUnschedulable), DeleteClaim, placing, "", ""},
		{"roll back: not the claim of others", barrierSet(ReasonNameTaken).with(func(s *scene) { s.Claim.Labels = nil }), NoAction, failed, ReasonNameTaken, "why"},
		{"roll back: done", barrierSet(ReasonUnschedulable).with(func(s *scene) { s.Claim = nil }), NoAction, failed, ReasonUnschedulable, "why"},
		{"roll back: cancelled", barrierSet(ReasonCancelled).with(func(s *scene) { s.Claim = nil }), NoAction, cancelled, ReasonCancelled, "why"},
		{"roll back: finished original", barrierSet(ReasonOriginalFinished).with(func(s *scene) { s.Claim = nil }), NoAction, cancelled, ReasonOriginalFinished, "why"},

		{"end: the record needs no protection", in(succeeded), RemoveFinalizer, succeeded, "", ""},
		{"end: nothing to do", in(succeeded).with(unprotected), NoAction, succeeded, "", ""},
		{"end: deleted", in(failed).with(remove), RemoveFinalizer, failed, "", ""},
		{"end: time to live", in(succeeded).with(unprotected).with(func(s *scene) {
			s.Migration.Spec.TTLSecondsAfterFinished, s.Migration.Status.Times.Finished = ptr.To[int32](10), ago(10*time.Second)
		}), DeleteMigration, succeeded, "", ""},
		{"end: not yet", in(succeeded).with(unprotected).with(func(s *scene) {
			s.Migration.Spec.TTLSecondsAfterFinished, s.Migration.Status.Times.Finished = ptr.To[int32](10), ago(9*time.Second)
		}), NoAction, succeeded, "", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			before := test.scene.Migration.DeepCopy()
			d := Next(test.scene.State)
			if diff := cmp.Diff(before, test.scene.Migration); diff != "" {
				t.Errorf("the state was changed:\n%s", diff)
			}
			if d.Action.Type != test.action || d.Status.Phase != test.phase {
				t.Errorf("action %q, phase %q (%s), want %q and %q", d.Action.Type, d.Status.Phase, d.Status.Message, test.action, test.phase)
			}
			if !strings.Contains(d.Status.Message, test.says) {
				t.Errorf("message = %q, want it to say %q", d.Status.Message, test.says)
			}
			c := meta.FindStatusCondition(d.Status.Conditions, v1alpha1.ConditionRolledBack)
			switch {
			case test.giveUp == "" && c != nil && !test.scene.isRollingBack():
				t.Errorf("gave up: %s: %s", c.Reason, c.Message)
			case test.giveUp != "" && (c == nil || c.Reason != test.giveUp):
				t.Errorf("condition RolledBack = %+v, want reason %s", c, test.giveUp)
			}
			if d.Status.Phase.IsFinished() && !before.Status.Phase.IsFinished() && d.Status.Times.Finished == nil {
				t.Error("the end has no time")
			}
			checkProgress(t, test.scene, d)
		})
	}
}

// A migration without a way back waits beyond its deadline, for days if it
// must: it may not ask the API server every second meanwhile.
func TestNoHurryBeyondTheDeadline(t *testing.T) {
	s := in(v1alpha1.PhasePlacing).set(v1alpha1.ConditionHandedOver, metav1.ConditionFalse, ReasonDisrupted)
	s.Pod, s.Replacement = nil, unscheduled(time.Hour).Obj()
	s.Migration.Status.Times.Started = ago(24 * time.Hour)
	if d := Next(s.State); d.Wait < PollInterval {
		t.Errorf("it looks again after %v, want at least %v", d.Wait, PollInterval)
	}
}

// checkProgress fails for a decision that neither acts, nor changes the status,
// nor looks again: the migration would be stuck. Final ones may rest.
func checkProgress(t *testing.T, s *scene, d Decision) {
	t.Helper()
	rests := s.Migration.Status.Phase.IsFinished() || s.Migration.DeletionTimestamp != nil && len(s.Migration.Finalizers) == 0
	if !rests && d.Action.Type == NoAction && d.Wait == 0 && cmp.Equal(s.Migration.Status, d.Status) {
		t.Error("nothing is done and nothing looks again")
	}
}
