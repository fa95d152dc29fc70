package decide

import (
	"errors"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/ptr"

	"github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods/owners"
)

// stopFirst makes a scene one in which the original stops before its replacement
// starts, and its place is held.
func stopFirst(s *scene, method v1alpha1.ReplacementMethod) *scene {
	s.AgentImage = agentImage
	status := &s.Migration.Status
	status.Handover = &v1alpha1.Handover{Method: method, Order: v1alpha1.OrderStopFirst}
	status.Placeholder = &v1alpha1.PodReference{Name: "placeholder", UID: "uid-placeholder", NodeName: "b"}
	s.Placeholder = fixture.MakePod("placeholder").Label(v1alpha1.MigrationUIDLabel, "m").Node("b").Phase(corev1.PodRunning).Obj()
	if s.Replacement != nil {
		s.Replacement = gatedReplacement().Obj()
	}
	meta.RemoveStatusCondition(&status.Conditions, v1alpha1.ConditionReplacementReady)
	status.Times.ReplacementReady, status.Replacement.NodeName = nil, ""
	if c := status.Checkpoint; c.Destination != nil {
		c.Destination.PodUID = "uid-placeholder"
	}
	return s
}

func gatedReplacement() *fixture.PodBuilder {
	return replacementPod().With(func(p *corev1.Pod) {
		p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: v1alpha1.WaitForOriginalGate}}
	})
}

var jobReference = metav1.OwnerReference{APIVersion: "batch/v1", Kind: "Job", Name: "job", UID: "job", Controller: ptr.To(true)}

// ofJob gives the original to a Job.
func ofJob(s *scene) *scene {
	s.Pod.OwnerReferences, s.Pod.Finalizers = []metav1.OwnerReference{jobReference}, []string{batchv1.JobTrackingFinalizer}
	s.Pod.Labels = map[string]string{batchv1.JobNameLabel: "job"}
	s.Owner = owners.Owner{Reference: &jobReference, Job: &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Name: "job", UID: "job"}, Status: batchv1.JobStatus{Active: 1},
		Spec: batchv1.JobSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{batchv1.ControllerUidLabel: "job"}}},
	}}
	if h := s.Migration.Status.Handover; h != nil {
		h.Method, h.Owner = v1alpha1.MethodRelease, &jobReference
	}
	return s
}

func jobFailed(s *scene) {
	s.Owner.Job.Status.Conditions = []batchv1.JobCondition{{Type: batchv1.JobFailed, Status: corev1.ConditionTrue}}
}

func releasedByJob(s *scene) *scene {
	released, err := owners.Released(s.Pod, s.Owner)
	if err != nil {
		panic(err)
	}
	s.Pod = released
	return s
}

// indexed makes the original a pod of an index of its Job.
func indexed(s *scene, index string) *scene {
	s.Migration.Status.Handover.Identity = index
	ofIndex(s.Pod, index)
	return s
}

func ofIndex(pod *corev1.Pod, index string) *corev1.Pod {
	metav1.SetMetaDataAnnotation(&pod.ObjectMeta, batchv1.JobCompletionIndexAnnotation, index)
	return pod
}

var setReference = metav1.OwnerReference{APIVersion: "apps/v1", Kind: "StatefulSet", Name: "set", UID: "set", Controller: ptr.To(true)}

// ofStatefulSet gives the original to a StatefulSet.
func ofStatefulSet(s *scene) *scene {
	s.Pod.OwnerReferences = []metav1.OwnerReference{setReference}
	s.Owner = owners.Owner{Reference: &setReference, StatefulSet: &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Name: "set", UID: "set"}, Spec: appsv1.StatefulSetSpec{Replicas: ptr.To[int32](1)},
	}}
	status := &s.Migration.Status
	status.Handover.Owner, status.Handover.Identity = &setReference, "train"
	status.Replacement = &v1alpha1.PodReference{Name: "train"}
	s.Replacement = s.Pod
	return s
}

func siblingOf(s *scene, name string, age time.Duration) *corev1.Pod {
	pod := fixture.MakePod(name).Phase(corev1.PodPending).Container("serve", nil).Obj()
	pod.UID = "uid-sibling"
	pod.OwnerReferences, pod.CreationTimestamp = []metav1.OwnerReference{*s.Migration.Status.Handover.Owner}, metav1.NewTime(t0.Add(-age))
	return pod
}

func replacementPending(reason string) func(*scene) {
	return func(s *scene) {
		s.set(v1alpha1.ConditionReplacementPending, metav1.ConditionTrue, reason)
		if reason != ReasonAnnounced {
			probed(0)(s)
		}
	}
}

// probed is a scene in which the webhook has answered at this age, by the clock of the API
// server.
func probed(age time.Duration) func(*scene) {
	return func(s *scene) { s.Migration.Status.Handover.ProbedAt = ptr.To(metav1.NewTime(t0.Add(-age))) }
}

func withoutReplacement(s *scene) { s.Replacement, s.Migration.Status.Replacement.UID = nil, "" }

