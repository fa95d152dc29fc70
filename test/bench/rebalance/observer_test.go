package main

import (
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// tiny has one workload of two replicas that use 1 and 2 cores on node A of 4
// cores; node B of 8 cores is empty. In sample 1 they use twice as much.
func tiny() *fixture {
	s := &scenario{nodes: []*node{{name: "A", shape: shape{size: amounts{milliCPU: 4000}}}, {name: "B", shape: shape{size: amounts{milliCPU: 8000}}}}}
	for i, use := range []float64{1000, 2000} {
		s.replicas = append(s.replicas, &replica{slot: slot{"w", i}, start: "A", milliCPU: []float64{use, 2 * use}})
	}
	return &fixture{scenario: s, uids: []string{"uid-0", "uid-1"}}
}

func seenPod(uid, node string, phase corev1.PodPhase, changes ...func(*corev1.Pod)) *corev1.Pod {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "name-of-" + uid, UID: types.UID(uid), Labels: map[string]string{workloadLabel: "w"}, Annotations: map[string]string{}},
		Spec:       corev1.PodSpec{NodeName: node}, Status: corev1.PodStatus{Phase: phase},
	}
	for _, change := range changes {
		change(pod)
	}
	return pod
}

func ending(pod *corev1.Pod) { pod.DeletionTimestamp = &metav1.Time{Time: time.Now()} }

func replaces(uid string) func(*corev1.Pod) {
	return func(pod *corev1.Pod) { pod.Annotations[v1alpha1.OriginalUIDAnnotation] = uid }
}

func TestObserverFollowsAnEviction(t *testing.T) {
	var slotted []string
	o := newObserver(tiny(), func(name string, r *replica) { slotted = append(slotted, name+" "+r.String()) })
	if p := o.measure(0, 0, 0.7); p.Deviation != 37.5 || p.Mean != 37.5 || p.Max != 75 || p.Overutilized != 1 || p.Moves != 0 {
		t.Errorf("at the start %+v", p)
	}
	o.see(seenPod("uid-0", "A", corev1.PodRunning))
	o.see(seenPod("uid-1", "A", corev1.PodRunning))
	o.see(seenPod("uid-1", "A", corev1.PodRunning, ending))
	o.see(seenPod("uid-2", "", corev1.PodPending))
	o.seeGone(seenPod("uid-1", "A", corev1.PodRunning, ending))
	if p := o.measure(time.Second, 0, 0.7); p.Down != 1 || p.Max != 25 {
		t.Errorf("while the successor waits %+v", p)
	}
	o.see(seenPod("uid-2", "B", corev1.PodRunning))
	if p := o.measure(time.Minute, 1, 0.7); p.Down != 0 || p.Deviation != 0 || p.Mean != 50 || p.Skipped != 75 || p.Moves != 1 {
		t.Errorf("after the eviction %+v", p)
	}
	if !slices.Equal(slotted, []string{"name-of-uid-2 w/1"}) {
		t.Errorf("slotted %v", slotted)
	}
	if pods := o.present(); len(pods) != 2 || pods["name-of-uid-2"].Index != 1 {
		t.Errorf("present %v", pods)
	}
}

func TestObserverFollowsAMigration(t *testing.T) {
	o := newObserver(tiny(), nil)
	o.see(seenPod("uid-2", "B", corev1.PodPending, replaces("uid-1")))
	o.see(seenPod("place", "B", corev1.PodRunning, func(pod *corev1.Pod) { pod.Labels[v1alpha1.RoleLabel] = v1alpha1.RolePlaceholder }))
	o.see(seenPod("uid-2", "B", corev1.PodRunning, replaces("uid-1")))
	if p := o.measure(0, 0, 0.7); p.Max != 75 || p.Mean != 50 {
		t.Errorf("while both run %+v", p)
	}
	o.see(seenPod("uid-1", "A", corev1.PodRunning, ending))
	o.seeGone(seenPod("uid-1", "A", corev1.PodRunning))
	moves, strangers := o.moves()
	if len(moves) != 1 || moves[0].Replica != 1 || moves[0].To != "B" || strangers != 0 {
		t.Errorf("moves %+v, %d strangers", moves, strangers)
	}
}
