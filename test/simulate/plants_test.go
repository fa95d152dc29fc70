package simulate

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/node/agent/decide"
	"github.com/ai-storage/orchestrator/pkg/pods/owners"
)

// planted is a client between the product and the API server that does something wrong.
// A nil function does what is right; next does it, too.
type planted struct {
	client.Client
	w           *World
	get         func(p *planted, object client.Object)
	create      func(p *planted, object client.Object)
	remove      func(p *planted, object client.Object, next func() error) error
	patch       func(p *planted, object client.Object, next func() error) error
	statusPatch func(p *planted, object client.Object, next func() error) error
	evict       func(p *planted, pod client.Object, eviction *policyv1.Eviction, next func() error) error
	// unguarded drops the preconditions of deletions and evictions.
	unguarded bool
}

func (p *planted) remembers(what string, object client.Object) bool {
	return p.w.memory[what+"/"+string(object.GetUID())] != nil
}

func (p *planted) remember(what string, object client.Object) {
	p.w.memory[what+"/"+string(object.GetUID())] = object
}

// stored is the object as the API server has it now.
func (p *planted) stored(object client.Object) client.Object {
	return p.w.get(kindOf(object), object.GetNamespace(), object.GetName())
}

func (p *planted) Get(ctx context.Context, key client.ObjectKey, object client.Object, options ...client.GetOption) error {
	if err := p.Client.Get(ctx, key, object, options...); err != nil {
		return err
	}
	if p.remembers("gone", object) {
		return notFound(kindOf(object), key.Name)
	}
	if p.get != nil {
		p.get(p, object)
	}
	return nil
}

func (p *planted) Create(ctx context.Context, object client.Object, options ...client.CreateOption) error {
	if p.create != nil {
		p.create(p, object)
	}
	return p.Client.Create(ctx, object, options...)
}

func (p *planted) Delete(ctx context.Context, object client.Object, options ...client.DeleteOption) error {
	if p.unguarded {
		options = nil
	}
	next := func() error { return p.Client.Delete(ctx, object, options...) }
	if p.remove != nil {
		return p.remove(p, object, next)
	}
	return next()
}

func (p *planted) Patch(ctx context.Context, object client.Object, patch client.Patch, options ...client.PatchOption) error {
	next := func() error { return p.Client.Patch(ctx, object, patch, options...) }
	if p.patch != nil {
		return p.patch(p, object, next)
	}
	return next()
}

func (p *planted) Status() client.SubResourceWriter {
	return &plantedStatus{SubResourceWriter: p.Client.Status(), p: p}
}

func (p *planted) SubResource(name string) client.SubResourceClient {
	return &plantedSub{SubResourceClient: p.Client.SubResource(name), p: p}
}

type plantedStatus struct {
	client.SubResourceWriter
	p *planted
}

func (s *plantedStatus) Patch(ctx context.Context, object client.Object, patch client.Patch, options ...client.SubResourcePatchOption) error {
	next := func() error { return s.SubResourceWriter.Patch(ctx, object, patch, options...) }
	if s.p.statusPatch != nil {
		return s.p.statusPatch(s.p, object, next)
	}
	return next()
}

type plantedSub struct {
	client.SubResourceClient
	p *planted
}

func (s *plantedSub) Create(ctx context.Context, object, sub client.Object, options ...client.SubResourceCreateOption) error {
	next := func() error { return s.SubResourceClient.Create(ctx, object, sub, options...) }
	eviction, is := sub.(*policyv1.Eviction)
	if is && s.p.unguarded && eviction.DeleteOptions != nil {
		eviction.DeleteOptions.Preconditions = nil
	}
	if is && s.p.evict != nil {
		return s.p.evict(s.p, object, eviction, next)
	}
	return next()
}

func isDryRun(e *policyv1.Eviction) bool {
	return e.DeleteOptions != nil && len(e.DeleteOptions.DryRun) > 0
}

