package integration

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/controllers/migration"
	"github.com/ai-storage/orchestrator/pkg/controllers/migration/decide"
)

func TestMigrationOfABarePod(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	original := w.createOriginal(threeContainers("train").Label("app", "train").Obj())
	w.controller(migration.Options{})
	w.request(keepingClaim(newMigration(w.namespace, "m", "train")))
	m := w.waitForPhase("m", v1alpha1.PhaseSucceeded)

	replacement := w.onlyPod()
	if !strings.HasPrefix(replacement.Name, "train-migrated-") || replacement.UID == original.UID {
		t.Errorf("the pod left is %s", replacement.Name)
	}
	if replacement.Spec.SchedulerName != v1alpha1.SchedulerName || replacement.Spec.NodeName != nodeB || replacement.Labels["app"] != "train" {
		t.Errorf("replacement: scheduler %q, node %q, labels %v", replacement.Spec.SchedulerName, replacement.Spec.NodeName, replacement.Labels)
	}
	var names []string
	for _, c := range replacement.Spec.Containers {
		names = append(names, c.Name)
		mounted := false
		for _, mount := range c.VolumeMounts {
			mounted = mounted || mount.MountPath == v1alpha1.CheckpointMountPath && mount.Name == v1alpha1.CheckpointVolumeName
		}
		if !mounted {
			t.Errorf("container %s does not mount the checkpoint", c.Name)
		}
	}
	if diff := cmp.Diff([]string{"serve", "log"}, names); diff != "" {
		t.Errorf("containers of the replacement (-want +got):\n%s", diff)
	}

	claims := w.claims()
	if len(claims) != 1 || claims[0].Name != m.Status.CheckpointClaim || !strings.HasPrefix(claims[0].Name, "checkpoint-train-") {
		t.Fatalf("claims left: %v", claims)
	}
	if owners := claims[0].OwnerReferences; len(owners) != 0 {
		t.Errorf("owners of the claim = %v, want none: it is to outlive the replacement", owners)
	}
	if claims[0].Labels["app"] != "ai-storage-orchestrator" || claims[0].Labels["component"] != "migration-checkpoint" {
		t.Errorf("labels of the claim = %v", claims[0].Labels)
	}
	checkRecord(t, m)
}

// checkRecord checks what the status of a successful migration tells.
func checkRecord(t *testing.T, m *v1alpha1.PodMigration) {
	t.Helper()
	freed := m.Status.Before.Requests[corev1.ResourceCPU]
	freed.Sub(m.Status.After.Requests[corev1.ResourceCPU])
	if freed.String() != "900m" {
		t.Errorf("requests freed = %s, want 900m", freed.String())
	}
	for name, r := range map[string]*v1alpha1.ResourceRecord{"before": m.Status.Before, "after": m.Status.After} {
		if r.Source != v1alpha1.UsageFromMetricsAPI || r.Usage.Cpu().String() != "400m" || r.Usage.Memory().String() != "30Mi" {
			t.Errorf("%s = %+v, want 400m and 30Mi from metrics.k8s.io", name, r)
		}
	}
	for _, kind := range []string{v1alpha1.ConditionAccepted, v1alpha1.ConditionPrepared, v1alpha1.ConditionPlaced,
		v1alpha1.ConditionReplacementReady, v1alpha1.ConditionCommitted, v1alpha1.ConditionHandedOver, v1alpha1.ConditionMeasured} {
		c := meta.FindStatusCondition(m.Status.Conditions, kind)
		if c == nil || c.Status != "True" || c.ObservedGeneration != m.Generation {
			t.Errorf("condition %s = %+v, want True for generation %d", kind, c, m.Generation)
		}
	}
	times := m.Status.Times
	if times.Started.After(times.Placed.Time) || times.ReplacementReady.After(times.OriginalGone.Time) || times.OriginalGone.After(times.Finished.Time) {
		t.Errorf("the times are not in order: %+v", times)
	}
	if m.Status.Original.NodeName != nodeA || m.Status.Replacement.NodeName != nodeB || len(m.Status.Containers) != 3 {
		t.Errorf("status = %+v", m.Status)
	}
}

func TestNoPlaceIsRolledBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const words = "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) didn't match Pod's node affinity/selector."
	w.change(func(w *world) { w.place, w.refusal = nil, words })
	original := w.createOriginal(threeContainers("train").Obj())
	w.controller(migration.Options{UnschedulableGrace: 300 * time.Millisecond})
	w.request(newMigration(w.namespace, "m", "train"))
	m := w.waitForEnd("m")
	rolledBack := meta.FindStatusCondition(m.Status.Conditions, v1alpha1.ConditionRolledBack)
	if m.Status.Phase != v1alpha1.PhaseFailed || rolledBack == nil || rolledBack.Status != "True" || rolledBack.Reason != decide.ReasonUnschedulable {
		t.Errorf("phase %s, condition %+v", m.Status.Phase, rolledBack)
	}
	if !strings.Contains(m.Status.Message, words) {
		t.Errorf("message = %q, want the scheduler's words", m.Status.Message)
	}
	w.wantUntouched(original)
}

func TestForcedRestartNeverLetsTwoWork(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	original := w.createOriginal(threeContainers("train").Obj())
	w.controller(migration.Options{AgentImage: "docker.io/library/agent:1"})
	m := newMigration(w.namespace, "m", "train")
	m.Spec.ForceRestart = true
	w.request(m)
	m = w.waitForPhase("m", v1alpha1.PhaseSucceeded)
	if h := m.Status.Handover; h == nil || h.Order != v1alpha1.OrderStopFirst || !strings.Contains(h.Reason, "spec.forceRestart") {
		t.Errorf("handover %+v, want %s on request", h, v1alpha1.OrderStopFirst)
	}
	replacement := w.onlyPod()
	if replacement.UID == original.UID || replacement.Spec.NodeName != nodeB {
		t.Errorf("the pod left is %s on node %s", replacement.Name, replacement.Spec.NodeName)
	}
	if p := m.Status.Placeholder; p == nil || p.NodeName != nodeB {
		t.Errorf("placeholder %+v, want one that held the place on node %s", p, nodeB)
	}
	if times := m.Status.Times; times.ReplacementReady.Before(times.OriginalGone) {
		t.Errorf("the replacement worked at %s, before the original was gone at %s", times.ReplacementReady, times.OriginalGone)
	}
}
