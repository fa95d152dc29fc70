package decide

import (
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods"
	"github.com/ai-storage/orchestrator/pkg/pods/containers"
	"github.com/ai-storage/orchestrator/pkg/pods/owners"
)

const agentImage = "agent:1"

// carrying is a scene of a pod whose emptyDir is carried.
func carrying(phase v1alpha1.Phase) *scene {
	return in(phase).with(func(s *scene) {
		s.AgentImage = agentImage
		s.Pod = originalPod().Volume("work", fixture.EmptyDir()).With(func(p *corev1.Pod) {
			p.Spec.Containers[1].VolumeMounts = []corev1.VolumeMount{{Name: "work", MountPath: "/work"}}
		}).Obj()
		s.HasStorageClass = true
		if phase == v1alpha1.PhasePending {
			return
		}
		c := s.Migration.Status.Checkpoint
		c.Volumes = []string{"work"}
		if phase == v1alpha1.PhasePreparing {
			s.Migration.Status.Before = record(pods.Requests(s.Pod), nil)
			return
		}
		c.Step, s.Migration.Status.Replacement.NodeName = v1alpha1.StepCopy, "b"
		s.source(v1alpha1.SourceCopied, 1)
		if phase == v1alpha1.PhasePlacing {
			s.Replacement = gateRunning(time.Second).Obj()
			s.set(v1alpha1.ConditionCopied, metav1.ConditionFalse, ReasonCopying)
			return
		}
		s.set(v1alpha1.ConditionCopied, metav1.ConditionTrue, ReasonCopied)
		s.destination(v1alpha1.DestinationWarm, 1)
		s.Replacement = replacementPod().Node("b").Obj()
		s.set(v1alpha1.ConditionReplacementReady, metav1.ConditionFalse, ReasonCreated)
		s.Migration.Status.Times.ReplacementReady = nil
	})
}

// protected is a scene whose claim cannot be deleted under it.
func (s *scene) protected() *scene {
	s.Claim.Finalizers = []string{v1alpha1.CheckpointFinalizer}
	return s
}

// source and destination are reports of the node agents.
func (s *scene) source(phase v1alpha1.SourcePhase, pass int32) *scene {
	s.Migration.Status.Checkpoint.Source = &v1alpha1.SourceReport{Node: "a", Attempt: 1, Phase: phase, Pass: pass, Bytes: 100 << 20, Files: 7}
	if phase == v1alpha1.SourceSealed {
		s.Migration.Status.Checkpoint.Source.ManifestDigest = digestOf(pass)
	}
	return s
}

// digestOf is the digest of what a pass has sealed.
func digestOf(pass int32) string { return fmt.Sprintf("sha256:%064x", pass) }

func (s *scene) destination(phase v1alpha1.DestinationPhase, pass int32) *scene {
	d := &v1alpha1.DestinationReport{Node: "b", Attempt: 1, Phase: phase, Pass: pass, PodUID: "uid-train-r"}
	if pod := s.Migration.DestinationPod(); pod != nil {
		d.PodUID = pod.UID
	}
	switch phase {
	case v1alpha1.DestinationStored, v1alpha1.DestinationRestored, v1alpha1.DestinationReleased:
		d.ManifestDigest, d.ClaimSealed = digestOf(pass), s.needsClaim()
	}
	s.Migration.Status.Checkpoint.Destination = d
	return s
}

func (s *scene) step(step v1alpha1.CheckpointStep) *scene {
	s.Migration.Status.Checkpoint.Step = step
	return s
}

func (s *scene) withClaim() *scene {
	s.Claim = fixture.MakeClaim("checkpoint", corev1.ReadWriteMany)
	s.Claim.Labels = map[string]string{v1alpha1.MigrationUIDLabel: "m"}
	return s
}

// sealing is a scene in which the last copy was asked for.
func sealing() *scene {
	return carrying(v1alpha1.PhaseHandingOver).step(v1alpha1.StepSeal).set(v1alpha1.ConditionSealed, metav1.ConditionFalse, ReasonSealing)
}

// released is a scene in which the replacement continues with the state.
func released() *scene {
	return sealing().step(v1alpha1.StepRelease).source(v1alpha1.SourceSealed, 3).destination(v1alpha1.DestinationReleased, 3).
		set(v1alpha1.ConditionSealed, metav1.ConditionTrue, ReasonSealed).set(v1alpha1.ConditionReleased, metav1.ConditionTrue, ReasonReleased).
		with(func(s *scene) {
			times := &s.Migration.Status.Times
			times.Stopped, times.Sealed, times.Released = ago(2*time.Second), ago(1500*time.Millisecond), ago(time.Second)
		})
}

func gateRunning(since time.Duration) *fixture.PodBuilder {
	return replacementPod().Node("b").With(func(p *corev1.Pod) {
		p.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: v1alpha1.GateContainer, State: corev1.ContainerState{
			Running: &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(t0.Add(-since))}}}}
	})
}