func TestStopFirst(t *testing.T) {
	const placing, handing = v1alpha1.PhasePlacing, v1alpha1.PhaseHandingOver
	create := func(phase v1alpha1.Phase) *scene { return stopFirst(in(phase), v1alpha1.MethodCreate) }
	stateful := func() *scene { return stopFirst(carrying(handing), v1alpha1.MethodCreate) }
	sealed := func() *scene {
		return stateful().step(v1alpha1.StepSeal).source(v1alpha1.SourceSealed, 3).destination(v1alpha1.DestinationStored, 3).set(v1alpha1.ConditionSealed, metav1.ConditionTrue, ReasonSealed)
	}
	noClaim := func(s *scene) { s.Claim, s.Migration.Status.CheckpointClaim = nil, "" }
	gone := func(s *scene) {
		s.Pod = nil
		s.set(v1alpha1.ConditionHandedOver, metav1.ConditionTrue, ReasonHandedOver)
		s.Migration.Status.Times.Stopped, s.Migration.Status.Times.OriginalGone = ago(3*time.Second), ago(2*time.Second)
		s.Migration.Status.After = record(nil, nil)
		if s.Claim != nil {
			s.Claim.OwnerReferences = []metav1.OwnerReference{{UID: "uid-train-r"}}
		}
	}
	started := func(s *scene) {
		s.Replacement, s.Placeholder, s.Migration.Status.Replacement.NodeName = readyReplacement().Obj(), nil, "b"
	}
	// unmounted is a scene whose replacement was bound while its claim was being deleted.
	unmounted := func(finalizers ...string) *scene {
		return sealed().with(gone).set(v1alpha1.ConditionPlaced, metav1.ConditionTrue, ReasonPlaced).with(func(s *scene) {
			s.Placeholder, s.Claim.Finalizers, s.Claim.OwnerReferences = nil, finalizers, nil
			s.Replacement, s.Migration.Status.Replacement.NodeName, s.Now = replacementPod().Node("b").Obj(), "b", t0.Add(2*time.Minute)
			deleting(s.Claim)
		})
	}
	check(t, []row{
		{"place: hold it", create(placing).with(withoutReplacement).with(func(s *scene) { s.Placeholder, s.Migration.Status.Placeholder.UID = nil, "" }), CreatePlaceholder, placing, "", ""},
		{"place: hold it without a node agent", create(placing).with(withoutReplacement).with(func(s *scene) {
			s.Placeholder, s.Migration.Status.Placeholder.UID, s.AgentImage = nil, "", ""
		}), CreatePlaceholder, placing, "", ""},
		{"place: its name is taken", create(placing).with(func(s *scene) { s.Placeholder.Labels, s.Migration.Status.Placeholder.UID = nil, "" }), NoAction, placing, ReasonNameTaken, ""},
		{"place: created before a crash", create(placing).with(withoutReplacement).with(func(s *scene) { s.Migration.Status.Placeholder.UID = "" }), NoAction, placing, "", "holds the place"},
		{"place: nowhere to go", create(placing).with(withoutReplacement).with(func(s *scene) {
			s.Placeholder = fixture.MakePod("placeholder").Label(v1alpha1.MigrationUIDLabel, "m").Phase(corev1.PodPending).Condition(corev1.PodCondition{
				Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable, Message: "0/2 nodes"}, t0.Add(-time.Minute)).Obj()
		}), NoAction, placing, ReasonUnschedulable, "0/2 nodes"},
		{"place: starting", create(placing).with(withoutReplacement).with(func(s *scene) { s.Placeholder.Status.Phase = corev1.PodPending }), NoAction, placing, "", "waiting for placeholder"},
		{"place: placeholder was removed", create(placing).with(func(s *scene) { s.Placeholder = nil }), NoAction, placing, ReasonPlaceholderDeleted, ""},
		{"place: create the replacement, which waits", create(placing).with(withoutReplacement), CreateReplacement, placing, "", ""},
		{"place: held and created", create(placing), NoAction, handing, "", "node b is held"},
		{"place: drained by another client", create(placing).with(func(s *scene) { s.Pod = disrupted(originalPod()).Obj(); deleting(s.Pod) }), NoAction, placing, ReasonOriginalDeleted, ""},

		{"stop: evicted by another client after the seal was void", sealed().source(v1alpha1.SourceThawed, 3).with(func(s *scene) { s.Pod = disrupted(originalPod()).Obj(); deleting(s.Pod) }), NoAction, handing, ReasonOriginalDeleted, ""},
		{"stop: commit", create(handing), Commit, handing, "", ""},
		{"stop: nothing is carried", create(handing).committed(), Evict, handing, "", ""},
		{"stop: cancelled before", create(handing).with(func(s *scene) { s.Migration.Spec.Cancel = true }), NoAction, handing, ReasonCancelled, ""},
		{"stop: the claim of an earlier move must stay", create(handing).with(func(s *scene) {
			s.PreviousClaim = fixture.MakeClaim("old", corev1.ReadWriteOnce)
			s.PreviousClaim.OwnerReferences = []metav1.OwnerReference{{UID: "uid-train"}}
		}), OrphanClaim, handing, "", ""},
		{"stop: the budgets are asked before the pod is frozen", stateful().protected(), CheckEviction, handing, "", ""},
		{"stop: sealing", stateful().step(v1alpha1.StepSeal), NoAction, handing, "", "frozen for the last copy"},
		{"stop: sealed, and not known to be stored", stateful().step(v1alpha1.StepSeal).source(v1alpha1.SourceSealed, 3), NoAction, handing, "", "frozen for the last copy"},
		{"stop: stored, and not on the claim", stateful().step(v1alpha1.StepSeal).source(v1alpha1.SourceSealed, 3).destination(v1alpha1.DestinationStored, 3).with(func(s *scene) {
			s.Migration.Status.Checkpoint.Destination.ClaimSealed = false
		}), NoAction, handing, "", "frozen for the last copy"},
		{"stop: another state is stored", stateful().step(v1alpha1.StepSeal).source(v1alpha1.SourceSealed, 3).destination(v1alpha1.DestinationStored, 2), NoAction, handing, "", "frozen for the last copy"},
		{"stop: stored for another pod", stateful().step(v1alpha1.StepSeal).source(v1alpha1.SourceSealed, 3).destination(v1alpha1.DestinationStored, 3).with(func(s *scene) {
			s.Migration.Status.Checkpoint.Destination.PodUID = "uid-of-an-earlier-placeholder"
		}), NoAction, handing, "", "frozen for the last copy"},
		{"stop: stored, and not sealed", stateful().step(v1alpha1.StepSeal).source(v1alpha1.SourceSealing, 3).destination(v1alpha1.DestinationStored, 3), NoAction, handing, "", "frozen for the last copy"},
		{"stop: sealed and stored", stateful().step(v1alpha1.StepSeal).source(v1alpha1.SourceSealed, 3).destination(v1alpha1.DestinationStored, 3), NoAction, handing, "", "verified"},
		{"stop: sealed and stored where there is no claim", stateful().with(noClaim).step(v1alpha1.StepSeal).source(v1alpha1.SourceSealed, 3).destination(v1alpha1.DestinationStored, 3), NoAction, handing, "", "verified"},
		{"stop: no room for what is stored", stateful().step(v1alpha1.StepSeal).destination(v1alpha1.DestinationFailed, 3), NoAction, handing, ReasonRestoreFailed, "could not be written on node b"},
		{"stop: the place is lost after the seal", sealed().with(func(s *scene) { s.Placeholder = nil }), NoAction, handing, ReasonPlaceholderDeleted, ""},
		{"stop: the place is lost after the commitment, and the original runs", sealed().committed().with(func(s *scene) { s.Placeholder = nil }), WithdrawEviction, handing, "", ""},
		{"stop: the place is lost after the commitment, and the original ends", sealed().committed().with(func(s *scene) { s.Placeholder = nil; deleting(s.Pod) }), NoAction, handing, "", "waiting for pod train to end"},
		{"stop: seal failed", stateful().step(v1alpha1.StepSeal).source(v1alpha1.SourceFailed, 3), NoAction, handing, ReasonCheckpointFailed, ""},
		{"stop: killed by another client before the seal", stateful().step(v1alpha1.StepSeal).with(func(s *scene) { s.Pod = nil }), NoAction, handing, ReasonOriginalDeleted, ""},
		{"stop: commit what is sealed", sealed(), Commit, handing, "", ""},
		{"stop: evict what is sealed", sealed().committed(), Evict, handing, "", ""},
		{"stop: what is sealed may not be evicted for long", sealed().with(func(s *scene) {
			s.Now, s.Migration.Status.Message = t0.Add(61*time.Second), "the original may not be evicted now"
		}), NoAction, handing, ReasonFrozenTooLong, "may not be evicted"},
		{"stop: timeout while sealed", sealed().with(func(s *scene) { s.Migration.Status.Times.Started = ago(time.Hour) }), NoAction, handing, ReasonTimedOut, ""},

		{"stop: evicted by another client when nothing is carried", create(handing).with(func(s *scene) { s.Pod = disrupted(originalPod()).Obj(); deleting(s.Pod) }), NoAction, handing, "", "its replacement continues"},
		{"stop: evicted by another client when it is sealed", sealed().with(func(s *scene) { s.Pod = disrupted(originalPod()).Obj(); deleting(s.Pod) }), NoAction, handing, "", "its replacement continues"},
		{"stop: deleted by a user when it is sealed", sealed().with(func(s *scene) { deleting(s.Pod) }), NoAction, handing, ReasonOriginalDeleted, ""},
		{"stopped: ending", create(handing).committed().with(func(s *scene) { deleting(s.Pod) }), NoAction, handing, "", "to end"},
		{"stopped: cancelled too late", create(handing).committed().with(func(s *scene) { deleting(s.Pod); s.Migration.Spec.Cancel = true }), NoAction, handing, "", "to end"},
		{"stopped: gone", create(handing).committed().with(func(s *scene) { s.Pod = nil }), NoAction, handing, "", "may start"},
		{"stopped: ended, and kept by a finalizer of another controller", create(handing).committed().with(func(s *scene) {
			s.Pod.Finalizers, s.Pod.Status.Phase = []string{"example.test/keep"}, corev1.PodFailed
			deleting(s.Pod)
			for i := range s.Pod.Status.ContainerStatuses {
				s.Pod.Status.ContainerStatuses[i].State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 137}}
			}
		}), NoAction, handing, "", "may start"},
		{"stopped: the place is kept for it", create(handing).with(gone), NominateReplacement, handing, "", ""},
		{"stopped: the placeholder leaves", create(handing).with(gone).with(func(s *scene) { s.Replacement.Status.NominatedNodeName = "b" }), DeletePlaceholder, handing, "", ""},
		{"stopped: the placeholder is ending", create(handing).with(gone).with(func(s *scene) {
			s.Replacement.Status.NominatedNodeName = "b"
			deleting(s.Placeholder)
		}), NoAction, handing, "", "waiting for placeholder placeholder to end"},
		{"stopped: remove the gate", create(handing).with(gone).with(func(s *scene) { s.Placeholder = nil }), RemoveSchedulingGate, handing, "", ""},
		{"stopped: the place is lost, and the claim has the state", sealed().with(gone).with(func(s *scene) { s.Placeholder = nil }), RemoveSchedulingGate, handing, "", ""},
		{"stopped: the node of the place is gone, and the claim has the state", sealed().with(gone).with(func(s *scene) { s.Placeholder, s.DestinationDown = nil, NodeGone }), RemoveSchedulingGate, handing, "", ""},
		{"stopped: the place is lost, and there is no claim", sealed().with(noClaim).with(gone).with(func(s *scene) { s.Placeholder = nil }), RemoveSchedulingGate, handing, "", ""},
		{"stopped: the node of the place is down, and there is no claim", sealed().with(noClaim).with(gone).with(func(s *scene) {
			s.Placeholder, s.DestinationDown, s.Replacement = nil, time.Hour, unscheduled(time.Hour).Obj()
		}), NoAction, handing, "", "0/2 nodes"},
		{"stopped: the node of the place is gone, and there is no claim", sealed().with(noClaim).with(gone).with(func(s *scene) {
			s.Placeholder, s.DestinationDown, s.Replacement = nil, NodeGone, nil
		}), NoAction, v1alpha1.PhaseFailed, "", "was on a disk of node b alone"},
		{"stopped: the replacement was deleted, and there is no claim", sealed().with(noClaim).with(gone).with(func(s *scene) { s.Placeholder, s.Replacement = nil, nil }), NoAction, v1alpha1.PhaseFailed, "", "waits on node b, in directory ai-storage/m/1/volumes"},
		{"stopped: what the agent of the lost place says no longer counts", sealed().with(gone).destination(v1alpha1.DestinationFailed, 3).with(func(s *scene) { s.Placeholder = nil }), RemoveSchedulingGate, handing, "", ""},
		{"stopped: restored on a third node", sealed().with(gone).with(started).with(func(s *scene) {
			s.Replacement.Spec.NodeName, s.Migration.Status.Replacement.NodeName = "c", "c"
			s.destination(v1alpha1.DestinationRestored, 3).Migration.Status.Checkpoint.Destination.ClaimSealed = false
		}), NoAction, handing, "", "continues with the carried state"},
		{"stopped: only what waits is known", sealed().with(gone).with(started), NoAction, handing, "", "restoring and verifying"},
		{"stopped: the claim of an earlier move goes with the replacement", create(handing).with(gone).with(started).set(v1alpha1.ConditionReplacementReady, metav1.ConditionTrue, ReasonReady).with(func(s *scene) {
			s.PreviousClaim, s.Migration.Status.Checkpoint.PreviousClaim = fixture.MakeClaim("old", corev1.ReadWriteOnce), "old"
			s.PreviousClaim.Labels = map[string]string{v1alpha1.MigrationUIDLabel: "earlier"}
		}), KeepPreviousClaim, handing, "", ""},
		{"stopped: placed", create(handing).with(gone).with(started).with(func(s *scene) { s.Migration.Status.Replacement.NodeName = "" }), NoAction, handing, "", ""},
		{"stopped: ready", create(handing).with(gone).with(started).with(func(s *scene) { s.Migration.Status.Replacement.NodeName = "b" }), NoAction, handing, "", "ready on node b"},
		{"stopped: restoring", sealed().with(gone).with(started).with(func(s *scene) { s.Migration.Status.Replacement.NodeName = "b" }), NoAction, handing, "", "restoring and verifying"},
		{"stopped: an older pass is restored", sealed().with(gone).with(started).destination(v1alpha1.DestinationRestored, 2).with(func(s *scene) { s.Migration.Status.Replacement.NodeName = "b" }), NoAction, handing, "", "restoring and verifying"},
		{"stopped: restored", sealed().with(gone).with(started).destination(v1alpha1.DestinationRestored, 3).with(func(s *scene) { s.Migration.Status.Replacement.NodeName = "b" }), NoAction, handing, "", "continues with the carried state"},
		{"stopped: corrupt", sealed().with(gone).with(started).destination(v1alpha1.DestinationFailed, 3).with(func(s *scene) { s.Migration.Status.Replacement.NodeName = "b" }), NoAction, v1alpha1.PhaseFailed, "", "kept on claim checkpoint"},
		{"stopped: the claim was deleted by another client", sealed().with(gone).with(func(s *scene) {
			s.Placeholder, s.Claim.Finalizers = nil, []string{v1alpha1.CheckpointFinalizer}
			deleting(s.Claim)
		}), DiscardReplacement, handing, "", ""},
		{"stopped: the claim was deleted by another client, and no replacement is left", sealed().with(gone).with(func(s *scene) {
			s.Placeholder, s.Replacement, s.Claim.Finalizers, s.Claim.OwnerReferences = nil, nil, []string{v1alpha1.CheckpointFinalizer}, nil
			deleting(s.Claim)
		}), NoAction, v1alpha1.PhaseFailed, "", "keeps it until you have copied its content"},
		{"stopped: bound, and the claim was deleted before it was mounted", unmounted(v1alpha1.CheckpointFinalizer), DiscardReplacement, handing, "", ""},
		{"stopped: bound, and the claim that was deleted may be mounted", unmounted(v1alpha1.CheckpointFinalizer, protection), NoAction, handing, "", "restoring"},
		{"stopped: bound, and the claim was deleted when it was mounted", unmounted(v1alpha1.CheckpointFinalizer).with(func(s *scene) {
			s.Replacement.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: v1alpha1.GateContainer, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}
		}), NoAction, handing, "", "restoring"},
		{"stopped: bound a moment ago, and the claim was deleted", unmounted(v1alpha1.CheckpointFinalizer).with(func(s *scene) { s.Now = t0.Add(time.Second) }), NoAction, handing, "", "restoring"},
		{"stopped: the replacement was removed", create(handing).with(gone).with(withoutReplacement).with(func(s *scene) { s.Placeholder = nil }), DeleteClaim, handing, "", ""},
		{"done", create(handing).with(gone).with(started).set(v1alpha1.ConditionReplacementReady, metav1.ConditionTrue, ReasonReady).with(func(s *scene) { s.Migration.Status.Replacement.NodeName = "b" }), NoAction, v1alpha1.PhaseSucceeded, "", "moved from node a to node b"},

		{"roll back: the placeholder goes", rollingBack(ReasonTimedOut).with(func(s *scene) { stopFirst(s, v1alpha1.MethodCreate); s.Replacement = nil }).behindBarrier(), DeletePlaceholder, placing, "", ""},
		{"roll back: the hold finalizer is removed from a pod that is being deleted", barrierSet(ReasonOriginalDeleted).with(func(s *scene) {
			s.Pod.Finalizers = []string{v1alpha1.HoldFinalizer}
			deleting(s.Pod)
		}), SetRollbackBarrier, placing, "", ""},
		{"roll back: the hold finalizer is removed", barrierSet(ReasonTimedOut).with(func(s *scene) { s.Pod.Finalizers = []string{v1alpha1.HoldFinalizer} }), SetRollbackBarrier, placing, "", ""},
	})
}

