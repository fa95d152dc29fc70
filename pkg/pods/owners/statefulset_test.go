package owners_test

import (
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/ai-storage/orchestrator/pkg/pods/owners"
)

// updating is a StatefulSet of three pods, Ready all of them, of which some are of
// revision r2 already.
func updating(strategy appsv1.StatefulSetUpdateStrategyType, partition *int32, updated int32, changes ...func(*appsv1.StatefulSet)) owners.Owner {
	return statefulSetOwner(func(s *appsv1.StatefulSet) {
		s.Spec.UpdateStrategy.Type = strategy
		if partition != nil {
			s.Spec.UpdateStrategy.RollingUpdate = &appsv1.RollingUpdateStatefulSetStrategy{Partition: partition}
		}
		s.Status.UpdateRevision, s.Status.UpdatedReplicas, s.Status.CurrentReplicas = "r2", updated, 3-updated
		for _, change := range changes {
			change(s)
		}
	})
}

const (
	onDelete = appsv1.OnDeleteStatefulSetStrategyType
	rolling  = appsv1.RollingUpdateStatefulSetStrategyType
)

func TestStatefulSetAtRest(t *testing.T) {
	for name, test := range map[string]struct {
		owner owners.Owner
		waits string
	}{
		"OnDelete, all are updated":        {updating(onDelete, nil, 3), ""},
		"OnDelete, some are updated":       {updating(onDelete, nil, 1), ""},
		"OnDelete, none is updated":        {updating(onDelete, nil, 0), ""},
		"OnDelete, was not looked at":      {updating(onDelete, nil, 3, func(s *appsv1.StatefulSet) { s.Generation = 2 }), "has changed"},
		"OnDelete, one is away":            {updating(onDelete, nil, 3, func(s *appsv1.StatefulSet) { s.Status.ReadyReplicas = 2 }), "2 of 3 pods"},
		"OnDelete, is scaled":              {updating(onDelete, nil, 3, func(s *appsv1.StatefulSet) { s.Status.Replicas = 2 }), "scaled"},
		"rolling":                          {updating(rolling, nil, 2), "a rollout of StatefulSet db is in flight: 2 of 3"},
		"rolling, over but for the status": {updating(rolling, nil, 3), ""},
		"partition, those above are due":   {updating(rolling, new(int32(1)), 1), "1 of 2 pods"},
		"partition, those above are done":  {updating(rolling, new(int32(1)), 2), ""},
		"partition above all":              {updating(rolling, new(int32(9)), 0), ""},
		"partition of none":                {updating(rolling, new(int32(0)), 2), "2 of 3 pods"},
		"not for long enough": {updating(onDelete, nil, 3, func(s *appsv1.StatefulSet) {
			s.Spec.MinReadySeconds, s.Status.AvailableReplicas = 10, 2
		}), "minReadySeconds"},
		"for long enough": {updating(onDelete, nil, 3, func(s *appsv1.StatefulSet) {
			s.Spec.MinReadySeconds, s.Status.AvailableReplicas = 10, 3
		}), ""},
	} {
		t.Run(name, func(t *testing.T) { wantSentence(t, owners.InFlight(test.owner), test.waits) })
	}
}

// A move makes the StatefulSet create the pod: it must be the pod that was there.
func TestAMoveKeepsTheRevision(t *testing.T) {
	from5 := func(s *appsv1.StatefulSet) { s.Spec.Ordinals = &appsv1.StatefulSetOrdinals{Start: 5} }
	for name, test := range map[string]struct {
		owner    owners.Owner
		pod      string
		revision string
		refused  bool
	}{
		"OnDelete, updated":                          {updating(onDelete, nil, 1), "db-0", "r2", false},
		"OnDelete, older":                            {updating(onDelete, nil, 1), "db-0", "r1", true},
		"OnDelete, was not looked at":                {updating(onDelete, nil, 1, func(s *appsv1.StatefulSet) { s.Generation = 2 }), "db-0", "r1", false},
		"OnDelete, unlabelled, all are updated":      {updating(onDelete, nil, 3), "db-0", "", false},
		"OnDelete, unlabelled, who knows":            {updating(onDelete, nil, 1), "db-0", "", true},
		"below the partition":                        {updating(rolling, new(int32(2)), 1), "db-1", "r1", false},
		"below the partition, updated before":        {updating(rolling, new(int32(2)), 2), "db-1", "r2", true},
		"from the partition on":                      {updating(rolling, new(int32(2)), 1), "db-2", "r2", false},
		"from the partition on, about to be updated": {updating(rolling, new(int32(2)), 0), "db-2", "r1", false},
		"a rollout, about to be updated":             {updating(rolling, nil, 2), "db-2", "r1", false},
		"ordinals from 5, below the partition":       {updating(rolling, new(int32(2)), 1, from5), "db-6", "r1", false},
		"ordinals from 5, below, updated before":     {updating(rolling, new(int32(2)), 1, from5), "db-6", "r2", true},
		"ordinals from 5, from the partition on":     {updating(rolling, new(int32(2)), 1, from5), "db-7", "r2", false},
		"no rollout":                                 {statefulSetOwner(asIs), "db-1", "r1", false},
	} {
		t.Run(name, func(t *testing.T) {
			pod := podOf(test.owner.Reference, func(p *corev1.Pod) { p.Name = test.pod })
			if test.revision != "" {
				labelled(appsv1.StatefulSetRevisionLabel, test.revision)(pod)
			}
			r := owners.Refuse(pod, test.owner)
			if (r != nil) != test.refused || r != nil && r.Reason != owners.RefusalOwnerUpdates {
				t.Errorf("refused: %+v, want %v", r, test.refused)
			}
		})
	}
}