func TestCarryingState(t *testing.T) {
	const preparing, placing, handing = v1alpha1.PhasePreparing, v1alpha1.PhasePlacing, v1alpha1.PhaseHandingOver
	measuring := func() *scene {
		return carrying(preparing).step(v1alpha1.StepMeasure).set(v1alpha1.ConditionCopied, metav1.ConditionUnknown, ReasonMeasuring)
	}
	measured := func() *scene {
		return carrying(placing).step(v1alpha1.StepMeasure).source(v1alpha1.SourceMeasured, 0).set(v1alpha1.ConditionCopied, metav1.ConditionUnknown, ReasonMeasuring)
	}
	after := func(since time.Duration) func(*scene) { return func(s *scene) { s.Now = t0.Add(since) } }
	noSpace := func(s *scene) { s.Migration.Status.Checkpoint.Destination.Reason = v1alpha1.ReportNoSpace }
	noClaim := func(s *scene) { s.Claim, s.Migration.Status.CheckpointClaim = nil, "" }
	golden := newGolden(t)
	for _, test := range []struct {
		row
		step v1alpha1.CheckpointStep
	}{
		{row{"prepare: ask for the size", carrying(preparing), NoAction, preparing, "", "how much"}, v1alpha1.StepMeasure},
		{row{"prepare: the agent is asked", measuring(), NoAction, preparing, "", "waiting for the node agent of node a"}, v1alpha1.StepMeasure},
		{row{"prepare: no agent answers", measuring().with(func(s *scene) { s.Now = t0.Add(31 * time.Second) }), NoAction, preparing, ReasonNodeAgentMissing, "is it running there"}, v1alpha1.StepAbort},
		{row{"prepare: claim of the right size", measuring().source(v1alpha1.SourceMeasured, 0), CreateClaim, preparing, "", ""}, v1alpha1.StepMeasure},
		{row{"prepare: no claim", measuring().source(v1alpha1.SourceMeasured, 0).with(noClaim), NoAction, placing, "", "placing a replacement"}, v1alpha1.StepMeasure},
		{row{"prepare: done", measuring().source(v1alpha1.SourceMeasured, 0).withClaim(), NoAction, placing, "", "placing a replacement"}, v1alpha1.StepMeasure},

		{row{"place: create with a gate", measured().with(func(s *scene) { s.Replacement, s.Migration.Status.Replacement.UID = nil, "" }), CreateReplacement, placing, "", ""}, v1alpha1.StepMeasure},
		{row{"place: create with a gate, without a claim", measured().with(noClaim).with(func(s *scene) { s.Replacement, s.Migration.Status.Replacement.UID = nil, "" }), CreateReplacement, placing, "", ""}, v1alpha1.StepMeasure},
		{row{"place: the gate starts", measured().with(func(s *scene) { s.Replacement = replacementPod().Node("b").Obj() }), NoAction, placing, "", "waiting for replacement train-r on node b"}, v1alpha1.StepMeasure},
		{row{"place: ask for the copy", measured(), NoAction, placing, "", "copying 104857600 bytes to node b"}, v1alpha1.StepCopy},
		{row{"place: nobody listens yet", carrying(placing).source(v1alpha1.SourceMeasured, 0).with(after(29 * time.Second)), NoAction, placing, "", "waiting for the node agent of node b"}, v1alpha1.StepCopy},
		{row{"place: nobody listens", carrying(placing).source(v1alpha1.SourceMeasured, 0).with(after(31 * time.Second)), NoAction, placing, ReasonNodeAgentMissing, "node b"}, v1alpha1.StepAbort},
		{row{"place: nobody connects yet", carrying(placing).source(v1alpha1.SourceMeasured, 0).destination(v1alpha1.DestinationReceiving, 0).with(after(59 * time.Second)), NoAction, placing, "", "waiting for the node agent of node a"}, v1alpha1.StepCopy},
		{row{"place: nobody connects", carrying(placing).source(v1alpha1.SourceMeasured, 0).destination(v1alpha1.DestinationReceiving, 0).with(after(61 * time.Second)), NoAction, placing, ReasonNodeAgentMissing, "node a"}, v1alpha1.StepAbort},
		{row{"place: copying", carrying(placing).source(v1alpha1.SourceCopying, 2).destination(v1alpha1.DestinationWarm, 1).with(after(time.Minute)), NoAction, placing, "", "pass 2, 104857600 bytes in 7 files"}, v1alpha1.StepCopy},
		{row{"place: copied, and not on the destination", carrying(placing).destination(v1alpha1.DestinationReceiving, 0), NoAction, placing, "", "copying to node b"}, v1alpha1.StepCopy},
		{row{"place: no room on the claim", carrying(placing).destination(v1alpha1.DestinationFailed, 1).with(noSpace), NoAction, placing, ReasonClaimTooSmall, ""}, v1alpha1.StepAbort},
		{row{"place: no room on the node", carrying(placing).with(noClaim).destination(v1alpha1.DestinationFailed, 1).with(noSpace), NoAction, placing, ReasonRestoreFailed, ""}, v1alpha1.StepAbort},
		{row{"place: the destination is down", carrying(placing).destination(v1alpha1.DestinationWarm, 1).source(v1alpha1.SourceCopying, 2).with(func(s *scene) { s.DestinationDown = 31 * time.Second }), NoAction, placing, ReasonNodeNotReady, "node b"}, v1alpha1.StepAbort},
		{row{"place: another pod was warmed", carrying(placing).destination(v1alpha1.DestinationWarm, 1).with(func(s *scene) {
			s.Replacement = gateRunning(time.Second).Obj()
			s.Migration.Status.Checkpoint.Destination.PodUID = "other"
		}), NoAction, placing, "", "waiting for the node agent of node b"}, v1alpha1.StepCopy},
		{row{"place: warm", carrying(placing).destination(v1alpha1.DestinationWarm, 1).with(func(s *scene) { s.Replacement = gateRunning(time.Minute).Obj() }), NoAction, handing, "", "handing over"}, v1alpha1.StepCopy},
		{row{"place: a container finished", carrying(placing).with(func(s *scene) {
			s.Pod.Status.ContainerStatuses[1].State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 0}}
		}), NoAction, preparing, "", "rebuilt"}, ""},
		{row{"place: drained by another client", carrying(placing).with(func(s *scene) { s.Pod = disrupted(originalPod()).Obj(); deleting(s.Pod) }), NoAction, placing, ReasonOriginalDeleted, ""}, v1alpha1.StepAbort},

		{row{"hand over: the claim is protected before it becomes the only copy", carrying(handing).with(func(s *scene) {
			s.Claim.Finalizers, s.Claim.OwnerReferences = nil, []metav1.OwnerReference{ownerReference(s.Migration)}
		}), ProtectClaim, handing, "", ""}, v1alpha1.StepCopy},
		{row{"hand over: the budgets are asked before the pod is frozen", carrying(handing).protected(), CheckEviction, handing, "", ""}, v1alpha1.StepCopy},
		{row{"hand over: sealing", sealing(), NoAction, handing, "", "frozen for the last copy"}, v1alpha1.StepSeal},
		{row{"hand over: sealed, not restored", sealing().source(v1alpha1.SourceSealed, 3), NoAction, handing, "", "restoring and verifying"}, v1alpha1.StepSeal},
		{row{"hand over: sealed and restored, and not on the claim", sealing().source(v1alpha1.SourceSealed, 3).destination(v1alpha1.DestinationRestored, 3).with(func(s *scene) {
			s.Migration.Status.Checkpoint.Destination.ClaimSealed = false
		}), NoAction, handing, "", "restoring and verifying"}, v1alpha1.StepSeal},
		{row{"hand over: restored where there is no claim", sealing().with(noClaim).source(v1alpha1.SourceSealed, 3).destination(v1alpha1.DestinationRestored, 3), NoAction, handing, "", "continues with the carried state"}, v1alpha1.StepRelease},
		{row{"hand over: neither says what", sealing().source(v1alpha1.SourceSealed, 3).destination(v1alpha1.DestinationRestored, 3).with(func(s *scene) {
			s.Migration.Status.Checkpoint.Source.ManifestDigest, s.Migration.Status.Checkpoint.Destination.ManifestDigest = "", ""
		}), NoAction, handing, "", "restoring and verifying"}, v1alpha1.StepSeal},
		{row{"hand over: an older pass is restored", sealing().source(v1alpha1.SourceSealed, 3).destination(v1alpha1.DestinationRestored, 2), NoAction, handing, "", "restoring and verifying"}, v1alpha1.StepSeal},
		{row{"hand over: committed", sealing().source(v1alpha1.SourceSealed, 3).destination(v1alpha1.DestinationRestored, 3), NoAction, handing, "", "continues with the carried state"}, v1alpha1.StepRelease},
		{row{"hand over: seal failed", sealing().source(v1alpha1.SourceFailed, 3), NoAction, handing, ReasonCheckpointFailed, ""}, v1alpha1.StepAbort},
		{row{"hand over: thawed before the seal", sealing().source(v1alpha1.SourceThawed, 3), NoAction, handing, ReasonCheckpointFailed, "seal is void"}, v1alpha1.StepAbort},
		{row{"hand over: cancelled while sealing", sealing().with(func(s *scene) { s.Migration.Spec.Cancel = true }), NoAction, handing, ReasonCancelled, ""}, v1alpha1.StepAbort},
		{row{"hand over: timeout while sealing", sealing().with(func(s *scene) { s.Migration.Status.Times.Started = ago(time.Hour) }), NoAction, handing, ReasonTimedOut, ""}, v1alpha1.StepAbort},
		{row{"hand over: the seal takes too long", sealing().with(func(s *scene) { s.Now = t0.Add(61 * time.Second) }), NoAction, handing, ReasonFrozenTooLong, "frozen for the last copy"}, v1alpha1.StepAbort},
		{row{"hand over: the restore takes too long", sealing().source(v1alpha1.SourceSealed, 3).with(func(s *scene) { s.Now = t0.Add(61 * time.Second) }), NoAction, handing, ReasonFrozenTooLong, "restoring and verifying"}, v1alpha1.StepAbort},
		{row{"hand over: a liveness probe allows less", sealing().source(v1alpha1.SourceSealed, 3).with(func(s *scene) {
			s.Now = t0.Add(21 * time.Second)
			s.Pod.Spec.Containers[1].LivenessProbe = &corev1.Probe{PeriodSeconds: 10, FailureThreshold: 3, TimeoutSeconds: 1}
		}), NoAction, handing, ReasonFrozenTooLong, "20s"}, v1alpha1.StepAbort},
		{row{"hand over: the restore may take longer", sealing().source(v1alpha1.SourceSealed, 3).with(func(s *scene) {
			s.Now, s.Migration.Spec.Checkpoint.MaxFreezeSeconds = t0.Add(61*time.Second), 120
		}), NoAction, handing, "", "restoring and verifying"}, v1alpha1.StepSeal},
		{row{"hand over: the restore may not take that long", sealing().source(v1alpha1.SourceSealed, 3).with(func(s *scene) {
			s.Now, s.Migration.Spec.Checkpoint.MaxFreezeSeconds = t0.Add(121*time.Second), 120
		}), NoAction, handing, ReasonFrozenTooLong, "maxFreezeSeconds, 2m0s"}, v1alpha1.StepAbort},
		{row{"hand over: restored at the last moment", sealing().source(v1alpha1.SourceSealed, 3).destination(v1alpha1.DestinationRestored, 3).with(func(s *scene) { s.Now = t0.Add(61 * time.Second) }), NoAction, handing, "", ""}, v1alpha1.StepRelease},
		{row{"hand over: nothing is frozen in mode Live", sealing().with(func(s *scene) {
			s.Now, s.Migration.Spec.Checkpoint.Mode = t0.Add(61*time.Second), v1alpha1.CheckpointLive
			s.Migration.Status.Checkpoint.Mode = v1alpha1.CheckpointLive
		}), NoAction, handing, "", "the last copy is being written"}, v1alpha1.StepSeal},
		{row{"hand over: killed while sealing", sealing().with(func(s *scene) { s.Pod = nil }), NoAction, handing, ReasonOriginalDeleted, ""}, v1alpha1.StepAbort},

		{row{"released: starting", released(), NoAction, handing, "", "not evicting the original"}, v1alpha1.StepRelease},
		{row{"released: cancelled too late", released().with(func(s *scene) { s.Migration.Spec.Cancel = true }), NoAction, handing, "", "not evicting the original"}, v1alpha1.StepRelease},
		{row{"released: ready", released().with(func(s *scene) { s.Replacement = readyReplacement().Obj() }), NoAction, handing, "", "handing over"}, v1alpha1.StepRelease},
		{row{"released: evict", released().set(v1alpha1.ConditionReplacementReady, metav1.ConditionTrue, ReasonReady).
			with(func(s *scene) { s.Replacement = readyReplacement().Obj() }), Evict, handing, "", ""}, v1alpha1.StepRelease},
		{row{"released: the replacement fails", released().with(func(s *scene) { s.Replacement = readyReplacement().Phase(corev1.PodFailed).Obj() }), DiscardReplacement, handing, "", ""}, v1alpha1.StepRelease},
		{row{"released: the replacement may still run", released().with(func(s *scene) { deleting(s.Replacement) }), NoAction, handing, "", "is not touched before it is gone from node b"}, v1alpha1.StepRelease},
		{row{"released: the restored processes had died before they continued", released().destination(v1alpha1.DestinationFailed, 3), DiscardReplacement, handing, "", ""}, v1alpha1.StepRelease},
		{row{"released: the replacement is gone for certain", released().with(func(s *scene) { s.Replacement = nil }), NoAction, handing, ReasonReplacementDeleted, "the original continues from where it was frozen"}, v1alpha1.StepAbort},
	} {
		t.Run(test.name, func(t *testing.T) {
			if d := checkRow(t, golden, test.row); d.Status.Checkpoint.Step != test.step {
				t.Errorf("step %q, want %q", d.Status.Checkpoint.Step, test.step)
			}
		})
	}
}