func TestJobReleasesTheOriginal(t *testing.T) {
	const placing, handing = v1alpha1.PhasePlacing, v1alpha1.PhaseHandingOver
	job := func() *scene { return ofJob(in(placing)) }
	waiting := func() *scene {
		return releasedByJob(job().with(withoutReplacement).with(replacementPending(ReasonWebhookAnswers)))
	}
	// returned is a scene whose original has its labels again, and whose Job may have taken it.
	returned := func(taken bool) *scene {
		return releasedByJob(ofJob(rollingBack(ReasonTimedOut))).behindBarrier().with(func(s *scene) {
			pod, err := owners.Returned(s.Pod)
			if err != nil {
				t.Fatal(err)
			}
			if s.Pod = pod; taken {
				s.Pod.OwnerReferences, s.Pod.Finalizers = []metav1.OwnerReference{jobReference}, []string{batchv1.JobTrackingFinalizer}
			}
		})
	}
	// runs makes a pod of the Job one that it could prefer to the original.
	runs := func(age time.Duration) func(*scene) {
		return func(s *scene) {
			pod := siblingOf(s, "plain", age)
			pod.Spec.NodeName = "b"
			s.Siblings = []corev1.Pod{*pod}
		}
	}
	check(t, []row{
		{"announce", job().with(withoutReplacement), NoAction, placing, "", "asking whether"},
		{"ask the webhook", job().with(withoutReplacement).with(replacementPending(ReasonAnnounced)), ProbeWebhook, placing, "", ""},
		{"release", job().with(withoutReplacement).with(replacementPending(ReasonWebhookAnswers)), ReleaseOriginal, placing, "", ""},
		{"another pod of the Job is missing", job().with(withoutReplacement).with(func(s *scene) { s.Owner.Job.Status.Active = 0 }), NoAction, placing, "", "active"},
		{"wait for the Job", releasedByJob(job().with(withoutReplacement).with(replacementPending(ReasonWebhookAnswers))), NoAction, placing, "", "waiting for Job job"},
		{"the webhook missed it", releasedByJob(job().with(withoutReplacement).with(replacementPending(ReasonWebhookAnswers))).with(func(s *scene) {
			s.Siblings = []corev1.Pod{*siblingOf(s, "plain", 0)}
		}), NoAction, placing, ReasonWebhookMissed, "plain"},
		{"an older pod of the Job is not meant", releasedByJob(job().with(withoutReplacement).with(replacementPending(ReasonWebhookAnswers))).with(func(s *scene) {
			s.Siblings, s.Owner.Job.Spec.Parallelism = []corev1.Pod{*siblingOf(s, "other", time.Minute)}, ptr.To[int32](2)
		}), NoAction, placing, "", "waiting for Job job"},
		{"the webhook missed it, of an indexed Job", releasedByJob(indexed(job().with(withoutReplacement).with(replacementPending(ReasonWebhookAnswers)), "3")).with(func(s *scene) {
			s.Siblings = []corev1.Pod{*ofIndex(siblingOf(s, "plain", 0), "3")}
		}), NoAction, placing, ReasonWebhookMissed, "plain"},
		{"a pod of another index is not meant", releasedByJob(indexed(job().with(withoutReplacement).with(replacementPending(ReasonWebhookAnswers)), "3")).with(func(s *scene) {
			s.Siblings, s.Owner.Job.Spec.Parallelism = []corev1.Pod{*ofIndex(siblingOf(s, "plain", 0), "4")}, ptr.To[int32](2)
		}), NoAction, placing, "", "waiting for Job job"},
		{"the webhook missed it, and our clock is ahead", waiting().with(probed(5 * time.Minute)).with(func(s *scene) {
			s.Siblings = []corev1.Pod{*siblingOf(s, "plain", 5*time.Minute)}
		}), NoAction, placing, ReasonWebhookMissed, "plain"},
		{"an older pod of the Job is not meant, and our clock is behind", waiting().with(probed(-5 * time.Minute)).with(func(s *scene) {
			s.Siblings, s.Owner.Job.Spec.Parallelism = []corev1.Pod{*siblingOf(s, "other", -4*time.Minute)}, ptr.To[int32](2)
		}), NoAction, placing, "", "waiting for Job job"},
		{"the replacement of another migration is not meant", waiting().with(func(s *scene) {
			other := siblingOf(s, "other", 0)
			other.Labels = map[string]string{v1alpha1.MigrationUIDLabel: "another"}
			s.Siblings, s.Owner.Job.Spec.Parallelism = []corev1.Pod{*other}, ptr.To[int32](2)
		}), NoAction, placing, "", "waiting for Job job"},
		{"the webhook missed it, of an indexed Job, whatever a clock says", releasedByJob(indexed(job().with(withoutReplacement).with(replacementPending(ReasonWebhookAnswers)), "3")).with(func(s *scene) {
			s.Siblings = []corev1.Pod{*ofIndex(siblingOf(s, "plain", time.Hour), "3")}
		}), NoAction, placing, ReasonWebhookMissed, "plain"},
		{"ask the webhook again: another pod of the Job was created since", job().with(withoutReplacement).with(replacementPending(ReasonWebhookAnswers)).with(func(s *scene) {
			s.Siblings, s.Owner.Job.Spec.Parallelism, s.Owner.Job.Status.Active = []corev1.Pod{*siblingOf(s, "other", 0)}, ptr.To[int32](2), 2
		}), ProbeWebhook, placing, "", ""},
		{"the Job is suspended", releasedByJob(job().with(withoutReplacement).with(replacementPending(ReasonWebhookAnswers))).with(func(s *scene) { s.Owner.Job.Spec.Suspend = ptr.To(true) }), NoAction, placing, owners.RefusalOwnerStopped, "is suspended"},
		{"the Job has failed", releasedByJob(job().with(withoutReplacement).with(replacementPending(ReasonWebhookAnswers))).with(jobFailed), NoAction, placing, owners.RefusalOwnerFinished, "job"},
		{"roll back: a Job that has failed never looks at the original again", releasedByJob(ofJob(rollingBack(ReasonTimedOut))).behindBarrier().with(jobFailed).with(func(s *scene) { s.Replacement.OwnerReferences = []metav1.OwnerReference{jobReference} }), EndOriginal, placing, "", ""},
		{"roll back: a Job that has left its pods behind", releasedByJob(ofJob(rollingBack(ReasonTimedOut))).behindBarrier().with(func(s *scene) { s.Owner.Job = nil }), OrphanOriginal, placing, "", ""},
		{"roll back: a suspended Job deletes the original itself", releasedByJob(ofJob(rollingBack(ReasonTimedOut))).behindBarrier().with(func(s *scene) { s.Owner.Job.Spec.Suspend = ptr.To(true) }), ReturnOriginal, placing, "", ""},
		{"recorded", releasedByJob(job().with(replacementPending(ReasonWebhookAnswers))).with(func(s *scene) { s.Migration.Status.Replacement.UID = "" }), NoAction, placing, "", "waiting for scheduler"},
		{"evict what was released", releasedByJob(ofJob(in(handing))).committed(), Evict, handing, "", ""},
		{"the replacement does not fit any more", releasedByJob(job()).with(func(s *scene) {
			s.Pod.Status.ContainerStatuses[1].State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 0}}
		}), NoAction, placing, ReasonContainersChanged, ""},

		{"roll back: the replacement is no rival before it is placed", releasedByJob(ofJob(rollingBack(ReasonTimedOut))).behindBarrier(), ReturnOriginal, placing, "", ""},
		{"roll back: its Job adopts it again", returned(true), ReadoptOriginal, placing, "", ""},
		{"roll back: its Job has not looked at it", returned(false), NoAction, placing, "", "waiting for Job job to adopt pod train again"},
		{"roll back: its Job does not adopt it again", returned(false).with(func(s *scene) { s.Now = t0.Add(time.Minute) }), ReadoptOriginal, placing, "", ""},
		{"roll back: its Job is deleted meanwhile, and leaves its pods behind", returned(false).with(func(s *scene) { s.Owner.Job = nil }), OrphanOriginal, placing, "", ""},
		{"roll back: its Job has failed meanwhile", returned(false).with(jobFailed).with(func(s *scene) { s.Replacement.OwnerReferences = []metav1.OwnerReference{jobReference} }), EndOriginal, placing, "", ""},
		{"roll back: one that may run goes first, uncounted", releasedByJob(ofJob(rollingBack(ReasonTimedOut))).behindBarrier().with(func(s *scene) {
			rival := siblingOf(s, "train-r", 0)
			rival.Labels, rival.Spec.NodeName, rival.Finalizers = map[string]string{v1alpha1.MigrationUIDLabel: "m"}, "b", []string{batchv1.JobTrackingFinalizer}
			s.Siblings = []corev1.Pod{*rival}
		}), DiscardRival, placing, "", ""},
		{"roll back: announced, and an older leader may still release it", ofJob(rollingBack(ReasonCancelled)).with(withoutReplacement).
			set(v1alpha1.ConditionReplacementPending, metav1.ConditionFalse, ReasonCancelled), SetRollbackBarrier, placing, "", ""},
		{"roll back: a pod that the webhook missed goes first", releasedByJob(ofJob(rollingBack(ReasonWebhookMissed))).behindBarrier().with(probed(time.Hour)).with(runs(time.Hour)), DiscardRival, placing, "", ""},
		{"roll back: an older pod of the Job stays, whatever our clock says", releasedByJob(ofJob(rollingBack(ReasonWebhookMissed))).behindBarrier().with(probed(-time.Hour)).with(runs(-time.Minute)), ReturnOriginal, placing, "", ""},
		{"roll back: the replacement is not counted as failed", ofJob(rollingBack(ReasonTimedOut)).behindBarrier().with(func(s *scene) {
			s.Replacement.Finalizers = []string{batchv1.JobTrackingFinalizer}
		}), DiscardReplacement, placing, "", ""},
		{"roll back: and goes", ofJob(rollingBack(ReasonTimedOut)).behindBarrier(), DiscardReplacement, placing, "", ""},
	})
}

