package decide

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// storedPod is the original as an API server answers it, with a field that our types do
// not know.
func storedPod(t *testing.T) map[string]any {
	t.Helper()
	pod := originalPod().Obj()
	pod.Labels = map[string]string{"app": "train"}
	pod.OwnerReferences = []metav1.OwnerReference{{APIVersion: "example.com/v1", Kind: "Study", Name: "s", UID: "study"}}
	pod.Finalizers = []string{"example.com/f"}
	fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(pod)
	if err != nil {
		t.Fatal(err)
	}
	stored := &unstructured.Unstructured{Object: fields}
	stored.SetAPIVersion("v1")
	stored.SetKind("Pod")
	if err := unstructured.SetNestedField(stored.Object, "new", "spec", "fieldOfTomorrow"); err != nil {
		t.Fatal(err)
	}
	return stored.Object
}

// failedWithCopy is a migration that has ended with the only copy.
func failedWithCopy(t *testing.T) *v1alpha1.PodMigration {
	t.Helper()
	s := sealedAndGone(v1alpha1.MethodCreate)
	s.Stored = storedPod(t)
	s.Replacement = nil
	s.Migration.Status.Checkpoint.Manifest = manifestOf(&s.State)
	d := next(t, s.State)
	failed := s.Migration.DeepCopy()
	failed.Name, failed.UID, failed.Status = "failed", "f", d.Status
	return failed
}

// recovery is a scene in which a user asks for the pod of a failed migration.
func recovery(t *testing.T) *scene {
	t.Helper()
	s := in(v1alpha1.PhasePending)
	s.Pod, s.Failed, s.AgentImage = nil, failedWithCopy(t), "agent"
	s.Migration.Spec.RecoverFrom = s.Failed.Name
	s.Claim = fixture.MakeClaim("checkpoint", corev1.ReadWriteOnce)
	s.Claim.Labels = map[string]string{v1alpha1.MigrationUIDLabel: "f"}
	return s
}

func TestRecoveryIsRefused(t *testing.T) {
	in := func(change func(*scene)) *scene { return recovery(t).with(change) }
	golden := newGolden(t)
	for _, test := range []struct {
		name   string
		scene  *scene
		reason string
		says   string
	}{
		{"no such migration", in(func(s *scene) { s.Failed = nil }), ReasonMigrationNotFound, "does not exist"},
		{"it has not ended", in(func(s *scene) { s.Failed.Status.Phase = v1alpha1.PhaseHandingOver }), ReasonNothingKept, "has not ended"},
		{"it kept nothing", in(func(s *scene) { s.Failed.Status.Conditions = nil }), ReasonNothingKept, "nothing was sealed"},
		{"its claim was taken before", in(func(s *scene) {
			conditions := &scene{State{Migration: s.Failed}}
			conditions.set(v1alpha1.ConditionCheckpointKept, metav1.ConditionFalse, ReasonAlreadyRecovered)
		}), ReasonAlreadyRecovered, "keeps nothing any more"},
		{"its claim is taken right now", in(func(s *scene) { s.Claim.Labels[v1alpha1.MigrationUIDLabel] = "another" }), ReasonAlreadyRecovered, "UID another"},
		{"its claim is gone", in(func(s *scene) { s.Claim = nil }), ReasonClaimDeleted, "no longer exists"},
		{"its claim is being deleted", in(func(s *scene) { deleting(s.Claim) }), ReasonClaimDeleted, "is being deleted"},
		{"its claim is used", in(func(s *scene) { s.Neighbours = []corev1.Pod{*userOfClaim(corev1.PodRunning)} }), ReasonKeptClaimInUse, "pod reader uses claim checkpoint"},
		{"the original still ends", in(func(s *scene) { s.Neighbours = []corev1.Pod{*originalPod().Obj()} }), ReasonOriginalExists, "pod train, which was moved, still exists"},
		{"another recovery is older", in(func(s *scene) {
			other := s.Migration.DeepCopy()
			other.Name, other.UID, other.CreationTimestamp = "other", "a", metav1.NewTime(t0.Add(-time.Hour))
			s.Others = []v1alpha1.PodMigration{*other}
		}), ReasonAlreadyMigrating, "PodMigration other"},
		{"the name is taken", in(func(s *scene) { s.Replacement = originalPod().Obj() }), ReasonNameTaken, "pod train exists"},
		{"an owner creates the pod", in(jobsPod), ReasonOwnerReplacesPod, "belonged to Job study"},
		{"nothing says what the pod was", in(func(s *scene) { s.Failed.Status.Checkpoint.Manifest = "" }), ReasonManifestMissing, "no record"},
		{"nothing says what was sealed", in(func(s *scene) { s.Failed.Status.Checkpoint.Source.ManifestDigest = "" }), ReasonManifestMissing, "no record"},
		{"its memory was carried", in(withMemory), ReasonProcessNotMovable, "FreshStart"},
		{"there is no node agent", in(func(s *scene) { s.AgentImage = "" }), ReasonNodeAgentMissing, "no node agent"},
		{"the node does not exist", in(func(s *scene) { s.Migration.Spec.TargetNode = "x" }), ReasonTargetNodeNotFound, "node x"},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := checkRow(t, golden, row{test.name, test.scene, NoAction, v1alpha1.PhaseFailed, "", test.says})
			if c := meta.FindStatusCondition(d.Status.Conditions, v1alpha1.ConditionAccepted); c == nil || c.Reason != test.reason {
				t.Errorf("refused with %+v, want %s", c, test.reason)
			}
		})
	}
}