func TestSealWaitsForTheBudget(t *testing.T) {
	s := carrying(v1alpha1.PhaseHandingOver).protected()
	allowed, err := settle(t, s.State, Result{})
	if err != nil || allowed.Status.Checkpoint.Step != v1alpha1.StepSeal {
		t.Errorf("allowed: step %q, error %v, want Seal", allowed.Status.Checkpoint.Step, err)
	}
	held, err := settle(t, s.State, Result{Err: tooMany})
	if err != nil || held.Status.Checkpoint.Step != v1alpha1.StepCopy || held.Wait == 0 {
		t.Errorf("held: step %q, wait %v, error %v, want to ask again", held.Status.Checkpoint.Step, held.Wait, err)
	}
}

func TestDowntimeIsFromTheLastWork(t *testing.T) {
	s := released().with(func(s *scene) { s.Replacement = readyReplacement().Obj() })
	if got := next(t, s.State).Status.Downtime; got == nil || got.Duration != 2*time.Second {
		t.Errorf("downtime = %v, want 2s", got)
	}
	s = in(v1alpha1.PhasePlacing).with(func(s *scene) { s.Replacement = readyReplacement().Obj() })
	if got := next(t, s.State).Status.Downtime; got == nil || got.Duration != 0 {
		t.Errorf("downtime with an overlap = %v, want 0", got)
	}
}