func TestStatefulSetRecreatesThePod(t *testing.T) {
	const placing, handing = v1alpha1.PhasePlacing, v1alpha1.PhaseHandingOver
	set := func(phase v1alpha1.Phase) *scene { return ofStatefulSet(stopFirst(in(phase), v1alpha1.MethodRecreate)) }
	gone := func(s *scene) {
		s.set(v1alpha1.ConditionHandedOver, metav1.ConditionTrue, ReasonHandedOver)
		s.Pod, s.Replacement = nil, nil
	}
	ended := func(s *scene) {
		s.Pod = withHoldFinalizer(s.Pod)
		deleting(s.Pod)
		s.Pod.Status.Phase = corev1.PodFailed
	}
	check(t, []row{
		{"the place is held", set(placing), NoAction, handing, "", "is held"},
		{"announce", set(handing), NoAction, handing, "", "asking whether"},
		{"ask the webhook", set(handing).with(replacementPending(ReasonAnnounced)), ProbeWebhook, handing, "", ""},
		{"hold the original", set(handing).with(replacementPending(ReasonWebhookAnswers)), HoldOriginal, handing, "", ""},
		{"commit", set(handing).with(replacementPending(ReasonWebhookAnswers)).with(func(s *scene) { s.Pod = withHoldFinalizer(s.Pod) }), Commit, handing, "", ""},
		{"evict", set(handing).committed().with(replacementPending(ReasonWebhookAnswers)).with(func(s *scene) { s.Pod = withHoldFinalizer(s.Pod) }), Evict, handing, "", ""},
		{"deleted by another client before it was announced", set(handing).with(func(s *scene) { deleting(s.Pod) }), NoAction, handing, ReasonOriginalDeleted, ""},
		{"ending", set(handing).committed().with(replacementPending(ReasonWebhookAnswers)).with(func(s *scene) { s.Pod = withHoldFinalizer(s.Pod); deleting(s.Pod) }), NoAction, handing, "", "to end"},
		{"ended: the webhook is asked again", set(handing).committed().with(replacementPending(ReasonWebhookAnswers)).with(ended), RemoveHold, handing, "", ""},
		{"ended: no pod would be admitted anyway", set(handing).committed().with(replacementPending(ReasonPodsRefused)).with(ended), RemoveHold, handing, "", ""},
		{"gone", set(handing).with(replacementPending(ReasonWebhookAnswers)).with(gone), NoAction, handing, "", "waiting for StatefulSet set"},
		{"scaled to none", set(handing).with(replacementPending(ReasonWebhookAnswers)).with(gone).with(func(s *scene) {
			s.Owner.StatefulSet.Spec.Replicas, s.Migration.Status.Handover.Identity = ptr.To[int32](0), "set-0"
			s.Placeholder, s.Claim = nil, nil
		}), NoAction, v1alpha1.PhaseFailed, "", "set"},
		{"created without the webhook", set(handing).with(replacementPending(ReasonWebhookAnswers)).with(gone).with(func(s *scene) {
			s.Siblings = []corev1.Pod{*siblingOf(s, "train", 0)}
		}), AwaitRecreated, handing, "", ""},
		{"created without the webhook, whatever a clock says", set(handing).with(replacementPending(ReasonWebhookAnswers)).with(gone).with(func(s *scene) {
			s.Siblings = []corev1.Pod{*siblingOf(s, "train", time.Hour)}
		}), AwaitRecreated, handing, "", ""},
		{"created without the webhook, for another pod of the set", set(handing).with(replacementPending(ReasonWebhookAnswers)).with(gone).with(func(s *scene) {
			s.Siblings = []corev1.Pod{*siblingOf(s, "train-1", 0)}
		}), NoAction, handing, "", "waiting for StatefulSet set"},
		{"created without the webhook, and started", set(handing).with(replacementPending(ReasonWebhookAnswers)).with(gone).with(func(s *scene) {
			plain := siblingOf(s, "train", 0)
			plain.Status.ContainerStatuses = []corev1.ContainerStatus{{State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}
			s.Siblings, s.Claim, s.Placeholder = []corev1.Pod{*plain}, nil, nil
		}), NoAction, v1alpha1.PhaseFailed, "", "and has started"},
		{"created without the webhook, and an init container has run", set(handing).with(replacementPending(ReasonWebhookAnswers)).with(gone).with(func(s *scene) {
			plain := siblingOf(s, "train", 0)
			plain.Status.InitContainerStatuses = []corev1.ContainerStatus{{State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}}}
			s.Siblings, s.Claim, s.Placeholder = []corev1.Pod{*plain}, nil, nil
		}), NoAction, v1alpha1.PhaseFailed, "", "and has started"},
		{"recorded", set(handing).with(replacementPending(ReasonWebhookAnswers)).with(gone).with(func(s *scene) { s.Replacement = gatedReplacement().Obj() }), NoAction, handing, "", "waiting for scheduler"},
	})
}

