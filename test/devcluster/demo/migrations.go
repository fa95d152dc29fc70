package demo

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	resourcehelper "k8s.io/component-helpers/resource"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods/reclaimed"
)

// tally sums up the PodMigrations there are.
type tally struct {
	inFlight, succeeded, failed int
	// failures are the messages of those that failed or were cancelled.
	failures []string
	// last is when the latest one was created or finished.
	last time.Time
	// freed are the requests that replacements no longer ask for.
	freedCPU, freedMemory resource.Quantity
	// reclaimed are requests of pods that stayed where they are.
	reclaimedCPU, reclaimedMemory resource.Quantity
}

func readTally(ctx context.Context, reader client.Reader) (tally, error) {
	var migrations v1alpha1.PodMigrationList
	if err := reader.List(ctx, &migrations); err != nil {
		return tally{}, fmt.Errorf("read migrations: %w", err)
	}
	var pods corev1.PodList
	if err := reader.List(ctx, &pods, client.InNamespace(metav1.NamespaceDefault)); err != nil {
		return tally{}, fmt.Errorf("read pods: %w", err)
	}
	t := newTally(migrations.Items)
	return t, t.addReclaimed(pods.Items)
}

// addReclaimed adds up by how much pods request less than at first. A pod that
// moved does not count: its migration records what it requested at first.
func (t *tally) addReclaimed(pods []corev1.Pod) error {
	for i := range pods {
		original, err := reclaimed.Original(&pods[i])
		if err != nil {
			return err
		}
		before, now := specRequests(original), specRequests(&pods[i])
		for name, sum := range map[corev1.ResourceName]*resource.Quantity{
			corev1.ResourceCPU: &t.reclaimedCPU, corev1.ResourceMemory: &t.reclaimedMemory,
		} {
			sum.Add(before[name])
			sum.Sub(now[name])
		}
	}
	return nil
}

func specRequests(pod *corev1.Pod) corev1.ResourceList {
	return resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{})
}

func newTally(migrations []v1alpha1.PodMigration) tally {
	var t tally
	for i := range migrations {
		m := &migrations[i]
		t.touch(m.CreationTimestamp.Time)
		if finished := m.Status.Times.Finished; finished != nil {
			t.touch(finished.Time)
		}
		switch {
		case m.Status.Phase == v1alpha1.PhaseSucceeded:
			t.succeeded++
			t.addFreed(m.Status.Before, m.Status.After)
		case m.Status.Phase.IsFinished():
			t.failed++
			t.failures = append(t.failures, fmt.Sprintf("%s: %s", m.Spec.PodName, m.Status.Message))
		default:
			t.inFlight++
		}
	}
	return t
}

func (t *tally) touch(moment time.Time) {
	if moment.After(t.last) {
		t.last = moment
	}
}

func (t *tally) addFreed(before, after *v1alpha1.ResourceRecord) {
	if before == nil || after == nil {
		return
	}
	for name, sum := range map[corev1.ResourceName]*resource.Quantity{
		corev1.ResourceCPU: &t.freedCPU, corev1.ResourceMemory: &t.freedMemory,
	} {
		sum.Add(before.Requests[name])
		sum.Sub(after.Requests[name])
	}
}