func userOfClaim(phase corev1.PodPhase) *corev1.Pod {
	return fixture.MakePod("reader").Phase(phase).With(func(p *corev1.Pod) {
		p.Spec.Volumes = []corev1.Volume{{Name: "c", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "checkpoint"}}}}
	}).Obj()
}

func jobsPod(s *scene) {
	s.Failed.Status.Handover.Owner = &metav1.OwnerReference{APIVersion: "batch/v1", Kind: "Job", Name: "study", UID: "study"}
}

func withMemory(s *scene) {
	s.Failed.Status.Checkpoint.Mode, s.Failed.Status.Checkpoint.Processes = v1alpha1.CheckpointProcess, []string{"serve"}
}

func TestRecoveryIsAccepted(t *testing.T) {
	const placing = v1alpha1.PhasePlacing
	in := func(change func(*scene)) *scene { return recovery(t).with(change) }
	check(t, []row{
		{"a pod that is gone", recovery(t), NoAction, placing, "", "recovering pod train from claim checkpoint"},
		{"a pod that has ended uses the claim", in(func(s *scene) { s.Neighbours = []corev1.Pod{*userOfClaim(corev1.PodFailed)} }), NoAction, placing, "", ""},
		{"a pod of a Job under another name", in(func(s *scene) { jobsPod(s); s.Migration.Spec.PodName = "rescued" }), NoAction, placing, "", "recovering pod rescued"},
		{"its volumes alone", in(func(s *scene) {
			withMemory(s)
			s.Migration.Spec.Checkpoint.Fallback = v1alpha1.FallbackFreshStart
		}), NoAction, placing, "", ""},
	})
}

// accepted is a recovery that was accepted a moment ago.
func accepted(t *testing.T) *scene {
	t.Helper()
	s := recovery(t)
	s.Migration.Status = next(t, s.State).Status
	s.Failed = nil
	return s
}

// claimTaken is a recovery that has the claim.
func claimTaken(t *testing.T) *scene {
	t.Helper()
	return accepted(t).with(func(s *scene) {
		s.Claim.Labels[v1alpha1.MigrationUIDLabel] = "m"
		s.Claim.Finalizers = []string{v1alpha1.CheckpointFinalizer}
	})
}

// placed is a recovery whose pod waits at its gate.
func placed(t *testing.T) *scene {
	t.Helper()
	return claimTaken(t).with(func(s *scene) {
		s.Replacement = replacementPod().Node("b").Obj()
		s.Replacement.Name, s.Replacement.UID = "train", "uid-train-2"
		s.Replacement.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: v1alpha1.GateContainer,
			State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(t0.Add(-time.Second))}}}}
		s.Migration.Status.Phase = v1alpha1.PhaseHandingOver
		s.Migration.Status.Replacement.UID, s.Migration.Status.Replacement.NodeName = "uid-train-2", "b"
	})
}

