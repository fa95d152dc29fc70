package simulate

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// Invariant is a promise of the product.
type Invariant string

const (
	// NothingLost: acknowledged work is in at least one place that will be restored, or
	// is worked on. A copy that is sealed and not restored is not deleted, nor owned by
	// something that may go.
	NothingLost Invariant = "NothingLost"
	// OneWorks: never two that work where one must; never none without an end in sight.
	OneWorks Invariant = "OneWorks"
	// ItEnds: every migration ends within its timeout and a bound, and what it made is
	// gone.
	ItEnds Invariant = "ItEnds"
	// OnlyOurs: nothing that is not ours is deleted, owned or written.
	OnlyOurs Invariant = "OnlyOurs"
	// NoSideEffect: no liveness probe ends an original because it was frozen, no Job
	// counts a pod that was moved as a failure, and no budget is passed by.
	NoSideEffect Invariant = "NoSideEffect"
)

// Violation is what broke a promise.
type Violation struct {
	Invariant Invariant
	What      string
	At        moment
}

func (v *Violation) String() string {
	return fmt.Sprintf("%s at %.3f s: %s", v.Invariant, v.At.Seconds(), v.What)
}

// checker watches the promises.
type checker struct {
	w *world
	// deletedBy is who began the deletion of a pod.
	deletedBy map[types.UID]string
	// wereReady are the pods that are gone from their nodes, and were Ready once.
	wereReady map[types.UID]bool
	// forbids is since when a budget has allowed no eviction.
	forbids map[types.UID]moment
}

func (c *checker) violated(invariant Invariant, format string, arguments ...any) {
	if c.w.failure != nil {
		return
	}
	c.w.failure = &Violation{Invariant: invariant, What: fmt.Sprintf(format, arguments...), At: c.w.now}
	c.w.say("invariant", "%s", c.w.failure)
}

// isOurs reports whether an actor is a part of the product.
func isOurs(actor string) bool {
	return strings.HasPrefix(actor, "leader") || strings.HasPrefix(actor, "agent")
}

func (c *checker) wrote(actor string, before, after client.Object) {
	if isOurs(actor) {
		c.wroteByUs(before, after)
	}
	if m, is := after.(*v1alpha1.PodMigration); is {
		c.follow(m)
		if was, _ := before.(*v1alpha1.PodMigration); m.Spec.RecoverFrom != "" && m.Status.Phase == v1alpha1.PhaseSucceeded && was != nil && !was.Status.Phase.IsFinished() {
			c.recovered(m)
		}
		c.asksBudget(before, m)
	}
	if b, is := after.(*policyv1.PodDisruptionBudget); is {
		c.followBudget(b)
	}
	if claim, is := before.(*corev1.PersistentVolumeClaim); is && (after == nil || after.GetDeletionTimestamp() != nil && before.GetDeletionTimestamp() == nil) {
		c.claimGoes(actor, claim)
	}
	if pod, is := before.(*corev1.Pod); is && pod.DeletionTimestamp == nil && (after == nil || after.GetDeletionTimestamp() != nil) {
		c.deletedBy[pod.UID] = actor
	}
	if pod, is := after.(*corev1.Pod); is && before == nil {
		c.w.work.lineageOf(pod)
	}
}