func TestClaimGrowsToWhatThereIs(t *testing.T) {
	s := carrying(v1alpha1.PhasePreparing).source(v1alpha1.SourceMeasured, 0)
	if got := claimSize(&s.State); got.String() != "1Gi" {
		t.Errorf("for 100 MiB: %s, want what was asked for", got.String())
	}
	s.Migration.Status.Checkpoint.Source.Bytes = 2 << 30
	if got := claimSize(&s.State); got.Value() != (2<<30)*5/4+64<<20 {
		t.Errorf("for 2 GiB: %s, want a quarter and 64 MiB more", got.String())
	}
}

// A rollback of a pod that was frozen ends when its agent has thawed it, or when its
// node is dead.
func TestRollbackWaitsForTheThaw(t *testing.T) {
	rolling := func() *scene {
		return sealing().step(v1alpha1.StepAbort).source(v1alpha1.SourceSealed, 3).set(v1alpha1.ConditionRolledBack, metav1.ConditionFalse, ReasonTimedOut).
			with(func(s *scene) { s.Replacement = nil })
	}
	for name, test := range map[string]struct {
		scene  *scene
		action v1alpha1.Step
		says   string
	}{
		"frozen":                               {rolling().behindBarrier(), NoAction, "to thaw pod train"},
		"thawed":                               {rolling().behindBarrier().source(v1alpha1.SourceThawed, 3), DeleteClaim, ""},
		"node is dead":                         {rolling().behindBarrier().with(func(s *scene) { s.SourceDown = time.Hour }), DeleteClaim, ""},
		"first of all":                         {rolling(), SetRollbackBarrier, ""},
		"pod is gone":                          {rolling().source(v1alpha1.SourceCopied, 2).with(func(s *scene) { s.Pod = nil }), DeleteClaim, ""},
		"pod is gone, and its state is sealed": {rolling().destination(v1alpha1.DestinationRestored, 3).with(func(s *scene) { s.Pod = nil }), NoAction, "kept on claim checkpoint"},
		"pod is gone, and the claim has another state": {rolling().destination(v1alpha1.DestinationRestored, 2).with(func(s *scene) { s.Pod = nil }), DeleteClaim, ""},
		"never stopped": {rolling().with(func(s *scene) { meta.RemoveStatusCondition(&s.Migration.Status.Conditions, v1alpha1.ConditionSealed) }).behindBarrier(), DeleteClaim, ""},
	} {
		if d := next(t, test.scene.State); taken(d) != test.action || !strings.Contains(d.Status.Message, test.says) {
			t.Errorf("%s: action %q (%s), want %q", name, taken(d), d.Status.Message, test.action)
		}
	}
}

