package simulate

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/controllers/migration/decide"
	"github.com/ai-storage/orchestrator/pkg/pods/owners"
)

// Script is a scenario that is written down instead of drawn: a pod, its migration, and
// one thing that happens at a step of it. It is run on the models here and on real nodes
// in package e2e, and must end alike.
type Script struct {
	// Owner makes the pod.
	Owner Owner
	// Carries: the pod keeps its work on an emptyDir, which moves with it.
	Carries bool
	// StopFirst: the original ends before its replacement starts.
	StopFirst bool
	// At is where the controller is held, by the name that it reports: "before Evict".
	At string
	// Act happens while it is held.
	Act Act
	// Brief: it is part of make e2e. The others take the time of make e2e-full.
	Brief bool
}

// Owner is the kind of workload that makes the pod of a Script.
type Owner = ownerKind

// Owners of pods.
const (
	Bare        = bare
	Deployment  = ownedDeployment
	Job         = ownedJob
	StatefulSet = ownedSet
)

// Act is what happens at the step of a Script.
type Act string

// What users do, and that the time of the migration runs out.
const (
	Cancel            Act = "Cancel"
	DeleteMigration   Act = "DeleteMigration"
	TimeOut           Act = "TimeOut"
	Suspend           Act = "Suspend"
	ScaleToZero       Act = "ScaleToZero"
	DeleteOriginal    Act = "DeleteOriginal"
	DeleteReplacement Act = "DeleteReplacement"
	DeletePlaceholder Act = "DeletePlaceholder"
	// FillQuota adds a quota that has no space for another pod.
	FillQuota Act = "Quota"
	RollOut   Act = "RollOut"
	// DeleteOwner deletes the owner and its pods, EvictOriginal evicts it as a drain does.
	DeleteOwner   Act = "DeleteOwner"
	EvictOriginal Act = "EvictOriginal"
	DeleteClaim   Act = "DeleteClaim"
)

// Scripts are those that are held against real nodes: everything that stops a migration, at
// three steps of both orders, of which the last one is behind the commit; and what users do
// to pods and owners.
var Scripts = append(stopped(), []Script{
	{Owner: Job, Carries: true, At: sealing, Act: Suspend, Brief: true},
	{Owner: StatefulSet, Carries: true, StopFirst: true, At: before(decide.Evict), Act: ScaleToZero},
	{Owner: StatefulSet, StopFirst: true, At: before(decide.HoldOriginal), Act: ScaleToZero},
	{Owner: Bare, Carries: true, At: sealing, Act: DeleteReplacement},
	{Owner: Deployment, Carries: true, StopFirst: true, At: before(decide.RemoveSchedulingGate), Act: DeleteReplacement, Brief: true},
	{Owner: Bare, Carries: true, At: releasing, Act: DeleteOriginal},
	{Owner: Deployment, At: before(decide.Commit), Act: DeleteOriginal},
	{Owner: Deployment, Carries: true, At: before(decide.CreateReplacement), Act: FillQuota, Brief: true},
	{Owner: Deployment, At: before(decide.Commit), Act: RollOut},
	{Owner: Job, Carries: true, StopFirst: true, At: before(decide.Evict), Act: DeleteOwner},
	{Owner: StatefulSet, Carries: true, StopFirst: true, At: after(decide.HoldOriginal), Act: EvictOriginal},
	{Owner: Deployment, Carries: true, StopFirst: true, At: before(decide.ProtectClaim), Act: DeleteClaim},
	{Owner: StatefulSet, Carries: true, StopFirst: true, At: before(decide.HoldOriginal), Act: DeletePlaceholder},
	{Owner: Job, Carries: true, StopFirst: true, At: before(decide.NominateReplacement), Act: DeletePlaceholder},
}...)

const (
	sealing   = "checkpoint Seal"
	releasing = "checkpoint Release"
)

func before(step v1alpha1.Step) string { return "before " + string(step) }
func after(step v1alpha1.Step) string  { return "after " + string(step) }

// stopped are a cancellation, a deletion of the record and a timeout, each at three steps of
// both orders.
func stopped() (all []Script) {
	brief := map[Act]string{Cancel: releasing, DeleteMigration: before(decide.HoldOriginal), TimeOut: before(decide.CreateReplacement)}
	for _, s := range []Script{
		{Owner: Deployment, At: before(decide.CreateReplacement)},
		{Owner: Bare, At: sealing},
		{Owner: Job, At: releasing},
		{Owner: Deployment, StopFirst: true, At: after(decide.CreatePlaceholder)},
		{Owner: StatefulSet, StopFirst: true, At: before(decide.HoldOriginal)},
		{Owner: Job, StopFirst: true, At: before(decide.Evict)},
	} {
		for _, act := range []Act{Cancel, DeleteMigration, TimeOut} {
			s.Carries, s.Act, s.Brief = true, act, brief[act] == s.At
			all = append(all, s)
		}
	}
	return all
}

// String names a script.
func (s Script) String() string {
	order, carries := "start first", "carried"
	if s.StopFirst {
		order = "stop first"
	}
	if !s.Carries {
		carries = "nothing carried"
	}
	owner := string(s.Owner)
	if s.Owner == bare {
		owner = "bare pod"
	}
	return fmt.Sprintf("%s, %s, %s: %s %s", owner, carries, order, s.Act, s.At)
}

// scriptTimeout is the timeout of a migration whose time is to run out: enough for real
// nodes that are busy to come to the step.
const scriptTimeout = 40

