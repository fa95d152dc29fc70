package decide

import (
	"reflect"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// copyOf copies all that a state points to, but what its Claims find.
func copyOf(s State) State {
	s.Migration = s.Migration.DeepCopy()
	for _, pod := range []**corev1.Pod{&s.Pod, &s.Replacement, &s.Placeholder} {
		*pod = (*pod).DeepCopy()
	}
	s.Failed = s.Failed.DeepCopy()
	s.Claim, s.PreviousClaim, s.StrayClaim = s.Claim.DeepCopy(), s.PreviousClaim.DeepCopy(), s.StrayClaim.DeepCopy()
	s.Owner.Reference, s.Owner.ReplicaSet, s.Owner.Deployment = s.Owner.Reference.DeepCopy(), s.Owner.ReplicaSet.DeepCopy(), s.Owner.Deployment.DeepCopy()
	s.Owner.StatefulSet, s.Owner.Job = s.Owner.StatefulSet.DeepCopy(), s.Owner.Job.DeepCopy()
	s.Budgets, s.Siblings, s.Others, s.Strays = slices.Clone(s.Budgets), slices.Clone(s.Siblings), slices.Clone(s.Others), slices.Clone(s.Strays)
	s.Nodes, s.Neighbours, s.DropAnnotations = slices.Clone(s.Nodes), slices.Clone(s.Neighbours), slices.Clone(s.DropAnnotations)
	for i := range s.Nodes {
		s.Nodes[i] = s.Nodes[i].DeepCopy()
	}
	for i := range s.Neighbours {
		s.Neighbours[i] = *s.Neighbours[i].DeepCopy()
	}
	s.PullSecrets, s.MissingPullSecrets = slices.Clone(s.PullSecrets), slices.Clone(s.MissingPullSecrets)
	for i := range s.Strays {
		s.Strays[i] = *s.Strays[i].DeepCopy()
	}
	for i := range s.Siblings {
		s.Siblings[i] = *s.Siblings[i].DeepCopy()
	}
	for i := range s.Others {
		s.Others[i] = *s.Others[i].DeepCopy()
	}
	return s
}

// A field that is added to State must be copied, or changes of it would not be seen.
func TestCopyOfCopiesEverything(t *testing.T) {
	var s State
	for _, value := range []reflect.Value{reflect.ValueOf(&s).Elem(), reflect.ValueOf(&s.Owner).Elem()} {
		for i := range value.NumField() {
			switch field := value.Field(i); field.Kind() {
			case reflect.Pointer:
				field.Set(reflect.New(field.Type().Elem()))
			case reflect.Slice:
				field.Set(reflect.MakeSlice(field.Type(), 1, 1))
			}
		}
	}
	c := copyOf(s)
	for name, pair := range map[string][2]reflect.Value{"State": {reflect.ValueOf(s), reflect.ValueOf(c)}, "Owner": {reflect.ValueOf(s.Owner), reflect.ValueOf(c.Owner)}} {
		for i := range pair[0].NumField() {
			kind := pair[0].Field(i).Kind()
			if (kind == reflect.Pointer || kind == reflect.Slice) && pair[0].Field(i).Pointer() == pair[1].Field(i).Pointer() {
				t.Errorf("copyOf shares %s.%s", name, pair[0].Type().Field(i).Name)
			}
		}
	}
}

// unchanged runs a function on a state, and fails when it has changed the state.
func unchanged(t *testing.T, s State, f func(State)) {
	t.Helper()
	before := copyOf(s)
	type found struct {
		Claim  *corev1.PersistentVolumeClaim
		Volume *corev1.PersistentVolume
	}
	var claims, copies []found
	watched := s
	if s.Claims != nil {
		watched.Claims = func(name string) (*corev1.PersistentVolumeClaim, *corev1.PersistentVolume) {
			claim, volume := s.Claims(name)
			claims, copies = append(claims, found{claim, volume}), append(copies, found{claim.DeepCopy(), volume.DeepCopy()})
			return claim, volume
		}
	}
	f(watched)
	if diff := cmp.Diff(before, s, cmpopts.IgnoreFields(State{}, "Claims")); diff != "" {
		t.Errorf("the state was changed:\n%s", diff)
	}
	if diff := cmp.Diff(copies, claims); diff != "" {
		t.Errorf("a claim or its volume was changed:\n%s", diff)
	}
}

// next is Next, which must be pure: it changes nothing, and the same state gives
// the same decision, however often it is asked.
func next(t *testing.T, s State) Decision {
	t.Helper()
	var d Decision
	unchanged(t, s, func(s State) {
		d = Next(s)
		for range 3 {
			if diff := cmp.Diff(d, Next(s)); diff != "" {
				t.Errorf("the same state gives another decision:\n%s", diff)
			}
		}
	})
	return d
}

// settle is Settle for what next decides, and must be pure as well.
func settle(t *testing.T, s State, r Result) (Decision, error) {
	t.Helper()
	return settleDecision(t, s, next(t, s), r)
}

func settleDecision(t *testing.T, s State, d Decision, r Result) (settled Decision, err error) {
	t.Helper()
	before := describe(s, d)
	created := r.Created.DeepCopy()
	unchanged(t, s, func(s State) {
		settled, err = Settle(s, d, r)
		if again, _ := Settle(s, d, r); !cmp.Equal(settled, again) {
			t.Errorf("the same answer gives another decision:\n%s", cmp.Diff(settled, again))
		}
	})
	if diff := cmp.Diff(before, describe(s, d)); diff != "" {
		t.Errorf("the decision was changed:\n%s", diff)
	}
	if diff := cmp.Diff(created, r.Created); diff != "" {
		t.Errorf("the result was changed:\n%s", diff)
	}
	return settled, err
}

// Many calls on one state, as of a controller that does nothing else.
func TestNextIsPure(t *testing.T) {
	unplaced := carrying(v1alpha1.PhasePlacing).with(withProcesses).with(func(s *scene) { s.Replacement = unscheduled(0).Obj() })
	first := next(t, unplaced.State)
	for range 100 {
		if diff := cmp.Diff(first, next(t, unplaced.State)); diff != "" {
			t.Fatalf("the same state gives another decision:\n%s", diff)
		}
	}
}