// follow takes from a migration what it promises for its pod.
func (c *checker) follow(m *v1alpha1.PodMigration) {
	if m.Status.Original == nil {
		return
	}
	l := c.w.work.ofPod[m.Status.Original.UID]
	if l == nil {
		return
	}
	c.w.work.ofMigration[m.UID] = l
	h, cp := m.Status.Handover, m.Status.Checkpoint
	switch mode := m.CheckpointMode(); {
	case cp.Carries() && (mode == v1alpha1.CheckpointFrozen || mode == v1alpha1.CheckpointProcess), mode == v1alpha1.CheckpointApplication:
		l.mustKeep, l.alone = true, true
	case mode == v1alpha1.CheckpointFrozen && cp.FallbackReason != "" && c.w.scenario.memoryOnly():
		c.excuse(l, "mode Frozen: the request takes a fresh start for its memory")
		l.mustKeep, l.alone = false, false
	case c.w.scenario.scratch && !l.mustKeep && h != nil:
		// Who moves a pod in another mode accepts that work is lost.
		if l.excused == "" {
			l.excused = "mode " + string(mode)
		}
	}
	// What an owner wants counts as long as there is one.
	wantsOne := c.w.scenario.owner == ownedDeployment && c.w.scenario.recreate || c.w.scenario.owner == ownedJob && (c.w.scenario.replaceFailed || c.w.scenario.failurePolicy != nil)
	if h != nil && h.Order == v1alpha1.OrderStopFirst || wantsOne && !c.w.orphaned {
		l.alone = true
	}
}

// workChanged is called when a pod begins or ends to work.
func (c *checker) workChanged(changed *instance) {
	l := changed.lineage
	if l == nil || !l.alone || !changed.makesProgress() {
		return
	}
	for _, m := range c.w.machines {
		for _, i := range m.instances {
			if i != changed && i.lineage == l && i.makesProgress() && !c.w.isAbandoned(i) && !c.w.isAbandoned(changed) {
				c.violated(OneWorks, "pods %s and %s work at the same time", changed, i)
			}
		}
	}
}

// isAbandoned reports whether a pod is gone from the API though it runs: someone
// deleted it by force, or its node.
func (w *world) isAbandoned(i *instance) bool { return w.byUID[i.pod] == nil }

// holders are the places of the latest work of a lineage. without is a place that is
// about to go.
func (c *checker) holders(l *lineage, without any) (found []string) {
	for _, m := range c.w.machines {
		for _, i := range m.instances {
			if i.lineage != l || i == without {
				continue
			}
			i.settle()
			pod, _ := c.w.byUID[i.pod].(*corev1.Pod)
			if i.volume >= l.acknowledged && i.mayHold() && pod != nil && (pod.DeletionTimestamp == nil || without == nil) && pod != without {
				found = append(found, "pod "+i.name)
			}
		}
	}
	for _, m := range c.w.machines {
		for _, r := range m.received {
			if any(r) != without && c.counts(r, l) {
				found = append(found, "node "+m.node)
			}
		}
	}
	return append(found, c.holdingClaims(l, without)...)
}

// holdingClaims are those that have the latest work of a lineage.
func (c *checker) holdingClaims(l *lineage, without any) (found []string) {
	each(c.w.store, claims, func(claim *corev1.PersistentVolumeClaim) {
		// A finalizer of the migration keeps one that a user has deleted.
		if any(claim) == without || claim.DeletionTimestamp != nil && !slices.Contains(claim.Finalizers, v1alpha1.CheckpointFinalizer) {
			return
		}
		if saved, has := c.w.work.saved[claim.UID]; has && saved >= l.acknowledged {
			found = append(found, "claim "+claim.Name)
		}
		each(c.w.store, migrations, func(m *v1alpha1.PodMigration) {
			on := c.w.work.copyOf(claim.UID, m.UID)
			if on != nil && any(on) != without && on.isSealed() && on.work >= l.acknowledged && m.Status.Original != nil && c.w.work.ofPod[m.Status.Original.UID] == l &&
				meta.IsStatusConditionTrue(m.Status.Conditions, v1alpha1.ConditionSealed) {
				found = append(found, "claim "+claim.Name)
			}
		})
	})
	return found
}

