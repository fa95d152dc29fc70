package kubectl

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

func TestCancel(t *testing.T) {
	b := newBench(t, trainer().Obj(), node("node-a"), through(asked("m", 0), accept))
	golden(t, "cancel-dry-run", b.run("cancel", "m", "--dry-run"))
	if b.migration("m").Spec.Cancel {
		t.Error("the dry run has cancelled the migration")
	}
	done := b.control("m", cancelled)
	golden(t, "cancel", b.run("cancel", "podmigration/m", "--wait"))
	<-done
	if !b.migration("m").Spec.Cancel {
		t.Error("the migration was not cancelled")
	}
}

func TestCancelTooLate(t *testing.T) {
	released := func(m *v1alpha1.PodMigration) {
		condition(m, v1alpha1.ConditionCommitted, metav1.ConditionTrue, "Released", "the replacement continues with the carried state")
	}
	evicted := func(m *v1alpha1.PodMigration) {
		condition(m, v1alpha1.ConditionCommitted, metav1.ConditionTrue, "Evicting", "the original is about to be evicted")
	}
	withdrawn := func(m *v1alpha1.PodMigration) {
		condition(m, v1alpha1.ConditionCommitted, metav1.ConditionFalse, "Withdrawn", "a budget holds the original")
	}
	ending := trainer().With(func(p *corev1.Pod) {
		now := metav1.NewTime(noon)
		p.DeletionTimestamp, p.Finalizers = &now, []string{"test/hold"}
	}).Obj()
	b := newBench(t, ending, node("node-a"), node("node-b"),
		through(asked("succeeded", 0), accept, place, handOver, succeed), through(asked("released", 0), accept, place, handOver, released),
		through(asked("withdrawn", 0), accept, place, handOver, withdrawn), through(asked("evicted", 0), accept, place, handOver, evicted),
		through(asked("early", 0), accept))
	golden(t, "cancel-too-late", b.run("cancel", "succeeded", "released", "evicted", "withdrawn", "early"))
	for _, name := range []string{"succeeded", "released", "evicted"} {
		if b.migration(name).Spec.Cancel {
			t.Errorf("%s was cancelled", name)
		}
	}
	if !b.migration("early").Spec.Cancel || !b.migration("withdrawn").Spec.Cancel {
		t.Error("one that is too late stands in the way of the others")
	}
}

func TestCancelLosesTheRace(t *testing.T) {
	b := newBench(t, trainer().Obj(), node("node-a"), node("node-b"), through(asked("m", 0), accept))
	b.control("m", place, handOver, succeed)
	if got := b.run("cancel", "m", "--wait"); got.code != ExitRefused || !strings.Contains(got.err, "was committed already") {
		t.Error(got)
	}
}