func (s *scene) restored(phase v1alpha1.DestinationPhase) *scene {
	c := s.Migration.Status.Checkpoint
	c.Destination = &v1alpha1.DestinationReport{Node: "b", Attempt: 1, PodUID: "uid-train-2", Phase: phase, Pass: c.Source.Pass, ManifestDigest: c.Source.ManifestDigest, Reason: "Corrupt", Message: "file x is not what was sealed"}
	return s
}

func TestRecovering(t *testing.T) {
	const placing, handing, failed = v1alpha1.PhasePlacing, v1alpha1.PhaseHandingOver, v1alpha1.PhaseFailed
	rolled := func(s *scene) *scene {
		return s.set(v1alpha1.ConditionRolledBack, metav1.ConditionFalse, ReasonRestoreFailed).with(func(s *scene) {
			s.Replacement, s.Claim.Finalizers = nil, nil
		})
	}
	running := func(change func(*scene)) *scene {
		return placed(t).set(v1alpha1.ConditionReleased, metav1.ConditionTrue, ReasonReleased).with(func(s *scene) {
			s.Migration.Status.Checkpoint.Step = v1alpha1.StepRelease
			s.Replacement = readyReplacement().Obj()
			s.Replacement.Name, s.Replacement.UID = "train", "uid-train-2"
		}).with(change)
	}
	ready := func(s *scene) {
		s.Migration.Status.Times.ReplacementReady = ago(time.Second)
		s.set(v1alpha1.ConditionReplacementReady, metav1.ConditionTrue, ReasonReady)
	}
	check(t, []row{
		{"it takes the claim", accepted(t), TakeClaim, placing, "", ""},
		{"another one was faster", accepted(t).with(func(s *scene) { s.Claim.Labels[v1alpha1.MigrationUIDLabel] = "another" }), NoAction, placing, ReasonAlreadyRecovered, ""},
		{"the claim is deleted", accepted(t).with(func(s *scene) { s.Claim = nil }), NoAction, placing, ReasonClaimDeleted, ""},
		{"it creates the pod", claimTaken(t), CreateReplacement, placing, "", ""},
		{"the name was taken meanwhile", claimTaken(t).with(func(s *scene) { s.Replacement = originalPod().Obj() }), NoAction, placing, ReasonNameTaken, ""},
		{"it waits for the gate", placed(t).with(func(s *scene) { s.Replacement.Status.InitContainerStatuses = nil }), NoAction, handing, "", "waiting for pod train"},
		{"it waits for the agent", placed(t), NoAction, handing, "", "waiting for the node agent of node b"},
		{"there is no agent", placed(t).with(func(s *scene) {
			s.Replacement.Status.InitContainerStatuses[0].State.Running.StartedAt = metav1.NewTime(t0.Add(-time.Minute))
		}), NoAction, handing, ReasonNodeAgentMissing, ""},
		{"it restores", placed(t).restored(v1alpha1.DestinationRestoring), NoAction, handing, "", "restoring and verifying"},
		{"the digest does not verify", placed(t).restored(v1alpha1.DestinationFailed), NoAction, handing, ReasonRestoreFailed, ""},
		{"it is restored", placed(t).restored(v1alpha1.DestinationRestored), NoAction, handing, "", "continues with the carried state"},
		{"it is cancelled", placed(t).with(func(s *scene) { s.Migration.Spec.Cancel = true }), NoAction, handing, ReasonCancelled, ""},
		{"it takes too long", placed(t).with(func(s *scene) { s.Now = t0.Add(time.Hour) }), NoAction, handing, ReasonTimedOut, ""},
		{"undone: the pod goes", placed(t).restored(v1alpha1.DestinationFailed).set(v1alpha1.ConditionRolledBack, metav1.ConditionFalse, ReasonRestoreFailed), DiscardReplacement, handing, "", ""},
		{"undone: the claim is kept again", rolled(placed(t)), NoAction, failed, "", "what was carried is kept on claim checkpoint"},
		{"undone before it had the claim", rolled(accepted(t)), NoAction, failed, "", ""},
		{"it is Ready", running(func(*scene) {}), NoAction, handing, "", ""},
		{"it is not Ready, and the pod is deleted", running(func(s *scene) { s.Replacement = nil }), KeepClaim, handing, "", ""},
		{"it was Ready: the pod gets the claim", running(ready), AdoptClaim, handing, "", ""},
		{"it was Ready, and the claim is retained", running(ready).with(func(s *scene) {
			s.Migration.Spec.Checkpoint.ReclaimPolicy, s.Claim.Finalizers = v1alpha1.ClaimRetain, nil
		}), NoAction, v1alpha1.PhaseSucceeded, "", "with the state that PodMigration failed had kept"},
	})
}