// A node that does not answer ends what can still be undone: at once for the node
// of the replacement, and for that of the original when something of it is needed.
func TestNodesThatAreDown(t *testing.T) {
	sourceDown := func(s *scene) { s.SourceDown = 31 * time.Second }
	destinationDown := func(s *scene) { s.DestinationDown = 31 * time.Second }
	onB := func(s *scene) { s.Replacement = replacementPod().Node("b").Obj() }
	for name, test := range map[string]struct {
		scene *scene
		says  string
	}{
		"source, copying":                {carrying(v1alpha1.PhasePreparing).step(v1alpha1.StepCopy).with(sourceDown), "node a has not been Ready for more than 30s"},
		"source, state to carry":         {carrying(v1alpha1.PhasePlacing).with(onB).with(sourceDown), "node a"},
		"source, nothing to carry":       {in(v1alpha1.PhasePlacing).with(sourceDown), ""},
		"source, has to stop":            {stopFirst(in(v1alpha1.PhaseHandingOver), v1alpha1.MethodCreate).with(sourceDown), "node a"},
		"source, for a moment":           {carrying(v1alpha1.PhasePlacing).with(onB).with(func(s *scene) { s.SourceDown = 29 * time.Second }), ""},
		"destination, placed":            {in(v1alpha1.PhasePlacing).with(onB).with(destinationDown), "node b"},
		"destination, its place is held": {stopFirst(in(v1alpha1.PhasePlacing), v1alpha1.MethodCreate).with(destinationDown), "node b"},
		"destination, committed":         {released().with(destinationDown), ""},
	} {
		d := next(t, test.scene.State)
		c := ptr.Deref(meta.FindStatusCondition(d.Status.Conditions, v1alpha1.ConditionRolledBack), metav1.Condition{})
		if rolledBack := c.Reason == ReasonNodeNotReady; rolledBack != (test.says != "") || !strings.Contains(c.Message, test.says) {
			t.Errorf("%s: rolled back for %q: %s, want %q", name, c.Reason, c.Message, test.says)
		}
	}
}

