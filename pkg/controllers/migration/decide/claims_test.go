package decide

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// asking is a scene in which a move with this claim policy, order and mode is asked for, of
// a pod that carries state or does not, and has brought along a claim of this access mode;
// "" for none.
func asking(policy v1alpha1.ClaimPolicy, order v1alpha1.HandoverOrder, mode v1alpha1.CheckpointMode, brought corev1.PersistentVolumeAccessMode) *scene {
	return carrying(v1alpha1.PhasePending).with(func(s *scene) {
		spec := &s.Migration.Spec
		spec.Checkpoint.Claim, spec.Checkpoint.Mode, spec.ForceRestart = policy, mode, order == v1alpha1.OrderStopFirst
		if mode == v1alpha1.CheckpointProcess {
			withProcesses(s)
		}
		if mode == v1alpha1.CheckpointApplication {
			s.Pod.Spec.Volumes = nil // nobody carries scratch volumes then
			s.Pod.Spec.Containers[1].VolumeMounts = nil
		}
		if brought == "" {
			return
		}
		metav1.SetMetaDataAnnotation(&s.Pod.ObjectMeta, v1alpha1.CheckpointClaimAnnotation, "old")
		s.Pod.Spec.Volumes = append(s.Pod.Spec.Volumes, corev1.Volume{Name: v1alpha1.CheckpointVolumeName, VolumeSource: fixture.Claim("old")})
		serve := &s.Pod.Spec.Containers[1]
		serve.VolumeMounts = append(serve.VolumeMounts, corev1.VolumeMount{Name: v1alpha1.CheckpointVolumeName, MountPath: v1alpha1.CheckpointMountPath})
		old := fixture.MakeClaim("old", brought)
		old.Labels = map[string]string{v1alpha1.ComponentLabel: v1alpha1.ComponentLabelValue}
		s.Claims = func(string) (*corev1.PersistentVolumeClaim, *corev1.PersistentVolume) { return old, nil }
	})
}