// The pod comes back as it was, with what our types do not know, and without what would
// delete it or keep it off its old node.
func TestTheRecoveredPodIsTheOriginal(t *testing.T) {
	d := next(t, claimTaken(t).State)
	create, is := d.Action.(CreateObject)
	if !is {
		t.Fatalf("action %+v, want a creation", d.Action)
	}
	fields := create.Object.(*unstructured.Unstructured)
	if got, _, _ := unstructured.NestedString(fields.Object, "spec", "fieldOfTomorrow"); got != "new" {
		t.Errorf("the unknown field is %q", got)
	}
	pod := &corev1.Pod{}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(fields.Object, pod); err != nil {
		t.Fatal(err)
	}
	if pod.Name != "train" || pod.Labels["app"] != "train" || !v1alpha1.OwnedBy(pod.Labels, "m") || len(pod.OwnerReferences)+len(pod.Finalizers) > 0 {
		t.Errorf("metadata %+v", pod.ObjectMeta)
	}
	encoded, _ := json.Marshal(pod.Spec.Affinity)
	if pod.Spec.NodeName != "" || pod.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution != nil {
		t.Errorf("node %q, affinity %s: its old node is as good as any", pod.Spec.NodeName, encoded)
	}
	if len(pod.Spec.InitContainers) == 0 || pod.Spec.InitContainers[0].Name != v1alpha1.GateInstallContainer {
		t.Errorf("init containers %+v, want the gate first", pod.Spec.InitContainers)
	}
}

// A pod that its owner has replaced must not be taken for one of the owner's.
func TestTheManifestOfAnOwnedPodHasNoLabels(t *testing.T) {
	s := in(v1alpha1.PhaseHandingOver)
	s.Stored = storedPod(t)
	s.Migration.Status.Handover.Owner = &metav1.OwnerReference{Kind: "Job", Name: "study"}
	if manifest := manifestOf(&s.State); strings.Contains(manifest, `"labels"`) || strings.Contains(manifest, "Study") {
		t.Errorf("manifest %s", manifest)
	}
	if s.Stored["status"] == nil {
		t.Error("what was observed has changed")
	}
	s.Stored["metadata"].(map[string]any)["annotations"] = map[string]any{"a": strings.Repeat("x", maxManifest)}
	if manifest := manifestOf(&s.State); manifest != "" {
		t.Errorf("a manifest of %d bytes", len(manifest))
	}
}

// The record is what the pod is recovered from: no time to live removes it before.
func TestARecordThatKeepsTheOnlyCopyStays(t *testing.T) {
	s := recovery(t)
	kept := &scene{State{Now: t0.Add(24 * time.Hour), Migration: s.Failed, Claim: s.Claim, Limits: s.Limits}}
	kept.Migration.Finalizers, kept.Migration.Spec.TTLSecondsAfterFinished = nil, new(int32(1))
	if d := next(t, kept.State); d.Action != nil || d.Status.Checkpoint.Manifest == "" {
		t.Errorf("step %s, action %+v", d.Step, d.Action)
	}
	kept.Claim = nil
	d := next(t, kept.State)
	if d.Step != CheckKeptClaim || d.Status.Checkpoint.Manifest != "" {
		t.Fatalf("step %s", d.Step)
	}
	kept.Migration.Status = d.Status
	if d := next(t, kept.State); d.Step != DeleteMigration || d.Action == nil {
		t.Errorf("step %s, action %+v", d.Step, d.Action)
	}
}