// plant makes a Plant of a client.
func plant(name string, p planted) *Plant {
	return &Plant{Name: name, Client: func(w *World, c client.Client) client.Client {
		made := p
		made.w, made.Client = w, c
		return &made
	}}
}

// asIfNew overwrites whatever was written meanwhile.
func asIfNew(p *planted, object client.Object, next func() error) error {
	if now := p.stored(object); now != nil && now.GetUID() == object.GetUID() {
		object.SetResourceVersion(now.GetResourceVersion())
	}
	return next()
}

func hasRole(object client.Object, role string) bool {
	return object.GetLabels()[v1alpha1.RoleLabel] == role
}

// forgets does not delete some objects, and does as if it had.
func forgets(which func(client.Object) bool) planted {
	return planted{remove: func(p *planted, object client.Object, next func() error) error {
		if !which(object) {
			return next()
		}
		p.remember("gone", object)
		return nil
	}}
}

// skips does not write some changes of pods, and does as if it had: edit is what a
// reader sees.
func skips(name string, which func(p *planted, before, after client.Object) bool, edit func(client.Object)) planted {
	return planted{
		patch: func(p *planted, object client.Object, next func() error) error {
			before := p.stored(object)
			if before == nil || !which(p, before, object) {
				return next()
			}
			p.remember(name, object)
			return nil
		},
		get: func(p *planted, object client.Object) {
			if p.remembers(name, object) {
				edit(object)
			}
		},
	}
}

func dropsFinalizer(finalizer string) func(p *planted, before, after client.Object) bool {
	return func(_ *planted, before, after client.Object) bool {
		return slices.Contains(before.GetFinalizers(), finalizer) && !slices.Contains(after.GetFinalizers(), finalizer)
	}
}

func withoutFinalizer(finalizer string) func(client.Object) {
	return func(object client.Object) {
		object.SetFinalizers(slices.DeleteFunc(object.GetFinalizers(), func(f string) bool { return f == finalizer }))
	}
}

func isReplacement(object client.Object) bool {
	_, is := object.(*corev1.Pod)
	is = is || object.GetObjectKind().GroupVersionKind().Kind == "Pod" // one without types
	return is && object.GetLabels()[v1alpha1.MigrationUIDLabel] != "" && object.GetLabels()[v1alpha1.RoleLabel] == ""
}

func isClaim(object client.Object) bool {
	_, is := object.(*corev1.PersistentVolumeClaim)
	return is
}