func TestProbe(t *testing.T) {
	s := ofStatefulSet(stopFirst(in(v1alpha1.PhaseHandingOver), v1alpha1.MethodRecreate)).with(replacementPending(ReasonAnnounced))
	_, _, probe := objects(next(t, s.State).Action)
	if probe.Name != "train-probe" || probe.Annotations[v1alpha1.ProbeAnnotation] != "m" || metav1.GetControllerOf(probe).UID != "set" {
		t.Errorf("the probe is %+v", probe.ObjectMeta)
	}
	if len(probe.Spec.Containers) != 1 || probe.Spec.Containers[0].Name != "serve" {
		t.Errorf("the probe has %d containers, want the one that moves", len(probe.Spec.Containers))
	}
	at := metav1.NewTime(t0.Add(7 * time.Minute))
	if d, err := settle(t, s.State, Result{Admitted: true, ProbedAt: at}); err != nil || !d.Status.Handover.ProbedAt.Equal(&at) {
		t.Errorf("asked at %v, error %v, want the moment of the API server's clock", d.Status.Handover.ProbedAt, err)
	}
	answers := map[string]struct {
		result Result
		reason string
	}{
		"yes":   {Result{Admitted: true}, ReasonWebhookAnswers},
		"no":    {Result{}, ReasonAnnounced},
		"error": {Result{Err: errors.New("no")}, ReasonAnnounced},
	}
	for name, answer := range answers {
		d, err := settle(t, s.State, answer.result)
		if got := meta.FindStatusCondition(d.Status.Conditions, v1alpha1.ConditionReplacementPending).Reason; err != nil || got != answer.reason {
			t.Errorf("%s: reason %s, error %v, want %s", name, got, err, answer.reason)
		}
	}
	// A policy or a quota that refuses the next pod is named: the webhook is not to blame.
	denied := apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "train-probe", errors.New("policy rules denied request: label team is missing"))
	d, err := settle(t, s.State, Result{Err: denied})
	if c := meta.FindStatusCondition(d.Status.Conditions, v1alpha1.ConditionRolledBack); err != nil || c == nil || c.Reason != ReasonReplacementRejected ||
		!strings.Contains(c.Message, "label team is missing") || strings.Contains(c.Message, "webhook") {
		t.Errorf("denied: %+v, error %v", c, err)
	}
	s.Now = t0.Add(webhookGrace + time.Second)
	d, err = settle(t, s.State, Result{})
	if c := meta.FindStatusCondition(d.Status.Conditions, v1alpha1.ConditionRolledBack); err != nil || c == nil || c.Reason != ReasonWebhookMissing {
		t.Errorf("no answer for %v: %+v, error %v", webhookGrace, c, err)
	}
	if meta.IsStatusConditionTrue(d.Status.Conditions, v1alpha1.ConditionReplacementPending) {
		t.Error("a migration that is given up still expects a pod")
	}
}

