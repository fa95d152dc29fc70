package decide

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods/containers"
)

// withProcesses asks for the memory of the processes of a pod that can give it.
func withProcesses(s *scene) {
	class := v1alpha1.ProcessRuntimeClass
	s.Pod.Spec.RuntimeClassName = &class
	s.Migration.Spec.Checkpoint.Mode = v1alpha1.CheckpointProcess
	s.CarriesProcesses, s.Handler = true, v1alpha1.ProcessRuntimeClass
	if c := s.Migration.Status.Checkpoint; c != nil && s.Migration.Status.Phase != v1alpha1.PhasePending {
		c.Mode = v1alpha1.CheckpointProcess
		c.Processes = containers.MovingProcesses(containers.Judge(s.Pod, containers.PolicyOf(s.Migration)))
	}
}

func TestProcessesThatCannotMoveAreRefusedWhilePending(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*scene)
		want   string
	}{
		"movable":               {func(*scene) {}, ""},
		"another runtime class": {func(s *scene) { s.Pod.Spec.RuntimeClassName = nil }, containers.RefusalRuntimeClass},
		"node without CRIU":     {func(s *scene) { s.CarriesProcesses = false }, ReasonNodeWithoutCRIU},
		"no node agent":         {func(s *scene) { s.AgentImage = "" }, ReasonNodeAgentMissing},
		"a claim for one node": {func(s *scene) {
			s.Migration.Spec.Checkpoint.Claim, s.Migration.Spec.Checkpoint.AccessMode = v1alpha1.ClaimAlways, corev1.ReadWriteOnce
		}, ""},
		"the original must stop": {func(s *scene) { s.Migration.Spec.ForceRestart = true }, ReasonProcessNeedsOverlap},
	} {
		for _, fallback := range []v1alpha1.CheckpointFallback{v1alpha1.FallbackNone, v1alpha1.FallbackFreshStart} {
			s := carrying(v1alpha1.PhasePending).with(withProcesses)
			s.Migration.Spec.Checkpoint.Fallback = fallback
			test.change(s)
			d := next(t, s.State)
			refused := d.Status.Phase == v1alpha1.PhaseFailed
			if want := test.want != "" && fallback == v1alpha1.FallbackNone; refused != want && name != "no node agent" {
				t.Errorf("%s, %s: refused %t, want %t: %s", name, fallback, refused, want, d.Status.Message)
				continue
			}
			if c := meta.FindStatusCondition(d.Status.Conditions, v1alpha1.ConditionAccepted); refused && fallback == v1alpha1.FallbackNone && c.Reason != test.want {
				t.Errorf("%s: reason %s, want %s", name, c.Reason, test.want)
			}
			mode, why := plannedMode(&s.State, containers.Judge(s.Pod, containers.PolicyOf(s.Migration)))
			if (mode == v1alpha1.CheckpointProcess) != (test.want == "") || (why == nil) != (test.want == "") {
				t.Errorf("%s: mode %s, %v", name, mode, why)
			}
		}
	}
}

func TestProcessesThatStayFallBackOnlyWhereTheyMay(t *testing.T) {
	failures := map[string]func(*scene){
		"at the source": func(s *scene) {
			s.source(v1alpha1.SourceFailed, 1)
			s.Migration.Status.Checkpoint.Source.Reason = v1alpha1.ReportProcessNotMovable
		},
		"at the destination": func(s *scene) {
			s.source(v1alpha1.SourceSealed, 2).destination(v1alpha1.DestinationFailed, 2)
			s.Migration.Status.Checkpoint.Destination.Reason = v1alpha1.ReportProcessNotMovable
		},
	}
	for name, fail := range failures {
		s := sealing().with(withProcesses).with(fail)
		d := next(t, s.State)
		if c := meta.FindStatusCondition(d.Status.Conditions, v1alpha1.ConditionRolledBack); c == nil || d.Status.Checkpoint.Step != v1alpha1.StepAbort {
			t.Errorf("%s: not rolled back: %s, step %s", name, d.Status.Message, d.Status.Checkpoint.Step)
		}
		s.Migration.Spec.Checkpoint.Fallback = v1alpha1.FallbackFreshStart
		d = next(t, s.State)
		c := d.Status.Checkpoint
		if d.Status.Phase != v1alpha1.PhasePreparing || c.Mode != v1alpha1.CheckpointFrozen || len(c.Processes) != 0 || c.Attempt != 2 || c.FallbackReason == "" {
			t.Errorf("%s: phase %s, checkpoint %+v, want another attempt with the volumes alone", name, d.Status.Phase, c)
		}
	}
}