// Request is the migration that a script asks for.
func (s Script) Request(namespace, name, pod string) *v1alpha1.PodMigration {
	m := &v1alpha1.PodMigration{Spec: v1alpha1.PodMigrationSpec{
		PodName: pod, TimeoutSeconds: 300, Waiting: v1alpha1.WaitingStrip, ForceRestart: s.StopFirst && s.Owner != StatefulSet,
		// The original is frozen while the controller is held.
		Checkpoint: v1alpha1.CheckpointSpec{Mode: v1alpha1.CheckpointFrozen, MaxFreezeSeconds: 180, Claim: v1alpha1.ClaimWhenNeeded, ReclaimPolicy: v1alpha1.ClaimDelete},
	}}
	m.Namespace, m.Name = namespace, name
	if s.Act == TimeOut {
		m.Spec.TimeoutSeconds = scriptTimeout
	}
	return m
}

// Play runs a script on the models. It is an error when its step is not reached, or a
// promise is broken.
func (s Script) Play(seed uint64) (End, error) {
	drawn := s.scenario()
	// What frees a frozen pod must not decide how it ends.
	drawn.cgroupV1 = seed%2 == 0
	r := runDisturbed(Options{Seed: seed}, drawn, nil)
	switch {
	case r.Violation != nil:
		return End{}, fmt.Errorf("%s: %s", s, r.Violation)
	case r.end == nil:
		return End{}, fmt.Errorf("%s: the migration never came there, or it has not happened: %v", s, r.Statistic.Ends)
	}
	return *r.end, nil
}

func (s Script) scenario() *scenario {
	spec := s.Request("", "", "").Spec
	return &scenario{
		script: &s, owner: s.Owner, replicas: 1, nodes: 2, scratch: s.Carries, restart: spec.ForceRestart, claim: spec.Checkpoint.Claim,
		mode: spec.Checkpoint.Mode, budget: -1, timeout: spec.TimeoutSeconds, maxFreeze: spec.Checkpoint.MaxFreezeSeconds, migrations: 1, grace: 5,
		provisioning: 3 * time.Second, copying: time.Second, sealing: time.Second, lateWatch: 3 * time.Second,
	}
}

// player plays a script in a world.
type player struct {
	script   *Script
	original *corev1.Pod
	// held: the controller was at the step. acted: what was to happen there has happened.
	held, acted bool
}

// scriptPause is for how long the controller is held at least.
const scriptPause = time.Second

// reached is called at every step of the controller. At that of the script it is held.
func (w *world) reached(step string) error {
	p := w.player
	if p == nil || p.held || p.script.At != step {
		return nil
	}
	p.held = true
	w.say(userActor, "-- %s %s", p.script.Act, step)
	w.disturb(Disturbance{Kind: string(p.script.Act), Lasts: 24 * time.Hour})
	w.running.sleep(scriptPause)
	var m *v1alpha1.PodMigration
	each(w.store, migrations, func(found *v1alpha1.PodMigration) { m = found })
	isDone := func() bool {
		original, _ := w.byUID[p.original.UID].(*corev1.Pod)
		return p.script.IsDone(m, original, lookup[*corev1.Pod](w.store, pods, namespace, replacementName(m)), w.clock())
	}
	for waited := scriptPause; waited < 2*time.Minute && !p.acted; waited += scriptPause {
		if p.acted = isDone(); !p.acted {
			w.running.sleep(scriptPause)
		}
	}
	return nil
}

func replacementName(m *v1alpha1.PodMigration) string {
	if m == nil || m.Status.Replacement == nil {
		return ""
	}
	return m.Status.Replacement.Name
}

// IsDone reports whether what happens at the step has happened, so that the controller may
// continue: its time has run out, or the pod that its owner deletes is gone, or is leaving
// and kept by the migration: by a finalizer, or frozen. Of the pods each is nil when there
// is none.
func (s Script) IsDone(m *v1alpha1.PodMigration, original, replacement *corev1.Pod, now time.Time) bool {
	switch s.Act {
	case TimeOut:
		return now.After(m.Status.Times.Started.Add(time.Duration(m.Spec.TimeoutSeconds) * time.Second))
	case Suspend, ScaleToZero, RollOut, DeleteOriginal, DeleteOwner, EvictOriginal:
		deleted := original
		if original != nil && owners.IsReleased(original) {
			// Its owner looks at the replacement alone.
			deleted = replacement
		}
		return deleted == nil || deleted.DeletionTimestamp != nil && (s.Carries || slices.Contains(deleted.Finalizers, v1alpha1.HoldFinalizer))
	}
	return true
}

// scriptEnd reads the end of the script from the store; nil when what was to happen has not.
func (w *world) scriptEnd() *End {
	if !w.player.acted {
		return nil
	}
	o := Objects{Original: w.player.original, Owner: w.topOwner()}
	each(w.store, migrations, func(m *v1alpha1.PodMigration) { o.Migration = m })
	each(w.store, claims, func(c *corev1.PersistentVolumeClaim) {
		if c.Name != "bystander" {
			o.Claims = append(o.Claims, *c)
		}
	})
	each(w.store, pods, func(p *corev1.Pod) {
		if p.Name != "bystander" {
			o.Pods = append(o.Pods, *p)
		}
	})
	end := o.End(func(p *corev1.Pod) bool {
		i := w.instance(p.UID)
		i.settle()
		return i.makesProgress() && i.lineage == w.work.ofPod[o.Original.UID] && i.volume >= i.lineage.acknowledged
	})
	return &end
}
