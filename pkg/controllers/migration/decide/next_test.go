package decide

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods"
)

func TestNext(t *testing.T) {
	const pending, preparing, placing, handing = v1alpha1.PhasePending, v1alpha1.PhasePreparing, v1alpha1.PhasePlacing, v1alpha1.PhaseHandingOver
	const succeeded, failed, cancelled = v1alpha1.PhaseSucceeded, v1alpha1.PhaseFailed, v1alpha1.PhaseCancelled
	cancel := func(s *scene) { s.Migration.Spec.Cancel = true }
	remove := func(s *scene) { deleting(s.Migration) }
	unprotected := func(s *scene) { s.Migration.Finalizers = nil }
	check(t, []row{
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
		{"prepare: claim of another client", in(placing).with(func(s *scene) {
			s.Migration.Status.Phase, s.Replacement, s.Claim.Labels = preparing, nil, nil
		}), NoAction, preparing, ReasonNameTaken, "claim checkpoint exists"},
		{"prepare: the claim is deleted by another client", in(placing).with(func(s *scene) {
			s.Migration.Status.Phase, s.Replacement = preparing, nil
			deleting(s.Claim)
		}), NoAction, preparing, ReasonClaimDeleted, "claim checkpoint was deleted"},
		{"prepare: a replacement that a newer controller has made", in(placing).with(func(s *scene) { s.Migration.Status.Phase, s.Migration.Status.Replacement.UID = preparing, "" }), NoAction, preparing, "", "looking again"},
		{"prepare: old replacement", in(placing).with(func(s *scene) { s.Migration.Status.Phase = preparing }), RemoveLeftovers, preparing, "", ""},
		{"prepare: old replacement goes", in(placing).with(func(s *scene) { s.Migration.Status.Phase = preparing; deleting(s.Replacement) }), NoAction, preparing, "", "waiting for replacement"},
		{"prepare: original gone", in(preparing).with(func(s *scene) { s.Pod = nil }), NoAction, preparing, ReasonOriginalDeleted, ""},
		{"prepare: another pod of its name", in(preparing).with(func(s *scene) { s.Pod.UID = "other" }), NoAction, preparing, ReasonOriginalDeleted, ""},
		{"prepare: all containers finished", in(preparing).with(func(s *scene) {
			s.Pod = fixture.MakePod("train").Node("a").RestartPolicy("Never").Container("batch", fixture.Exited(0)).Container("serve", fixture.Exited(0)).Obj()
		}), NoAction, preparing, ReasonOriginalFinished, ""},
		{"prepare: cancelled", in(preparing).with(cancel), NoAction, preparing, ReasonCancelled, ""},

		{"place: create", in(placing).with(func(s *scene) { s.Replacement, s.Migration.Status.Replacement.UID = nil, "" }), CreateReplacement, placing, "", ""},
		{"place: created before a crash", in(placing).with(func(s *scene) { s.Migration.Status.Replacement.UID = "" }), NoAction, placing, "", "waiting for scheduler"},
		{"place: pod of another client", in(placing).with(func(s *scene) { s.Replacement.Labels, s.Migration.Status.Replacement.UID = nil, "" }), NoAction, placing, ReasonNameTaken, "pod train-r exists"},
		{"place: scheduler has not looked", in(placing), NoAction, placing, "", "waiting for scheduler ai-storage-scheduler"},
		{"place: within the grace", in(placing).with(func(s *scene) { s.Replacement = unscheduled(29 * time.Second).Obj() }), NoAction, placing, "", "0/2 nodes"},
		{"place: beyond the grace", in(placing).with(func(s *scene) { s.Replacement = unscheduled(30 * time.Second).Obj() }), NoAction, placing, ReasonUnschedulable, "0/2 nodes"},
		{"place: an autoscaler makes a node", in(placing).with(func(s *scene) {
			s.Replacement, s.ComingNode = unscheduled(90*time.Second).Obj(), "TriggeredScaleUp: pod triggered scale-up: [{pool 1->2 (max: 5)}]"
		}), NoAction, placing, "", "TriggeredScaleUp"},
		{"place: the node that an autoscaler has made", in(placing).with(func(s *scene) {
			s.Replacement, s.ComingNode = readyReplacement().Obj(), ""
		}), NoAction, handing, "", "handing over"},
		{"place: an autoscaler makes a node for longer than the migration may take", in(placing).with(func(s *scene) {
			s.Replacement, s.ComingNode = unscheduled(590*time.Second).Obj(), "Nominated: Pod should schedule on: nodeclaim/x"
			s.Migration.Status.Times.Started = ago(600 * time.Second)
		}), NoAction, placing, ReasonTimedOut, "600 s"},
		{"place: pods are being preempted", in(placing).with(func(s *scene) {
			s.Replacement = unscheduled(300 * time.Second).Obj()
			s.Replacement.Status.NominatedNodeName = "b"
		}), NoAction, placing, "", "0/2 nodes"},
		{"place: the volume is being provisioned", in(placing).with(func(s *scene) {
			s.Replacement = unscheduled(300 * time.Second).Obj()
			s.Replacement.Status.Conditions[0].Message = "0/2 nodes are available: pod has unbound immediate PersistentVolumeClaims."
			s.Claim.Spec.StorageClassName = ptr.To("slow")
		}), NoAction, placing, "", "unbound immediate"},
		{"place: nobody provisions the volume", in(placing).with(func(s *scene) {
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
		{"place: ready", in(placing).with(func(s *scene) { s.Replacement = readyReplacement().Obj() }), NoAction, handing, "", "handing over"},
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
		{"place: deleted by another client", in(placing).with(func(s *scene) { s.Replacement = nil }), NoAction, placing, ReasonReplacementDeleted, ""},
		{"place: recreated by another client", in(placing).with(func(s *scene) { s.Replacement.UID = "other" }), NoAction, placing, ReasonReplacementDeleted, ""},
		{"place: being deleted by another client", in(placing).with(func(s *scene) { deleting(s.Replacement) }), NoAction, placing, ReasonReplacementDeleted, ""},
		{"place: ended, since it is being deleted by another client", in(placing).with(func(s *scene) {
			s.Replacement = readyReplacement().Phase(corev1.PodFailed).Container("x", fixture.Exited(1)).Obj()
			deleting(s.Replacement)
		}), NoAction, placing, ReasonReplacementDeleted, "being deleted"},
		{"place: original finished", in(placing).with(func(s *scene) { s.Pod.Status.Phase = corev1.PodSucceeded }), NoAction, placing, ReasonOriginalFinished, ""},
		{"place: original failed", in(placing).with(func(s *scene) { s.Pod.Status.Phase = corev1.PodFailed }), NoAction, placing, ReasonOriginalFailed, ""},
		{"place: original deleted", in(placing).with(func(s *scene) { deleting(s.Pod) }), NoAction, placing, ReasonOriginalDeleted, ""},
		{"place: original drained", in(placing).with(func(s *scene) { s.Pod = disrupted(originalPod()).Obj(); deleting(s.Pod) }), NoAction, placing, "", "its replacement continues"},
		{"place: original drained before there is a replacement", in(placing).with(func(s *scene) {
			s.Pod, s.Replacement, s.Migration.Status.Replacement.UID = disrupted(originalPod()).Obj(), nil, ""
			deleting(s.Pod)
		}), NoAction, placing, ReasonOriginalDeleted, ""},
		{"place: a container finished", in(placing).with(func(s *scene) {
			s.Pod = originalPod().Container("late", fixture.Exited(0)).Obj()
			s.Migration.Status.Containers = append(s.Migration.Status.Containers, v1alpha1.ContainerVerdict{Name: "late", ShouldMigrate: true})
		}), NoAction, preparing, "", "rebuilt"},
		{"place: cancelled", in(placing).with(cancel), NoAction, placing, ReasonCancelled, ""},
		{"place: deleted", in(placing).with(remove), NoAction, placing, ReasonCancelled, ""},
		{"place: drained and unschedulable waits on", in(placing).set(v1alpha1.ConditionHandedOver, metav1.ConditionFalse, ReasonDisrupted).with(func(s *scene) {
			s.Pod, s.Replacement = nil, unscheduled(time.Hour).Obj()
		}), NoAction, placing, "", "0/2 nodes"},
		{"place: drained and cancelled waits on", in(placing).set(v1alpha1.ConditionHandedOver, metav1.ConditionFalse, ReasonDisrupted).with(func(s *scene) {
			s.Pod = nil
			cancel(s)
		}), NoAction, placing, "", "waiting for scheduler"},

		{"hand over: commit", in(handing), Commit, handing, "", ""},
		{"hand over: evict", in(handing).committed(), Evict, handing, "", ""},
		{"hand over: nothing probes the replacement, and it has just become ready", in(handing).with(func(s *scene) { s.Replacement = readyFor(4 * time.Second) }), NoAction, handing, "", "has to stay so for 1s"},
		{"hand over: nothing probes the replacement, and it has stayed ready", in(handing).with(func(s *scene) { s.Replacement = readyFor(6 * time.Second) }), Commit, handing, "", ""},
		{"hand over: a probe tells that it works", in(handing).with(func(s *scene) {
			s.Replacement = readyFor(0)
			s.Replacement.Spec.Containers[0].ReadinessProbe = &corev1.Probe{}
		}), Commit, handing, "", ""},
		{"hand over: replacement is no longer ready", in(handing).with(func(s *scene) { s.Replacement = readyReplacement().Ready(false).Obj() }), NoAction, handing, "", "not evicting the original"},
		{"hand over: replacement gone", in(handing).with(func(s *scene) { s.Replacement = nil }), NoAction, handing, ReasonReplacementDeleted, ""},
		{"hand over: a container finished", in(handing).with(func(s *scene) {
			s.Pod = fixture.MakePod("train").Node("a").RestartPolicy("Never").Container("batch", fixture.Exited(0)).Container("serve", fixture.Exited(0)).Obj()
		}), NoAction, preparing, "", "rebuilt"},
		{"hand over: blocked until the timeout", in(handing).with(func(s *scene) { s.Migration.Status.Times.Started = ago(600 * time.Second) }), NoAction, handing, ReasonTimedOut, ""},
		{"hand over: cancelled before the eviction", in(handing).with(cancel), NoAction, handing, ReasonCancelled, ""},
		{"hand over: cancelled when committed, and not yet evicted", in(handing).committed().with(cancel), WithdrawEviction, handing, "", ""},
		{"hand over: the eviction is withdrawn", in(handing).committed().with(cancel).behindBarrier(), NoAction, handing, "", ""},
		{"hand over: timeout when committed", in(handing).committed().with(func(s *scene) { s.Migration.Status.Times.Started = ago(600 * time.Second) }), WithdrawEviction, handing, "", ""},
		{"hand over: the original finished when committed", in(handing).committed().with(func(s *scene) { s.Pod.Status.Phase = corev1.PodSucceeded }), WithdrawEviction, handing, "", ""},
		{"hand over: a container finished when committed", in(handing).committed().with(func(s *scene) {
			s.Pod = fixture.MakePod("train").Node("a").RestartPolicy("Never").Container("batch", fixture.Exited(0)).Container("serve", fixture.Exited(0)).Obj()
		}), WithdrawEviction, handing, "", ""},
		{"hand over: the replacement is lost when committed", in(handing).committed().with(func(s *scene) { s.Replacement = nil }), WithdrawEviction, handing, "", ""},
		{"hand over: a budget holds the original after all", in(handing).committed().set(v1alpha1.ConditionHandedOver, metav1.ConditionFalse, ReasonEvictionBlocked), WithdrawEviction, handing, "", ""},
		{"hand over: another attempt", in(handing).behindBarrier().with(func(s *scene) { s.Migration.Status.Handover.Withdrawals = 1 }), Commit, handing, "", ""},
		{"hand over: an older attempt was withdrawn by another controller", in(handing).committed().behindBarrier(), NoAction, handing, "", ""},
		{"hand over: cancelled after the eviction", in(handing).committed().with(func(s *scene) { cancel(s); deleting(s.Pod) }), NoAction, handing, "", "waiting for pod train to end"},
		{"hand over: timeout after the eviction", in(handing).committed().with(func(s *scene) {
			s.Migration.Status.Times.Started = ago(time.Hour)
			deleting(s.Pod)
		}), NoAction, handing, "", "waiting for pod train to end"},
		{"hand over: gone", in(handing).committed().with(func(s *scene) { s.Pod = nil }), NoAction, handing, "", "the original is gone"},
		{"hand over: deleted by another client before it was committed", in(handing).with(func(s *scene) { deleting(s.Pod) }), NoAction, handing, ReasonOriginalDeleted, ""},
		{"hand over: a finalizer of another controller keeps what has ended", in(handing).committed().with(func(s *scene) {
			deleting(s.Pod)
			s.Pod.Finalizers, s.Pod.Status.Phase = []string{"example.com/keep"}, corev1.PodFailed
			for i := range s.Pod.Status.ContainerStatuses {
				s.Pod.Status.ContainerStatuses[i].State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 137}}
			}
		}), NoAction, handing, "", "the original is gone"},
		{"hand over: it has failed, and a container still runs", in(handing).committed().with(func(s *scene) {
			deleting(s.Pod)
			s.Pod.Finalizers, s.Pod.Status.Phase = []string{"example.com/keep"}, corev1.PodFailed
		}), NoAction, handing, "", "waiting for pod train to end"},
		{"hand over: its name is another pod's", in(handing).committed().with(func(s *scene) { s.Pod.UID = "other" }), NoAction, handing, "", "the original is gone"},
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
		{"after: measured", handedOver().with(func(s *scene) { s.Migration.Status.After = record(pods.Requests(s.Replacement), nil) }), NoAction, succeeded, "", "requests freed: cpu 900m"},

		{"roll back: older judgements are void before anything is removed", rollingBack(ReasonUnschedulable), SetRollbackBarrier, placing, "", ""},
		{"roll back: replacement", rollingBack(ReasonUnschedulable).behindBarrier(), DiscardReplacement, placing, "", ""},
		{"roll back: replacement goes", rollingBack(ReasonUnschedulable).behindBarrier().with(func(s *scene) { deleting(s.Replacement) }), NoAction, placing, "", ""},
		{"roll back: not the pod of another client", barrierSet(ReasonNameTaken).with(func(s *scene) { s.Replacement = replacementPod().Obj(); s.Replacement.Labels = nil }), DeleteClaim, placing, "", ""},
		{"roll back: older judgements are void", rollingBack(ReasonUnschedulable).with(func(s *scene) { s.Replacement = nil }), SetRollbackBarrier, placing, "", ""},
		{"roll back: no replacement was ever made", rollingBack(ReasonUnschedulable).with(func(s *scene) { s.Replacement, s.Migration.Status.Replacement.UID = nil, "" }), DeleteClaim, placing, "", ""},
		{"roll back: claim", barrierSet(ReasonUnschedulable), DeleteClaim, placing, "", ""},
		{"roll back: not the claim of another client", barrierSet(ReasonNameTaken).with(func(s *scene) { s.Claim.Labels = nil }), NoAction, failed, ReasonNameTaken, "why"},
		{"roll back: done", barrierSet(ReasonUnschedulable).with(func(s *scene) { s.Claim = nil }), NoAction, failed, ReasonUnschedulable, "why"},
		{"roll back: cancelled", barrierSet(ReasonCancelled).with(func(s *scene) { s.Claim = nil }), NoAction, cancelled, ReasonCancelled, "why"},
		{"roll back: finished original", barrierSet(ReasonOriginalFinished).with(func(s *scene) { s.Claim = nil }), NoAction, cancelled, ReasonOriginalFinished, "why"},

		{"roll back: the claim goes when its finalizer is removed", barrierSet(ReasonUnschedulable).with(func(s *scene) {
			deleting(s.Claim)
			s.Claim.Finalizers = []string{v1alpha1.CheckpointFinalizer}
		}), DeleteClaim, placing, "", ""},
		{"place: the claim is deleted by another client", in(placing).with(func(s *scene) {
			deleting(s.Claim)
			s.Claim.Finalizers = []string{v1alpha1.CheckpointFinalizer}
		}), NoAction, placing, ReasonClaimDeleted, "claim checkpoint was deleted"},
		{"place: the claim that the pod brought along is going", in(placing).with(func(s *scene) {
			s.Migration.Status.Checkpoint = &v1alpha1.CheckpointStatus{Mode: v1alpha1.CheckpointApplication, ClaimReused: true}
			s.Claim.Labels = nil
			s.Claim.DeletionTimestamp = &metav1.Time{Time: t0}
		}), NoAction, placing, ReasonClaimDeleted, "claim checkpoint was deleted"},
		{"place: the claim is gone", in(placing).with(func(s *scene) { s.Claim = nil }), NoAction, placing, ReasonClaimDeleted, "claim checkpoint was deleted"},
		{"place: there is no claim, and needs to be none", in(placing).with(func(s *scene) { s.Claim, s.Migration.Status.CheckpointClaim = nil, "" }), NoAction, placing, "", "waiting for scheduler"},
		{"prepare: nothing to keep on a claim", in(preparing).with(func(s *scene) {
			s.Migration.Status.Before, s.Migration.Status.CheckpointClaim = record(nil, nil), ""
		}), NoAction, placing, "", "left out: batch"},
		{"place: another controller gates the replacement", in(placing).with(func(s *scene) {
			s.Replacement = unscheduled(30 * time.Second).Obj()
			s.Replacement.Status.Conditions[0].Reason = corev1.PodReasonSchedulingGated
			s.Replacement.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "kueue.x-k8s.io/admission"}}
		}), NoAction, placing, ReasonUnschedulable, "scheduling gate kueue.x-k8s.io/admission"},

		{"end: a pod that was made late", in(succeeded).with(func(s *scene) { s.Strays = []corev1.Pod{*replacementPod().Obj()} }), DeleteStray, succeeded, "", ""},
		{"end: a claim that was made late", in(failed).with(func(s *scene) { s.StrayClaim = s.Claim }), DeleteStrayClaim, failed, "", ""},
		{"end: a claim that was made late, and is kept", in(failed).with(func(s *scene) {
			s.StrayClaim = s.Claim
			deleting(s.StrayClaim)
			s.StrayClaim.Finalizers = []string{v1alpha1.CheckpointFinalizer}
		}), DeleteStrayClaim, failed, "", ""},
		{"end: the record needs no protection", in(succeeded), RemoveFinalizer, succeeded, "", ""},
		{"end: nothing to do", in(succeeded).with(unprotected), NoAction, succeeded, "", ""},
		{"end: deleted", in(failed).with(remove), RemoveFinalizer, failed, "", ""},
		{"end: time to live", in(succeeded).with(unprotected).with(func(s *scene) {
			s.Migration.Spec.TTLSecondsAfterFinished, s.Migration.Status.Times.Finished = ptr.To[int32](10), ago(10*time.Second)
		}), DeleteMigration, succeeded, "", ""},
		{"end: not yet", in(succeeded).with(unprotected).with(func(s *scene) {
			s.Migration.Spec.TTLSecondsAfterFinished, s.Migration.Status.Times.Finished = ptr.To[int32](10), ago(9*time.Second)
		}), NoAction, succeeded, "", ""},
	})
}

// readyFor is a replacement that became ready a while ago.
func readyFor(since time.Duration) *corev1.Pod {
	pod := readyReplacement().Obj()
	for i := range pod.Status.Conditions {
		pod.Status.Conditions[i].LastTransitionTime = metav1.NewTime(t0.Add(-since))
	}
	return pod
}

// A migration without a way back waits beyond its deadline, for days if it
// must: it may not ask the API server every second meanwhile.
func TestNoHurryBeyondTheDeadline(t *testing.T) {
	s := in(v1alpha1.PhasePlacing).set(v1alpha1.ConditionHandedOver, metav1.ConditionFalse, ReasonDisrupted)
	s.Pod, s.Replacement = nil, unscheduled(time.Hour).Obj()
	s.Migration.Status.Times.Started = ago(24 * time.Hour)
	if d := next(t, s.State); d.Wait < PollInterval {
		t.Errorf("it looks again after %v, want at least %v", d.Wait, PollInterval)
	}
}