// What was removed and cannot end, since its node is down, holds up no rollback:
// the message names it.
func TestRollbackLeavesPodsOfDeadNodes(t *testing.T) {
	dying := func(s *scene) {
		s.Replacement = replacementPod().Node("b").Obj()
		deleting(s.Replacement)
		s.Pod.Annotations = map[string]string{v1alpha1.RollbackBarrierAnnotation: "m"}
		deleting(s.Claim)
	}
	waiting := rollingBack(ReasonNodeNotReady).with(dying).with(func(s *scene) { s.DestinationDown = 29 * time.Second })
	if d := next(t, waiting.State); d.Status.Phase.IsFinished() {
		t.Errorf("the rollback does not wait for a node that may be back: %s", d.Status.Message)
	}
	dead := rollingBack(ReasonNodeNotReady).with(dying).with(func(s *scene) { s.DestinationDown = time.Hour })
	if d := next(t, dead.State); d.Status.Phase != v1alpha1.PhaseFailed || !strings.Contains(d.Status.Message, "pod train-r ends when node b is Ready again, or removed") {
		t.Errorf("phase %s: %s, want Failed with the pod that is left", d.Status.Phase, d.Status.Message)
	}
	alive := rollingBack(ReasonTimedOut).with(dying).with(func(s *scene) { s.Replacement.DeletionTimestamp, s.DestinationDown = nil, time.Hour })
	if d := next(t, alive.State); taken(d) != DiscardReplacement {
		t.Errorf("action %q, want the replacement removed first", taken(d))
	}
}

// adopting is a scene of a pod whose ReplicaSet takes the replacement.
func adopting(phase v1alpha1.Phase) *scene {
	return in(phase).with(func(s *scene) {
		reference := metav1.OwnerReference{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "web-1", UID: "rs", Controller: ptr.To(true)}
		s.Pod.OwnerReferences, s.Pod.Labels = []metav1.OwnerReference{reference}, map[string]string{"app": "web", "pod-template-hash": "1"}
		s.Owner = owners.Owner{Reference: &reference, ReplicaSet: &appsv1.ReplicaSet{
			ObjectMeta: metav1.ObjectMeta{Name: "web-1", UID: "rs"},
			Spec:       appsv1.ReplicaSetSpec{Replicas: ptr.To[int32](1), Selector: &metav1.LabelSelector{MatchLabels: s.Pod.Labels}},
			Status:     appsv1.ReplicaSetStatus{Replicas: 1},
		}}
		if phase == v1alpha1.PhasePending {
			return
		}
		s.Migration.Status.Handover.Method, s.Migration.Status.Handover.Owner = v1alpha1.MethodAdopt, &reference
		if s.Replacement != nil {
			s.Replacement.Labels["app"] = "web"
		}
	})
}

func markedOriginal() *scene {
	return adopting(v1alpha1.PhaseHandingOver).with(func(s *scene) { s.Pod = owners.WithLowestDeletionCost(s.Pod) })
}

func adopted() *scene {
	return markedOriginal().with(func(s *scene) { s.Replacement = owners.Offered(s.Replacement, s.Owner) })
}

// offeredLate is a scene whose replacement was offered after another client had deleted the
// original: the ReplicaSet has made a pod in its place, and has so many pods.
func offeredLate(pods int32) *scene {
	return adopting(v1alpha1.PhaseHandingOver).set(v1alpha1.ConditionReplacementReady, metav1.ConditionTrue, ReasonReady).
		set(v1alpha1.ConditionHandedOver, metav1.ConditionTrue, ReasonHandedOver).with(func(s *scene) {
		s.Pod, s.Claim, s.Migration.Status.After, s.Owner.ReplicaSet.Status.Replicas = nil, nil, record(nil, nil), pods
		s.Migration.Status.CheckpointClaim = ""
		s.Replacement = owners.Offered(s.Replacement, s.Owner)
		s.Replacement.OwnerReferences = []metav1.OwnerReference{*s.Owner.Reference}
	})
}