func TestAnotherImageUnderTheSameNameIsNotRestoredInto(t *testing.T) {
	for there, want := range map[string]v1alpha1.Phase{"sha256:same": v1alpha1.PhaseHandingOver, "sha256:other": v1alpha1.PhasePlacing} {
		s := carrying(v1alpha1.PhasePlacing).with(withProcesses).destination(v1alpha1.DestinationWarm, 1)
		for i := range s.Pod.Spec.Containers {
			s.Pod.Spec.Containers[i].Image = "app:1"
		}
		for i := range s.Pod.Status.ContainerStatuses {
			s.Pod.Status.ContainerStatuses[i].ImageID = "sha256:same"
		}
		warm := v1alpha1.GateWarmContainerPrefix + "1"
		s.Replacement = replacementPod().Node("b").Init(warm, fixture.Exited(0)).Obj()
		for i := range s.Replacement.Spec.InitContainers {
			s.Replacement.Spec.InitContainers[i].Image = "app:1"
			s.Replacement.Status.InitContainerStatuses[i].ImageID = there
		}
		d := next(t, s.State)
		if d.Status.Phase != want || (want == v1alpha1.PhasePlacing) != strings.Contains(d.Status.Message, "sha256:other") {
			t.Errorf("%s: phase %s, %s", there, d.Status.Phase, d.Status.Message)
		}
	}
}

func TestTheRecordNamesTheRestoredState(t *testing.T) {
	for processes, want := range map[bool]v1alpha1.RestoredState{true: v1alpha1.RestoredProcesses, false: v1alpha1.RestoredVolumes} {
		s := carrying(v1alpha1.PhaseHandingOver)
		if processes {
			s.with(withProcesses)
		}
		b := newBuilder(&s.State)
		markReplacementReady(b, s.Replacement)
		if got := b.newStatus().Checkpoint.Restored; got != want {
			t.Errorf("processes %t: restored %q, want %q", processes, got, want)
		}
	}
}

// A container whose processes are not restored fails, and with it a pod of a Job: the Job
// must not count it before the release.
func TestAJobDoesNotCountAReplacementWhoseProcessesAreNotRestored(t *testing.T) {
	const finalizer = "batch.kubernetes.io/job-tracking"
	of := func(kind string, s *scene, tracked bool) *scene {
		return s.with(withProcesses).with(func(s *scene) {
			h := s.Migration.Status.Handover
			h.Method, h.Owner = v1alpha1.MethodRelease, &metav1.OwnerReference{APIVersion: map[string]string{"Job": "batch/v1", "ReplicaSet": "apps/v1"}[kind], Kind: kind, Name: "sum", UID: "owner"}
			if tracked {
				s.Replacement.Finalizers = []string{finalizer}
			}
		})
	}
	handing := func() *scene { return carrying(v1alpha1.PhaseHandingOver).withClaim() }
	restored := func() *scene {
		return sealing().source(v1alpha1.SourceSealed, 3).destination(v1alpha1.DestinationRestored, 3)
	}
	for name, test := range map[string]struct {
		scene *scene
		want  v1alpha1.Step
	}{
		"not sealed yet, counted":     {of("Job", handing(), true), UntrackReplacement},
		"not sealed yet, not counted": {of("Job", handing(), false), CheckEviction},
		"another owner":               {of("ReplicaSet", handing(), true), CheckEviction},
		"restored, not counted":       {of("Job", restored(), false), TrackReplacement},
		"restored, counted again":     {of("Job", restored(), true), RestoreCheckpoint},
	} {
		s := test.scene.with(func(s *scene) {
			if s.Claim != nil {
				s.Claim.Finalizers = []string{v1alpha1.CheckpointFinalizer}
			}
		})
		d := next(t, s.State)
		if d.Step != test.want {
			t.Errorf("%s: step %s, want %s (%s)", name, d.Step, test.want, d.Status.Message)
		}
	}
}

// The downtime lasts until the processes continue, though the kubelet calls them Ready before.
func TestStoppedProcessesAreNotReady(t *testing.T) {
	s := released().with(withProcesses).with(func(s *scene) { s.Replacement = readyReplacement().Obj() })
	s.destination(v1alpha1.DestinationRestored, 3)
	if d := next(t, s.State); d.Status.Times.ReplacementReady != nil || d.Wait == 0 {
		t.Errorf("stopped: Ready at %v, wait %v", d.Status.Times.ReplacementReady, d.Wait)
	}
	s.destination(v1alpha1.DestinationReleased, 3)
	if d := next(t, s.State); d.Status.Times.ReplacementReady == nil {
		t.Errorf("released: it is not ready: %s", d.Status.Message)
	}
}