// plants are the faults that the simulation has to find.
var plants = []*Plant{
	{Name: "the agent thaws an original when its replacement is released", SourceTask: func(m *v1alpha1.PodMigration, task decide.Task) decide.Task {
		if task == decide.TaskKeepFrozen && m.Status.Checkpoint.Step == v1alpha1.StepRelease {
			return decide.TaskThaw
		}
		return task
	}},
	{Name: "the agent thaws a frozen original that was evicted, instead of killing it", SourceTask: func(_ *v1alpha1.PodMigration, task decide.Task) decide.Task {
		if task == decide.TaskKill {
			return decide.TaskThaw
		}
		return task
	}},
	{Name: "the agent thaws without a report", SourceTask: func(_ *v1alpha1.PodMigration, task decide.Task) decide.Task {
		if task == decide.TaskReportAndThaw {
			return decide.TaskThaw
		}
		return task
	}},
	{Name: "the agent thaws while the seal is looked at", SourceTask: func(m *v1alpha1.PodMigration, task decide.Task) decide.Task {
		if task == decide.TaskKeepFrozen && m.Status.Checkpoint.Step == v1alpha1.StepSeal {
			return decide.TaskThaw
		}
		return task
	}},
	{Name: "the gate is opened when the state is restored, before the release", DestinationTask: func(m *v1alpha1.PodMigration, task decide.Task) decide.Task {
		d := m.Status.Checkpoint.Destination
		if task == decide.TaskNone && m.Status.Checkpoint.Step == v1alpha1.StepSeal && d != nil && d.Phase == v1alpha1.DestinationRestored {
			return decide.TaskRelease
		}
		return task
	}},
	plant("the sealed claim is deleted when a migration fails after its commitment", planted{statusPatch: func(p *planted, object client.Object, next func() error) error {
		err := next()
		m, is := object.(*v1alpha1.PodMigration)
		if is && err == nil && m.Status.Phase == v1alpha1.PhaseFailed && meta.IsStatusConditionTrue(m.Status.Conditions, v1alpha1.ConditionSealed) {
			claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: m.Namespace, Name: m.Status.CheckpointClaim}}
			_ = p.Client.Delete(context.Background(), claim)
		}
		return err
	}}),
	plant("a claim of a user is owned by the replacement", planted{patch: func(p *planted, object client.Object, next func() error) error {
		err := next()
		if user := p.w.get(claims, namespace, "bystander"); isClaim(object) && user != nil && len(object.GetOwnerReferences()) > 0 {
			becomes := user.DeepCopyObject().(client.Object)
			becomes.SetOwnerReferences(object.GetOwnerReferences())
			_ = p.Client.Patch(context.Background(), becomes, client.MergeFrom(user))
		}
		return err
	}}),
	plant("the placeholder is left", forgets(func(o client.Object) bool { return hasRole(o, v1alpha1.RolePlaceholder) })),
	plant("the replacement is left by a rollback", forgets(isReplacement)),
	plant("the claim is left by a rollback", forgets(isClaim)),
	plant("the Job counts the pod that a rollback discards", skips("discard", func(_ *planted, before, after client.Object) bool {
		return isReplacement(before) && dropsFinalizer(batchv1.JobTrackingFinalizer)(nil, before, after)
	}, withoutFinalizer(batchv1.JobTrackingFinalizer))),
	plant("each attempt creates a replacement of another name", planted{create: func(p *planted, object client.Object) {
		if isReplacement(object) && object.GetName() != "" {
			object.SetName(fmt.Sprintf("%s-%d", object.GetName(), p.w.uids))
		}
	}}),
	plant("the original is evicted before the replacement is ready", planted{get: func(_ *planted, object client.Object) {
		if pod, is := object.(*corev1.Pod); is && isReplacement(object) && pod.Spec.NodeName != "" && pod.DeletionTimestamp == nil {
			pod.Status.Phase = corev1.PodRunning
			setPodCondition(pod, corev1.PodReady, corev1.ConditionTrue, "", metav1.Time{})
		}
	}}),
	plant("the budget is never returned", planted{statusPatch: func(_ *planted, object client.Object, next func() error) error {
		m, is := object.(*v1alpha1.PodMigration)
		if is && m.Status.Phase.IsFinished() && m.Status.Original != nil {
			return nil
		}
		return next()
	}}),
	plant("the finalizer of the PodMigration is left", skips("finalizer", dropsFinalizer(v1alpha1.Finalizer), withoutFinalizer(v1alpha1.Finalizer))),
	plant("the finalizer of an original is left", skips("hold", dropsFinalizer(v1alpha1.HoldFinalizer), withoutFinalizer(v1alpha1.HoldFinalizer))),
	plant("the deletion cost of an original is left", planted{patch: func(p *planted, object client.Object, next func() error) error {
		before, _ := p.stored(object).(*corev1.Pod)
		if after, is := object.(*corev1.Pod); is && before != nil && owners.HasLowestDeletionCost(before) && !owners.HasLowestDeletionCost(after) {
			after.Annotations[corev1.PodDeletionCost] = before.Annotations[corev1.PodDeletionCost]
			p.remember("cost", object)
		}
		return next()
	}, get: func(p *planted, object client.Object) {
		if p.remembers("cost", object) {
			annotations := object.GetAnnotations()
			delete(annotations, corev1.PodDeletionCost)
			object.SetAnnotations(annotations)
		}
	}}),
	plant("the deletion cost of a replacement is left", skips("highest cost", func(_ *planted, before, after client.Object) bool {
		was, isPod := before.(*corev1.Pod)
		becomes, _ := after.(*corev1.Pod)
		return isPod && becomes != nil && owners.HasHighestDeletionCost(was) && !owners.HasHighestDeletionCost(becomes)
	}, func(object client.Object) {
		annotations := object.GetAnnotations()
		delete(annotations, corev1.PodDeletionCost)
		object.SetAnnotations(annotations)
	})),
	plant("a released original is never returned to its owner", skips("readopt", func(_ *planted, before, after client.Object) bool {
		return before.GetAnnotations()[v1alpha1.ReleasedAnnotation] != "" && after.GetAnnotations()[v1alpha1.ReleasedAnnotation] == ""
	}, func(object client.Object) {
		annotations := object.GetAnnotations()
		delete(annotations, v1alpha1.ReleasedAnnotation)
		object.SetAnnotations(annotations)
	})),
	plant("the claim is never owned by the replacement", planted{patch: func(p *planted, object client.Object, next func() error) error {
		if before := p.stored(object); isClaim(object) && before != nil && len(object.GetOwnerReferences()) > len(before.GetOwnerReferences()) {
			p.remember("owned", object)
			return nil
		}
		return next()
	}, get: func(p *planted, object client.Object) {
		if p.remembers("owned", object) {
			object.SetOwnerReferences(p.w.memory["owned/"+string(object.GetUID())].GetOwnerReferences())
		}
	}}),
	plant("the status is written without an optimistic lock", planted{statusPatch: asIfNew}),
	plant("pods are changed without an optimistic lock", planted{patch: func(p *planted, object client.Object, next func() error) error {
		if kindOf(object) == pods {
			return asIfNew(p, object, next)
		}
		return next()
	}}),
	plant("deletions and evictions have no preconditions", planted{unguarded: true}),
	plant("pods are read from a cache that is 20 s old", planted{get: func(p *planted, object client.Object) {
		if kindOf(object) != pods {
			return
		}
		key := "read/" + object.GetName()
		seen, at := p.w.memory[key], p.w.memory[key+"/at"]
		if seen != nil && seen.GetUID() == object.GetUID() && p.w.clock().Sub(at.GetCreationTimestamp().Time) < 20*time.Second {
			copyInto(seen, object)
			return
		}
		p.w.memory[key] = object.DeepCopyObject().(client.Object)
		p.w.memory[key+"/at"] = &corev1.Pod{ObjectMeta: metav1.ObjectMeta{CreationTimestamp: metav1.NewTime(p.w.clock())}}
	}}),
	plant("the barrier of a rollback is not written", planted{patch: func(p *planted, object client.Object, next func() error) error {
		if uid := object.GetAnnotations()[v1alpha1.RollbackBarrierAnnotation]; uid != "" && kindOf(object) == pods {
			p.remember("barrier", object.DeepCopyObject().(client.Object))
			annotations := object.GetAnnotations()
			delete(annotations, v1alpha1.RollbackBarrierAnnotation)
			object.SetAnnotations(annotations)
		}
		return next()
	}, get: func(p *planted, object client.Object) {
		if p.remembers("barrier", object) {
			annotations := map[string]string{}
			maps.Copy(annotations, object.GetAnnotations())
			annotations[v1alpha1.RollbackBarrierAnnotation] = p.w.memory["barrier/"+string(object.GetUID())].GetAnnotations()[v1alpha1.RollbackBarrierAnnotation]
			object.SetAnnotations(annotations)
		}
	}}),
	{Name: "a pod is frozen for longer than its liveness probe allows", IgnoreProbes: true},
	{Name: "a pod whose seal was accepted stays frozen although its time is over", SourceTask: func(m *v1alpha1.PodMigration, task decide.Task) decide.Task {
		if task == decide.TaskReportAndThaw && m.Status.Checkpoint.Step == v1alpha1.StepSeal && meta.IsStatusConditionTrue(m.Status.Conditions, v1alpha1.ConditionSealed) {
			return decide.TaskKeepFrozen
		}
		return task
	}},
	{Name: "the agent thaws processes that have continued elsewhere", SourceTask: func(m *v1alpha1.PodMigration, task decide.Task) decide.Task {
		if task == decide.TaskKeepFrozen && m.Status.Checkpoint.Step == v1alpha1.StepRelease && movesProcesses(m) {
			return decide.TaskThaw
		}
		return task
	}},
	{Name: "processes continue when they are restored, before the release", DestinationTask: func(m *v1alpha1.PodMigration, task decide.Task) decide.Task {
		d := m.Status.Checkpoint.Destination
		if task == decide.TaskNone && movesProcesses(m) && m.Status.Checkpoint.Step == v1alpha1.StepSeal && d != nil && d.Phase == v1alpha1.DestinationRestored {
			return decide.TaskRelease
		}
		return task
	}},
	{Name: "what processes were restored from is left, after they have continued", KeepImages: true},
	plant("the Job counts a replacement whose processes are not restored", skips("untrack", func(p *planted, before, after client.Object) bool {
		m := p.w.checks.migrationOf(types.UID(before.GetLabels()[v1alpha1.MigrationUIDLabel]))
		return m != nil && meta.FindStatusCondition(m.Status.Conditions, v1alpha1.ConditionRolledBack) == nil && dropsFinalizer(batchv1.JobTrackingFinalizer)(p, before, after)
	}, withoutFinalizer(batchv1.JobTrackingFinalizer))),
	{Name: "what waits on a node is never removed", KeepWaiting: true},
	{Name: "the sealed copy is left on the claim", KeepCopies: true},
	{Name: "the reception does not end at the release", KeepReceiving: true},
	{Name: "what waits is removed when a migration fails after its commitment", DestinationTask: func(_ *v1alpha1.PodMigration, task decide.Task) decide.Task {
		if task == decide.TaskClose {
			return decide.TaskDiscard
		}
		return task
	}},
	{Name: "a connection with another fingerprint is admitted", Admits: func(m *v1alpha1.PodMigration, node string, s decide.Sender, pod *corev1.Pod) error {
		if source := m.Status.Checkpoint.Source; source != nil {
			s.Fingerprint = source.Fingerprint
		}
		return decide.Admits(m, node, s, pod)
	}},
	{Name: "a connection of an earlier attempt is admitted", Admits: func(m *v1alpha1.PodMigration, node string, s decide.Sender, pod *corev1.Pod) error {
		s.Attempt = m.Status.Checkpoint.Attempt
		return decide.Admits(m, node, s, pod)
	}},
	{Name: "a replacement is released with another digest than what it has", SealEarly: true, DestinationTask: func(m *v1alpha1.PodMigration, task decide.Task) decide.Task {
		c := m.Status.Checkpoint
		if c.Step == v1alpha1.StepSeal && c.Destination != nil && c.Destination.Phase == v1alpha1.DestinationWarm && c.Source != nil && c.Source.Phase == v1alpha1.SourceSealed {
			return decide.TaskConfirm
		}
		return task
	}},
	{Name: "a third node restores a copy that was not sealed", SkipCopy: true},
	plant("the original ends before what it has is stored", planted{get: func(p *planted, object client.Object) {
		m, is := object.(*v1alpha1.PodMigration)
		if !is || !strings.HasPrefix(p.w.running.name, "leader") || m.Status.Checkpoint == nil || m.Status.Checkpoint.Step != v1alpha1.StepSeal || m.DestinationPod() == nil {
			return
		}
		c, now := m.Status.Checkpoint, metav1.NewMicroTime(p.w.clock())
		if c.Source == nil || c.Source.Phase == v1alpha1.SourceSealed {
			return
		}
		c.Source.Phase, c.Source.ManifestDigest, c.Source.SealedAt = v1alpha1.SourceSealed, digestOf(&lineage{}, content{}), &now
		c.Destination = &v1alpha1.DestinationReport{
			Node: m.DestinationPod().NodeName, Attempt: c.Attempt, PodUID: m.DestinationPod().UID, Phase: v1alpha1.DestinationStored,
			ManifestDigest: c.Source.ManifestDigest, ClaimSealed: true,
		}
	}}),
	plant("no message says on which node the state waits", planted{statusPatch: func(_ *planted, object client.Object, next func() error) error {
		if m, is := object.(*v1alpha1.PodMigration); is && m.StateWaits() {
			m.Status.Message = "failed"
		}
		return next()
	}}),
	plant("originals are deleted, and no budget is asked", planted{evict: func(p *planted, pod client.Object, eviction *policyv1.Eviction, _ func() error) error {
		if isDryRun(eviction) {
			return nil
		}
		return p.Client.Delete(context.Background(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: pod.GetNamespace(), Name: pod.GetName()}})
	}}),
	plant("the budget is not asked before a pod is frozen", planted{evict: func(_ *planted, _ client.Object, eviction *policyv1.Eviction, next func() error) error {
		if isDryRun(eviction) {
			return nil
		}
		return next()
	}}),
	plant("an application has no time to save", planted{evict: func(_ *planted, _ client.Object, eviction *policyv1.Eviction, next func() error) error {
		if eviction.DeleteOptions == nil {
			eviction.DeleteOptions = &metav1.DeleteOptions{}
		}
		eviction.DeleteOptions.GracePeriodSeconds = new(int64)
		return next()
	}}),
}