// Which claim a migration has: one that it makes, the one that the pod brought along, or none.
func TestClaimOfAMigration(t *testing.T) {
	const (
		always, whenNeeded, never = v1alpha1.ClaimAlways, v1alpha1.ClaimWhenNeeded, v1alpha1.ClaimNever
		startFirst, stopFirst     = v1alpha1.OrderStartFirst, v1alpha1.OrderStopFirst
		frozen, live, process     = v1alpha1.CheckpointFrozen, v1alpha1.CheckpointLive, v1alpha1.CheckpointProcess
		none, application         = v1alpha1.CheckpointNone, v1alpha1.CheckpointApplication
		forOne, forAll            = corev1.ReadWriteOnce, corev1.ReadWriteMany
		made, reused              = "made", "reused"
	)
	for _, test := range []struct {
		policy  v1alpha1.ClaimPolicy
		order   v1alpha1.HandoverOrder
		mode    v1alpha1.CheckpointMode
		brought corev1.PersistentVolumeAccessMode
		// want is which claim the migration has, own whether the pod keeps the one that it
		// brought along.
		wantOrder v1alpha1.HandoverOrder
		want      string
		own       bool
	}{
		{"", startFirst, "", "", startFirst, "", false},
		{whenNeeded, startFirst, frozen, "", startFirst, "", false},
		{whenNeeded, startFirst, live, "", startFirst, "", false},
		{whenNeeded, startFirst, process, "", startFirst, "", false},
		{whenNeeded, startFirst, none, "", startFirst, "", false},
		{"", stopFirst, "", "", stopFirst, made, false},
		{whenNeeded, stopFirst, frozen, "", stopFirst, made, false},
		{whenNeeded, stopFirst, live, "", stopFirst, made, false},
		{whenNeeded, stopFirst, none, "", stopFirst, "", false},
		{always, startFirst, frozen, "", startFirst, made, false},
		{always, startFirst, process, "", startFirst, made, false},
		{always, startFirst, none, "", startFirst, made, false},
		{always, stopFirst, frozen, "", stopFirst, made, false},
		{always, stopFirst, none, "", stopFirst, made, false},
		{never, startFirst, frozen, "", startFirst, "", false},
		{never, stopFirst, frozen, "", stopFirst, "", false},
		{never, stopFirst, none, "", stopFirst, "", false},

		// Many nodes can use it: it is that of this migration too.
		{whenNeeded, startFirst, frozen, forAll, startFirst, reused, false},
		{whenNeeded, stopFirst, frozen, forAll, stopFirst, reused, false},
		{always, startFirst, none, forAll, startFirst, reused, false},
		{never, startFirst, frozen, forAll, startFirst, reused, false},
		// One node can use it: it is a volume like any other, and holds the pod back.
		{whenNeeded, startFirst, frozen, forOne, stopFirst, made, true},
		{whenNeeded, startFirst, none, forOne, stopFirst, "", true},
		{always, startFirst, frozen, forOne, stopFirst, made, true},
		{always, startFirst, none, forOne, stopFirst, "", true},
		{never, startFirst, frozen, forOne, stopFirst, "", true},
		{whenNeeded, startFirst, frozen, corev1.ReadWriteOncePod, stopFirst, made, true},
		// The application saves to the claim of its author.
		{whenNeeded, startFirst, application, forOne, stopFirst, reused, false},
		{always, startFirst, application, forAll, stopFirst, reused, false},
		{never, startFirst, application, corev1.ReadWriteOncePod, stopFirst, reused, false},
	} {
		name := strings.Join([]string{string(test.policy), string(test.order), string(test.mode), string(test.brought)}, ", ")
		s := asking(test.policy, test.order, test.mode, test.brought)
		if d := next(t, s.State); d.Step != AskBudget {
			t.Errorf("%s: refused: %s", name, d.Status.Message)
			continue
		}
		d, err := settle(t, s.State, Result{Admitted: true})
		if err != nil {
			t.Fatal(err)
		}
		c, got := d.Status.Checkpoint, ""
		switch claim := d.Status.CheckpointClaim; {
		case c.ClaimReused && claim == "old":
			got = reused
		case claim != "" && claim != "old":
			got = made
		}
		if d.Status.Handover.Order != test.wantOrder || got != test.want || (c.PreviousClaim == "old") != test.own {
			t.Errorf("%s: order %s, claim %q (%s), previous %q; want %s, %s, kept: %t", name, d.Status.Handover.Order, got, d.Status.CheckpointClaim, c.PreviousClaim, test.wantOrder, test.want, test.own)
		}
	}
}

// A claim that nothing would provision is found before anything is done.
func TestAClaimNeedsAStorageClass(t *testing.T) {
	const always, whenNeeded, never = v1alpha1.ClaimAlways, v1alpha1.ClaimWhenNeeded, v1alpha1.ClaimNever
	retained := func(s *scene) { s.Migration.Spec.Checkpoint.ReclaimPolicy = v1alpha1.ClaimRetain }
	for name, test := range map[string]struct {
		policy v1alpha1.ClaimPolicy
		order  v1alpha1.HandoverOrder
		change func(*scene)
		says   string
	}{
		"none is made":                  {whenNeeded, v1alpha1.OrderStartFirst, nil, ""},
		"none, though it stops first":   {never, v1alpha1.OrderStopFirst, nil, ""},
		"it stops first":                {whenNeeded, v1alpha1.OrderStopFirst, nil, "what is in work needs a checkpoint claim, and the cluster has no default StorageClass"},
		"it stops first, nobody said":   {"", v1alpha1.OrderStopFirst, nil, "spec.checkpoint.claim: Never"},
		"asked for":                     {always, v1alpha1.OrderStartFirst, nil, "spec.checkpoint asks for a checkpoint claim"},
		"to be kept":                    {whenNeeded, v1alpha1.OrderStartFirst, retained, "spec.checkpoint.storageClassName"},
		"the one that is named is none": {always, v1alpha1.OrderStartFirst, func(s *scene) { s.Migration.Spec.Checkpoint.StorageClassName = ptr.To("gone") }, "StorageClass gone does not exist"},
		"there is one":                  {always, v1alpha1.OrderStopFirst, func(s *scene) { s.HasStorageClass = true }, ""},
	} {
		s := asking(test.policy, test.order, v1alpha1.CheckpointFrozen, "").with(func(s *scene) { s.HasStorageClass = false })
		if test.change != nil {
			s.with(test.change)
		}
		d := next(t, s.State)
		c := ptr.Deref(meta.FindStatusCondition(d.Status.Conditions, v1alpha1.ConditionAccepted), metav1.Condition{})
		if isRefused := c.Reason == ReasonNoStorageClass; isRefused != (test.says != "") || !strings.Contains(c.Message, test.says) || isRefused && d.Status.Phase != v1alpha1.PhaseFailed {
			t.Errorf("%s: %q, %s; want %q", name, c.Reason, c.Message, test.says)
		}
	}
}

