package observe

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

func minutesAgo(minutes ...int) (ends []migrationEnd) {
	for i, m := range minutes {
		ends = append(ends, migrationEnd{i, now.Add(-time.Duration(m) * time.Minute)})
	}
	return ends
}

func TestCoolDown(t *testing.T) {
	for _, tt := range []struct {
		name    string
		ends    []migrationEnd
		inARow  int
		minutes int // of the cooldown after the last end
	}{
		{"never moved", nil, 0, 0},
		{"once", minutesAgo(100), 1, 10},
		{"twice", minutesAgo(100, 80), 2, 20},
		{"three times", minutesAgo(150, 100, 50), 3, 40},
		{"as long as it may be", minutesAgo(150, 100, 50, 20), 4, 60},
		{"and no longer", minutesAgo(180, 150, 100, 50, 20), 5, 60},
		{"two hours of rest reset it", minutesAgo(180, 60), 1, 10},
		{"a minute less does not", minutesAgo(179, 60), 2, 20},
		{"at the same moment", minutesAgo(30, 30), 2, 20},
	} {
		inARow, until := coolDown(tt.ends, 10*time.Minute, time.Hour)
		var length time.Duration
		if len(tt.ends) > 0 {
			length = until.Sub(tt.ends[len(tt.ends)-1].at)
		}
		if inARow != tt.inARow || length != time.Duration(tt.minutes)*time.Minute {
			t.Errorf("%s: %d in a row, %s; want %d, %d minutes", tt.name, inARow, length, tt.inARow, tt.minutes)
		}
	}
	if _, until := coolDown(minutesAgo(0), 0, 0); !until.Equal(now) {
		t.Errorf("no cooldown lasts until %s", until)
	}
}

// moved is a migration from one pod name to another that ended minutes ago.
func moved(from, to string, minutes int, owner *metav1.OwnerReference) v1alpha1.PodMigration {
	m := migrationOf(v1alpha1.PhaseSucceeded, now.Add(-time.Duration(minutes)*time.Minute))
	m.Name, m.Spec.PodName = fmt.Sprint(from, minutes), from
	m.Status.Original.Name, m.Status.Replacement.Name = from, to
	if owner != nil {
		m.Status.Handover = &v1alpha1.Handover{Owner: owner}
	}
	return m
}

func TestCooldownFollowsTheWorkload(t *testing.T) {
	set := &metav1.OwnerReference{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "set", Controller: new(true)}
	for name, tt := range map[string]struct {
		change func(*Observation)
		want   []Cooldown
	}{
		"nothing moved": {func(*Observation) {}, []Cooldown{}},
		"a bare pod over three names": {func(r *Observation) {
			r.Pods[0].Name = "p-3"
			r.Pods[0].Annotations = map[string]string{v1alpha1.OriginalPodLabel: "p"}
			r.Migrations = []v1alpha1.PodMigration{moved("p-2", "p-3", 5, nil), moved("p", "p-1", 100, nil), moved("p-1", "p-2", 30, nil)}
		}, []Cooldown{{"Pod/ns/p", 3, now.Add(35 * time.Minute)}}},
		"and when the first migrations were deleted": {func(r *Observation) {
			r.Pods[0].Name = "p-3"
			r.Pods[0].Annotations = map[string]string{v1alpha1.OriginalPodLabel: "p"}
			r.Migrations = []v1alpha1.PodMigration{moved("p-1", "p-2", 30, nil), moved("p-2", "p-3", 5, nil)}
		}, []Cooldown{{"Pod/ns/p", 2, now.Add(15 * time.Minute)}}},
		"another pod of the ReplicaSet": {func(r *Observation) {
			r.Pods[0].OwnerReferences = []metav1.OwnerReference{*set}
			r.Migrations = []v1alpha1.PodMigration{moved("set-a", "set-b", 4, set)}
		}, []Cooldown{{"ReplicaSet/ns/set", 1, now.Add(6 * time.Minute)}}},
		"of another ReplicaSet": {func(r *Observation) {
			r.Pods[0].OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "other", Controller: new(true)}}
			r.Migrations = []v1alpha1.PodMigration{moved("set-a", "set-b", 4, set)}
		}, []Cooldown{}},
		"one that failed before its owner was known": {func(r *Observation) {
			r.Pods[0].OwnerReferences = []metav1.OwnerReference{*set}
			r.Migrations = []v1alpha1.PodMigration{moved("p", "", 4, nil)}
		}, []Cooldown{{"ReplicaSet/ns/set", 1, now.Add(6 * time.Minute)}}},
		"names in a ring": {func(r *Observation) {
			r.Migrations = []v1alpha1.PodMigration{moved("p", "q", 9, nil), moved("q", "p", 8, nil)}
		}, []Cooldown{{"Pod/ns/p", 2, now.Add(12 * time.Minute)}}},
		"cooled down": {func(r *Observation) { r.Migrations = []v1alpha1.PodMigration{moved("p", "p", 10, nil)} }, []Cooldown{}},
		"not ours": {func(r *Observation) {
			r.Pods[0].Spec.SchedulerName = "other"
			r.Migrations = []v1alpha1.PodMigration{moved("p", "p", 1, nil)}
		}, []Cooldown{}},
	} {
		t.Run(name, func(t *testing.T) {
			observation := testObservation()
			tt.change(observation)
			got := Cooldowns(observation, testOptions())
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("cooldowns (-want +got):\n%s", diff)
			}
			if pod := Build(observation, testOptions()).Pods[0]; (len(got) > 0) != (pod.Immovable != "") && name != "not ours" {
				t.Errorf("the pod is immovable: %q", pod.Immovable)
			}
		})
	}
}
