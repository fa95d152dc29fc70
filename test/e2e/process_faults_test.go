//go:build e2e

package e2e

import (
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// The claim has room for the volumes of the pod, and not for the memory that is
// dumped when it is frozen: it continues with its memory.
func TestAClaimThatFillsUpDuringTheDump(t *testing.T) {
	needsTime(t)
	requireProcessNodes(t)
	s := startWriterOf(t, processTemplate)
	class := smallVolume(t, 12)
	s.move(t, func(m *v1alpha1.PodMigration) {
		withProcesses(m)
		m.Spec.Checkpoint.Claim, m.Spec.Checkpoint.StorageClassName = v1alpha1.ClaimAlways, &class
	})
	s.wantGivenUp(t, 2*time.Minute, "ClaimTooSmall")
	if s.migration.Status.Times.Stopped != nil {
		t.Errorf("the original was stopped at %s", s.migration.Status.Times.Stopped)
	}
}

// The agent of the destination dies while the last copy is made: the pod continues with
// its memory, here or there.
func TestADestinationAgentThatDiesDuringTheLastCopy(t *testing.T) {
	needsTime(t)
	requireProcessNodes(t)
	s := startWriterOf(t, processTemplate)
	s.holdLastCopy(t, withProcesses)
	signalAgent(t, env.nodes[1], syscall.SIGKILL)
	waitPhase(t, s.migration, 3*time.Minute, v1alpha1.Phase.IsFinished)
	t.Logf("%s: %s", s.migration.Status.Phase, s.migration.Status.Message)
	checkNothingLeft(t, s.namespace, s.collector, []*v1alpha1.PodMigration{s.migration})
}

// The memory of a pod takes longer to copy than the pod may be frozen: it continues
// with its memory. Where it may be frozen for longer, it moves.
func TestMuchMemoryMovesWithTime(t *testing.T) {
	needsTime(t)
	requireProcessNodes(t)
	namespace := newNamespace(t)
	pod := startOn(t, env.nodes[0], memoryPod(namespace, "3Gi"))
	waitReady(t, pod, 2*time.Minute)
	within := func(name string, seconds int32) *v1alpha1.PodMigration {
		return migrate(t, pod, func(m *v1alpha1.PodMigration) {
			withProcesses(m)
			m.Name, m.Spec.Checkpoint.MaxFreezeSeconds = name, seconds
		})
	}
	worked := workedAt(t, pod)
	short := &faultScene{namespace: namespace, pod: pod, migration: within("short", 2)}
	short.wantFailed(t, 3*time.Minute, "CheckpointFailed")
	if source := short.migration.Status.Checkpoint.Source; source.Reason != v1alpha1.ReportFreezeTooLong || !strings.Contains(source.Message, "maxFreezeSeconds") {
		t.Errorf("the source says %s: %s", source.Reason, source.Message)
	}
	if now := workedAt(t, pod); now <= worked {
		t.Errorf("the original has worked for %d ms, and did so for %d before", now, worked)
	}
	worked = workedAt(t, pod)
	long := within("long", 300)
	wantSucceeded(t, long, 6*time.Minute)
	reportStop(t, long)
	moved, err := getPod(t.Context(), namespace, long.Status.Replacement.Name)
	if err != nil {
		t.Fatal(err)
	}
	if c := long.Status.Checkpoint; c.Restored != v1alpha1.RestoredProcesses || workedAt(t, moved) <= worked {
		t.Errorf("it continued with %q", c.Restored)
	}
}

// CRIU can dump the writer and not restore it: its file is on a volume that nobody
// carries. The original continues with its memory; or, where the migration says that it
// may, the replacement starts afresh, which it reports.
func TestProcessesThatCannotBeRestored(t *testing.T) {
	needsTime(t)
	requireProcessNodes(t)
	s := startWriterOf(t, func(name, collector string) corev1.PodTemplateSpec {
		template := processTemplate(name, collector)
		template.Spec.InitContainers = nil // one that filled it would run again
		template.Annotations = map[string]string{v1alpha1.DiscardableVolumesAnnotation: "data"}
		return template
	})
	s.move(t, withProcesses)
	s.wantGivenUp(t, 2*time.Minute, "RestoreFailed")
	fresh := migrate(t, s.pod, func(m *v1alpha1.PodMigration) {
		withProcesses(m)
		m.Name, m.Spec.TargetNode, m.Spec.Checkpoint.Fallback = "fresh", env.nodes[1], v1alpha1.FallbackFreshStart
	})
	wantSucceeded(t, fresh, 3*time.Minute)
	if c := fresh.Status.Checkpoint; c.Restored == v1alpha1.RestoredProcesses || !strings.Contains(c.FallbackReason, "could not be restored") {
		t.Errorf("restored %q for %q", c.Restored, c.FallbackReason)
	}
	t.Logf("started again: %s", fresh.Status.Checkpoint.FallbackReason)
}