// A placeholder brings the claim of the migration to its node, and no claim that the
// original uses.
func TestThePlaceholderHoldsTheClaim(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*scene)
		want   string
	}{
		"made":                     {func(*scene) {}, "checkpoint"},
		"none":                     {func(s *scene) { s.Claim, s.Migration.Status.CheckpointClaim = nil, "" }, ""},
		"shared with the original": {func(s *scene) { s.Migration.Status.Checkpoint.ClaimReused = true }, "checkpoint"},
		"the application's, of one pod": {func(s *scene) {
			s.Migration.Status.Checkpoint = &v1alpha1.CheckpointStatus{Mode: v1alpha1.CheckpointApplication, ClaimReused: true}
		}, ""},
	} {
		s := stopFirst(carrying(v1alpha1.PhasePlacing), v1alpha1.MethodCreate).with(withoutReplacement).with(test.change)
		s.Placeholder, s.Migration.Status.Placeholder = nil, &v1alpha1.PodReference{Name: "placeholder"}
		d := next(t, s.State)
		made := podOf(d)
		if d.Step != CreatePlaceholder || made == nil {
			t.Fatalf("%s: step %s", name, d.Step)
		}
		got := ""
		for _, v := range made.Spec.Volumes {
			got += v.PersistentVolumeClaim.ClaimName
		}
		if got != test.want {
			t.Errorf("%s: the placeholder mounts %q, want %q", name, got, test.want)
		}
	}
}

// Without a claim a disk of the node where the place was held has the state alone: the
// replacement goes there, or nowhere.
func TestAReplacementFollowsItsState(t *testing.T) {
	for claim, operators := range map[string]int{"": 2, "checkpoint": 1} {
		s := stopFirst(carrying(v1alpha1.PhasePlacing), v1alpha1.MethodCreate).with(withoutReplacement).destination(v1alpha1.DestinationWarm, 1)
		s.Migration.Status.CheckpointClaim = claim
		d := next(t, s.State)
		made := podOf(d)
		if d.Step != CreateReplacement || made == nil {
			t.Fatalf("claim %q: step %s, %s", claim, d.Step, d.Status.Message)
		}
		required := made.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms[0].MatchFields
		if len(required) != operators || claim == "" && required[1].Values[0] != "b" {
			t.Errorf("claim %q: the replacement requires %+v", claim, required)
		}
	}
}

// The record of a migration says which node has the state, and no time to live removes it.
func TestARecordOfAStateThatWaitsStays(t *testing.T) {
	s := sealedAndGone(v1alpha1.MethodCreate).with(func(s *scene) {
		s.Replacement, s.Claim, s.Migration.Status.CheckpointClaim = nil, nil, ""
		s.Migration.Spec.TTLSecondsAfterFinished = new(int32(1))
	})
	d := next(t, s.State)
	if d.Status.Phase != v1alpha1.PhaseFailed || !strings.Contains(d.Status.Message, "waits on node b") {
		t.Fatalf("phase %s: %s", d.Status.Phase, d.Status.Message)
	}
	s.Migration.Status, s.Migration.Finalizers, s.Now = d.Status, nil, t0.Add(time.Hour)
	if !s.Migration.StateWaits() {
		t.Error("an agent would remove the state")
	}
	if d := next(t, s.State); d.Action != nil {
		t.Errorf("step %s", d.Step)
	}
	failed := &scene{State{Migration: in(v1alpha1.PhasePending).Migration, Failed: s.Migration}}
	if r := copyIsKept(&failed.State); r == nil || !strings.Contains(r.Message, "a disk of node b alone has") {
		t.Errorf("refused with %+v", r)
	}
}