// contentGone is called when the emptyDirs of a pod are gone.
func (c *checker) contentGone(i *instance) {
	l := i.lineage
	if l == nil || !l.mustKeep || l.excused != "" || l.acknowledged == 0 {
		return
	}
	i.settle()
	if i.volume < l.acknowledged || !i.mayHold() || c.deletedBy[i.pod] == "user" {
		// Who deletes the pod that works loses what is on its emptyDirs, also without a migration.
		return
	}
	found := c.holders(l, i)
	if len(found) == 0 {
		c.violated(NothingLost, "with pod %s on %s, deleted by %s, the work %d of %s is gone, and nothing else has it", i.name, i.m.node, c.deletedBy[i.pod], l.acknowledged, l.name)
		return
	}
	for _, where := range found {
		if !strings.HasPrefix(where, "claim ") {
			return
		}
	}
	claim := lookup[*corev1.PersistentVolumeClaim](c.w.store, claims, namespace, strings.TrimPrefix(found[0], "claim "))
	for _, o := range claim.OwnerReferences {
		if o.Kind == "Pod" && c.w.byUID[o.UID] == nil {
			c.violated(NothingLost, "the only copy of the work of %s is on claim %s, which goes with pod %s", l.name, claim.Name, o.Name)
		}
	}
}

// claimGoes is called when the deletion of a claim begins.
func (c *checker) claimGoes(actor string, claim *corev1.PersistentVolumeClaim) {
	for _, on := range c.w.work.copies {
		if on.claim != claim.UID || !on.isSealed() {
			continue
		}
		m, _ := c.w.byUID[on.migration].(*v1alpha1.PodMigration)
		if m == nil || m.Status.Original == nil {
			continue
		}
		l := c.w.work.ofPod[m.Status.Original.UID]
		if l == nil || !l.mustKeep || l.excused != "" || on.work < l.acknowledged || l.acknowledged == 0 {
			continue
		}
		if len(c.holders(l, claim)) == 0 {
			c.violated(NothingLost, "%s deletes claim %s, which has the only copy of the work of %s", actor, claim.Name, l.name)
		}
	}
}

// leaves is called before a user, or a broken machine, removes a pod.
func (c *checker) leaves(p *corev1.Pod, why string) {
	l := c.w.work.ofPod[p.UID]
	if l == nil {
		return
	}
	if l.touched == "" {
		l.touched = why
	}
	if c.w.scenario.owner == ownedJob {
		// A Job counts it as a failure, and may end all its pods.
		c.excuseAll(why)
		return
	}
	isOriginal, committed, released := false, false, false
	each(c.w.store, migrations, func(m *v1alpha1.PodMigration) {
		if m.Status.Original != nil && m.Status.Original.UID == p.UID {
			isOriginal = true
			committed = committed || isCommitted(m)
		}
		// Who deletes the pod that works loses what it works at.
		released = released || v1alpha1.OwnedBy(p.Labels, m.UID) && meta.IsStatusConditionTrue(m.Status.Conditions, v1alpha1.ConditionReleased)
	})
	// A copy counts only once the migration goes by it.
	if released || isOriginal && !committed || len(c.holders(l, p)) == 0 {
		c.excuse(l, why)
	}
}

// isCommitted reports whether a migration continues with what was sealed.
func isCommitted(m *v1alpha1.PodMigration) bool {
	conditions := m.Status.Conditions
	if meta.IsStatusConditionTrue(conditions, v1alpha1.ConditionReleased) || meta.IsStatusConditionTrue(conditions, v1alpha1.ConditionHandedOver) {
		return true
	}
	return meta.IsStatusConditionTrue(conditions, v1alpha1.ConditionSealed) && m.Status.Handover != nil && m.Status.Handover.Order == v1alpha1.OrderStopFirst &&
		meta.FindStatusCondition(conditions, v1alpha1.ConditionRolledBack) == nil
}

func (c *checker) claimLeaves(claim *corev1.PersistentVolumeClaim, why string) {
	for _, l := range c.w.work.lineages {
		if l.touched == "" {
			l.touched = why
		}
		if len(c.holders(l, claim)) == 0 || claim.Name == savedClaim && c.isEnding(l) {
			c.excuse(l, why)
		}
	}
}