// bothStay is a scene in which the ReplicaSet has both pods, and no budget allows the
// eviction until the deadline.
func bothStay() *scene {
	return adopted().committed().set(v1alpha1.ConditionHandedOver, metav1.ConditionFalse, ReasonEvictionBlocked).with(func(s *scene) {
		s.Migration.Status.Times.Started = ago(time.Hour)
	})
}

func TestReplicaSetTakesTheReplacement(t *testing.T) {
	const pending, placing, handing = v1alpha1.PhasePending, v1alpha1.PhasePlacing, v1alpha1.PhaseHandingOver
	check(t, []row{
		{"settled", adopting(pending), AskBudget, pending, "", ""},
		{"a scaling is in flight", adopting(pending).with(func(s *scene) { s.Owner.ReplicaSet.Status.Replicas = 2 }), NoAction, pending, "", "being scaled"},
		{"it lasts too long", adopting(pending).with(func(s *scene) { s.Owner.ReplicaSet.Status.Replicas = 2; s.Now = t0.Add(time.Hour) }).set(v1alpha1.ConditionAccepted, metav1.ConditionFalse, ReasonWaitingForOwner), NoAction, v1alpha1.PhaseFailed, "", "not begun within 600 s"},
		{"several budgets", adopting(pending).with(func(s *scene) { s.Budgets = []string{"a", "b"} }), NoAction, v1alpha1.PhaseFailed, "", "a, b"},
		{"the ReplicaSet went while placing", adopting(placing).with(func(s *scene) {
			s.Owner.ReplicaSet, s.Replacement, s.Migration.Status.Replacement.UID = nil, nil, ""
		}), NoAction, placing, owners.RefusalOwnerGone, "is gone"},
		{"the original is marked", adopting(handing), MarkOriginal, handing, "", ""},
		{"commit", markedOriginal(), Commit, handing, "", ""},
		{"the replacement is offered", markedOriginal().committed(), OfferReplacement, handing, "", ""},
		{"offered by a controller that was believed dead", adopted(), NoAction, handing, "", ""},
		{"offered", adopted().committed(), NoAction, handing, "", ""},
		{"the ReplicaSet has not acted", adopted().set(v1alpha1.ConditionHandedOver, metav1.ConditionFalse, ReasonOffered), NoAction, handing, "", "waiting for ReplicaSet web-1"},
		{"it wants one more by now", adopted().set(v1alpha1.ConditionHandedOver, metav1.ConditionFalse, ReasonOffered).with(func(s *scene) { s.Now = t0.Add(time.Minute) }), Evict, handing, "", ""},
		{"the ReplicaSet deleted it for another replacement", adopting(handing).with(func(s *scene) { s.Pod = nil }).
			set(v1alpha1.ConditionReplacementReady, metav1.ConditionTrue, ReasonReady).
			set(v1alpha1.ConditionHandedOver, metav1.ConditionTrue, ReasonHandedOver), OfferLate, handing, "", ""},
		{"the original was deleted, and the replacement is not ready", offeredLate(1).with(func(s *scene) { s.Replacement = replacementPod().Node("b").Obj() }), NoAction, handing, "", "not offering it"},
		{"offered late: the ReplicaSet has not looked at it", offeredLate(1).with(func(s *scene) { s.Replacement.OwnerReferences = nil }), NoAction, handing, "", "one too many"},
		{"offered late: it has a pod too many", offeredLate(2), NoAction, handing, "", "one too many"},
		{"offered late: it has chosen", offeredLate(1), UnmarkReplacement, handing, "", ""},
		{"offered late: it does not choose until the deadline", offeredLate(2).with(func(s *scene) { s.Now = t0.Add(time.Hour) }), UnmarkReplacement, handing, "", ""},
		{"offered late: it is gone", offeredLate(2).with(func(s *scene) { s.Owner.ReplicaSet = nil }), UnmarkReplacement, handing, "", ""},
		{"offered late: done", offeredLate(1).with(func(s *scene) { s.Replacement = owners.WithoutDeletionCost(s.Replacement) }), NoAction, v1alpha1.PhaseSucceeded, "", ""},
		{"the ReplicaSet has chosen it for the replacement of another pod", markedOriginal().with(func(s *scene) { deleting(s.Pod) }), NoAction, handing, "", "takes over"},
		{"it was deleted while the replacement was starting", markedOriginal().with(func(s *scene) { deleting(s.Pod); s.Replacement = replacementPod().Obj() }), NoAction, handing, ReasonOriginalDeleted, ""},
		{"both stay: the mark goes", bothStay(), UnmarkOriginal, handing, "", ""},
		{"both stay: the mark of the replacement goes", bothStay().with(func(s *scene) { s.Pod = owners.WithoutDeletionCost(s.Pod) }), UnmarkReplacement, handing, "", ""},
		{"both stay", bothStay().with(func(s *scene) {
			s.Pod, s.Replacement, s.Claim = owners.WithoutDeletionCost(s.Pod), owners.WithoutDeletionCost(s.Replacement), nil
		}), NoAction, v1alpha1.PhaseFailed, "", "both run"},
		{"both stay, and there is time left", bothStay().with(func(s *scene) { s.Migration.Status.Times.Started = ago(time.Minute) }), Evict, handing, "", ""},
		{"cancelled before it was offered", markedOriginal().committed().with(func(s *scene) { s.Migration.Spec.Cancel = true }), WithdrawEviction, handing, "", ""},
		{"cancelled too late", adopted().committed().with(func(s *scene) { s.Migration.Spec.Cancel = true }), NoAction, handing, "", ""},
		{"the ReplicaSet is gone", markedOriginal().committed().with(func(s *scene) { s.Owner.ReplicaSet = nil }), Evict, handing, "", ""},
		{"rolled back: the mark goes", markedOriginal().set(v1alpha1.ConditionRolledBack, metav1.ConditionFalse, ReasonTimedOut).with(func(s *scene) { s.Replacement = nil }), SetRollbackBarrier, handing, "", ""},
	})
	created := adopting(placing).with(func(s *scene) { s.Replacement, s.Migration.Status.Replacement.UID = nil, "" })
	made := podOf(next(t, created.State))
	if made == nil || made.Labels["app"] != "web" || made.Labels["pod-template-hash"] != "" {
		t.Errorf("the replacement is %v, want one that its Service finds and its ReplicaSet does not count", made)
	}
	if offered := becomesOf(next(t, markedOriginal().committed().State)); offered.Labels["pod-template-hash"] != "1" {
		t.Errorf("offered with labels %v", offered.Labels)
	}
}