// Pods have whole seconds. One that was created in that of the probe could be taken for
// the next.
func TestProbeWaitsForANewSecond(t *testing.T) {
	s := ofJob(in(v1alpha1.PhasePlacing)).with(withoutReplacement).with(replacementPending(ReasonAnnounced))
	s.Siblings = []corev1.Pod{*siblingOf(s, "other", 0)}
	for second, want := range []string{ReasonAnnounced, ReasonWebhookAnswers} {
		d, err := settle(t, s.State, Result{Admitted: true, ProbedAt: metav1.NewTime(t0.Add(time.Duration(second) * time.Second))})
		got := meta.FindStatusCondition(d.Status.Conditions, v1alpha1.ConditionReplacementPending).Reason
		if err != nil || got != want || (got == ReasonAnnounced) != (d.Wait > 0) {
			t.Errorf("%d s later: %s, wait %s, error %v, want %s", second, got, d.Wait, err, want)
		}
	}
}

func TestOrder(t *testing.T) {
	claim := fixture.MakeClaim("data", corev1.ReadWriteOnce)
	claims := func(s *scene) {
		s.Pod = originalPod().Volume("data", fixture.Claim("data")).With(func(p *corev1.Pod) {
			p.Spec.Containers[1].VolumeMounts = []corev1.VolumeMount{{Name: "data", MountPath: "/data"}}
		}).Obj()
		s.Claims = func(string) (*corev1.PersistentVolumeClaim, *corev1.PersistentVolume) { return claim, nil }
	}
	forceRestart := func(s *scene) { s.Migration.Spec.ForceRestart = true }
	for name, test := range map[string]struct {
		scene *scene
		order v1alpha1.HandoverOrder
		says  string
	}{
		"nothing":             {in(v1alpha1.PhasePending), v1alpha1.OrderStartFirst, "nothing keeps"},
		"claim of its own":    {in(v1alpha1.PhasePending).with(claims), v1alpha1.OrderStopFirst, "claim data is [ReadWriteOnce]"},
		"state":               {carrying(v1alpha1.PhasePending), v1alpha1.OrderStartFirst, "nothing keeps"},
		"memory of processes": {carrying(v1alpha1.PhasePending).with(withProcesses), v1alpha1.OrderStartFirst, "nothing keeps"},
		"application saves":   {in(v1alpha1.PhasePending).with(func(s *scene) { s.Migration.Spec.Checkpoint.Mode = v1alpha1.CheckpointApplication }), v1alpha1.OrderStopFirst, "application saves"},
		"StatefulSet":         {in(v1alpha1.PhasePending).with(func(s *scene) { s.Owner.Reference = &setReference }), v1alpha1.OrderStopFirst, "identity"},
		"restart asked for":   {in(v1alpha1.PhasePending).with(forceRestart), v1alpha1.OrderStopFirst, "spec.forceRestart"},
		"with state":          {carrying(v1alpha1.PhasePending).with(forceRestart), v1alpha1.OrderStopFirst, "spec.forceRestart"},
	} {
		d, err := settleDecision(t, test.scene.State, Decision{Step: AskBudget, Action: TakePlace{test.scene.Pod}}, Result{Admitted: true})
		if h := d.Status.Handover; err != nil || h == nil || h.Order != test.order || !strings.Contains(h.Reason, test.says) {
			t.Errorf("%s: %+v, error %v, want %s for %q", name, h, err, test.order, test.says)
		} else if (d.Status.Placeholder != nil) != (h.Order == v1alpha1.OrderStopFirst) {
			t.Errorf("%s: placeholder %v", name, d.Status.Placeholder)
		}
	}
}

func TestApplicationNeedsAClaim(t *testing.T) {
	s := in(v1alpha1.PhasePending)
	s.Migration.Spec.Checkpoint.Mode = v1alpha1.CheckpointApplication
	if why := applicationHasClaim(&s.State); why == nil || !strings.Contains(why.Message, v1alpha1.CheckpointMountPath) {
		t.Errorf("without a claim: %+v", why)
	}
	s.Pod = originalPod().Annotation(v1alpha1.CheckpointClaimAnnotation, "saved").Volume(v1alpha1.CheckpointVolumeName, fixture.Claim("saved")).Obj()
	saved := fixture.MakeClaim("saved", corev1.ReadWriteOncePod)
	s.Claims = func(string) (*corev1.PersistentVolumeClaim, *corev1.PersistentVolume) { return saved, nil }
	if why := applicationHasClaim(&s.State); why != nil {
		t.Errorf("with a claim: %+v", why)
	}
}