// isEnding reports whether the original of a lineage is about to end, and can only save to
// the claim of its application.
func (c *checker) isEnding(l *lineage) (ending bool) {
	each(c.w.store, migrations, func(m *v1alpha1.PodMigration) {
		ending = ending || m.Status.Original != nil && c.w.work.ofPod[m.Status.Original.UID] == l && meta.IsStatusConditionTrue(m.Status.Conditions, v1alpha1.ConditionCommitted)
	})
	return ending
}

func (c *checker) excuse(l *lineage, why string) {
	if l.excused == "" {
		l.excused = why
	}
}

func (c *checker) excuseAll(why string) {
	c.touchAll(why)
	for _, l := range c.w.work.lineages {
		c.excuse(l, why)
	}
}

func (c *checker) touchAll(why string) {
	for _, l := range c.w.work.lineages {
		if l.touched == "" {
			l.touched = why
		}
	}
}

// wroteByUs checks what the product writes.
func (c *checker) wroteByUs(before, after client.Object) {
	object := after
	if object == nil {
		object = before
	}
	switch object := object.(type) {
	case *v1alpha1.PodMigration:
	case *corev1.Pod:
		if after != nil && before != nil && before.GetDeletionTimestamp() == nil && after.GetDeletionTimestamp() != nil {
			c.originalGoes(object)
			c.isEvicted(object)
		}
		if !c.isOurPod(object) {
			c.violated(OnlyOurs, "%s writes %s, which has to do with no migration", c.w.actor, describe(object))
		}
	case *corev1.PersistentVolumeClaim:
		if object.Labels[v1alpha1.MigrationUIDLabel] == "" {
			c.violated(OnlyOurs, "%s writes %s, which no migration made", c.w.actor, describe(object))
		}
	default:
		c.violated(OnlyOurs, "%s writes %s", c.w.actor, describe(object))
	}
}

// isOurPod reports whether a pod is the original of a migration, made by one, or of the
// same owner as the original: what that makes without the webhook is removed.
func (c *checker) isOurPod(p *corev1.Pod) (ours bool) {
	if p.Labels[v1alpha1.MigrationUIDLabel] != "" {
		return true
	}
	each(c.w.store, migrations, func(m *v1alpha1.PodMigration) {
		s := m.Status
		ours = ours || s.Original != nil && s.Original.UID == p.UID
		if h := s.Handover; h != nil && h.Owner != nil && (h.Method == v1alpha1.MethodRelease || h.Method == v1alpha1.MethodRecreate) {
			ours = ours || slices.ContainsFunc(p.OwnerReferences, func(r metav1.OwnerReference) bool { return r.UID == h.Owner.UID })
		}
	})
	return ours
}

func (c *checker) migrationOf(uid types.UID) *v1alpha1.PodMigration {
	m, _ := c.w.byUID[uid].(*v1alpha1.PodMigration)
	return m
}

// originalGoes wants a replacement that has been ready, when the product ends an
// original whose replacement starts first.
func (c *checker) originalGoes(p *corev1.Pod) {
	each(c.w.store, migrations, func(m *v1alpha1.PodMigration) {
		h := m.Status.Handover
		if meta.FindStatusCondition(m.Status.Conditions, v1alpha1.ConditionRolledBack) != nil {
			return // what its owner would have ended by now is ended
		}
		if m.Status.Original == nil || m.Status.Original.UID != p.UID || h == nil || h.Order != v1alpha1.OrderStartFirst || m.Status.Replacement == nil {
			return
		}
		if !c.hasBeenReady(m.Status.Replacement.UID) {
			c.violated(OneWorks, "%s ends pod %s before its replacement was ready", c.w.actor, p.Name)
		}
	})
}

// hasBeenReady reports whether a pod is, or was before another client deleted it, Ready once.
// What the product does then may have been decided before.
func (c *checker) hasBeenReady(pod types.UID) bool {
	if i := c.w.instance(pod); i != nil {
		return i.wasReady
	}
	return c.wereReady[pod] && !isOurs(c.deletedBy[pod])
}