func TestOnlyWhatCanBeCarriedIsAccepted(t *testing.T) {
	tests := []struct {
		name   string
		change func(*scene)
		reason string
	}{
		{"no claim is needed", func(*scene) {}, ""},
		{"no agent", func(s *scene) { s.AgentImage = "" }, ReasonNodeAgentMissing},
		{"a Secret to pull the agent's image is missing", func(s *scene) { s.MissingPullSecrets = []string{"registry"} }, ReasonImagePullSecretMissing},
		{"a Secret is missing, and no pod needs it", func(s *scene) {
			s.MissingPullSecrets, s.Migration.Spec.Checkpoint = []string{"registry"}, v1alpha1.CheckpointSpec{Mode: v1alpha1.CheckpointNone}
		}, ""},
		{"a Secret is missing for the pod that holds the place", func(s *scene) {
			s.MissingPullSecrets, s.Migration.Spec.Checkpoint = []string{"registry"}, v1alpha1.CheckpointSpec{Mode: v1alpha1.CheckpointNone}
			s.Migration.Spec.ForceRestart = true
		}, ReasonImagePullSecretMissing},
		{"a claim is asked for", func(s *scene) { s.Migration.Spec.Checkpoint.Claim = v1alpha1.ClaimAlways }, ""},
		{"a liveness probe ends what is frozen at once", func(s *scene) { s.Pod.Spec.Containers[1].LivenessProbe = &corev1.Probe{FailureThreshold: 1} }, ReasonProbeEndsFrozen},
		{"nothing is to be carried", func(s *scene) { s.Migration.Spec.Checkpoint = v1alpha1.CheckpointSpec{Mode: v1alpha1.CheckpointNone} }, ""},
	}
	for _, test := range tests {
		s := carrying(v1alpha1.PhasePending).with(test.change)
		d := next(t, s.State)
		c := ptr.Deref(meta.FindStatusCondition(d.Status.Conditions, v1alpha1.ConditionAccepted), metav1.Condition{})
		if c.Reason != test.reason {
			t.Errorf("%s: refused for %q (%s), want %q", test.name, c.Reason, c.Message, test.reason)
		}
	}
	s := carrying(v1alpha1.PhasePending)
	d, err := settle(t, s.State, Result{Admitted: true})
	if err != nil || d.Status.Checkpoint == nil || len(d.Status.Checkpoint.Volumes) != 1 || d.Status.CheckpointClaim != "" {
		t.Errorf("accepted with checkpoint %+v, error %v", d.Status.Checkpoint, err)
	}
	if containers.CarriedVolumes(s.Pod, containers.Judge(s.Pod, containers.PolicyOf(s.Migration)))[0] != "work" {
		t.Error("volume work is not carried")
	}
}