// foundBy are the seeds that are known to find the plants: how many seeds each took, from
// the first. go test ./simulate -run Planted -v -plant-search looks for them again.
var foundBy = map[string]uint64{
	"the agent thaws an original when its replacement is released":              10,
	"the agent thaws a frozen original that was evicted, instead of killing it": 2,
	"the agent thaws without a report":                                          7,
	"the agent thaws while the seal is looked at":                               14,
	"the gate is opened when the state is restored, before the release":         10,
	"the sealed claim is deleted when a migration fails after its commitment":   3964,
	"a claim of a user is owned by the replacement":                             2,
	"the placeholder is left":                                                   1,
	"the replacement is left by a rollback":                                     3,
	"the claim is left by a rollback":                                           7,
	"the Job counts the pod that a rollback discards":                           76,
	"each attempt creates a replacement of another name":                        416,
	"the original is evicted before the replacement is ready":                   355,
	"the budget is never returned":                                              1,
	"the finalizer of the PodMigration is left":                                 1,
	"the finalizer of an original is left":                                      1,
	"the deletion cost of an original is left":                                  3461,
	"the deletion cost of a replacement is left":                                10,
	"a released original is never returned to its owner":                        24,
	"the claim is never owned by the replacement":                               2,
	"the status is written without an optimistic lock":                          16,
	"pods are changed without an optimistic lock":                               709,
	"deletions and evictions have no preconditions":                             962,
	"pods are read from a cache that is 20 s old":                               36,
	"the barrier of a rollback is not written":                                  709,
	"a pod is frozen for longer than its liveness probe allows":                 959,
	"a pod whose seal was accepted stays frozen although its time is over":      2226,
	"the agent thaws processes that have continued elsewhere":                   10,
	"processes continue when they are restored, before the release":             10,
	"what processes were restored from is left, after they have continued":      10,
	"the Job counts a replacement whose processes are not restored":             385,
	"what waits on a node is never removed":                                     2,
	"the sealed copy is left on the claim":                                      2,
	"the reception does not end at the release":                                 10,
	"what waits is removed when a migration fails after its commitment":         446,
	"a connection with another fingerprint is admitted":                         234,
	"a connection of an earlier attempt is admitted":                            251,
	"a replacement is released with another digest than what it has":            8,
	"a third node restores a copy that was not sealed":                          724,
	"the original ends before what it has is stored":                            2,
	"no message says on which node the state waits":                             446,
	"originals are deleted, and no budget is asked":                             3,
	"the budget is not asked before a pod is frozen":                            19,
	"an application has no time to save":                                        46,
}
