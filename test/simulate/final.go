package simulate

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods/owners"
)

// final checks what must be in the end, when nothing interferes any more.
func (c *checker) final() {
	each(c.w.store, migrations, func(m *v1alpha1.PodMigration) {
		if !m.Status.Phase.IsFinished() {
			c.violated(ItEnds, "PodMigration %s has not ended: phase %s, %q", m.Name, m.Status.Phase, m.Status.Message)
			return
		}
		if slices.Contains(m.Finalizers, v1alpha1.Finalizer) {
			c.violated(ItEnds, "PodMigration %s has ended and has its finalizer", m.Name)
		}
		c.finalOriginal(m)
	})
	c.finalPods()
	c.finalClaims()
	c.finalCarried()
	for _, m := range c.w.machines {
		for _, i := range m.instances {
			if i.frozen && c.w.byUID[i.pod] != nil && !m.agent.isStranded(i.pod) {
				c.violated(OneWorks, "pod %s on %s stays frozen", i.name, m.node)
			}
		}
	}
	c.finalWork()
}

// finalOriginal wants no mark on an original that stays.
func (c *checker) finalOriginal(m *v1alpha1.PodMigration) {
	if m.Status.Original == nil {
		return
	}
	o, _ := c.w.byUID[m.Status.Original.UID].(*corev1.Pod)
	if o == nil {
		return
	}
	switch {
	case slices.Contains(o.Finalizers, v1alpha1.HoldFinalizer):
		c.violated(ItEnds, "pod %s has our finalizer, though PodMigration %s has ended", o.Name, m.Name)
	case owners.HasLowestDeletionCost(o) && !isTerminal(o):
		c.violated(ItEnds, "pod %s would be deleted first by its ReplicaSet, though PodMigration %s has ended", o.Name, m.Name)
	case owners.IsReleased(o) && !isTerminal(o) && o.DeletionTimestamp == nil:
		c.violated(ItEnds, "pod %s is released from its owner, though PodMigration %s has ended as %s", o.Name, m.Name, m.Status.Phase)
	}
}

// finalPods wants no helper and no replacement that never works.
func (c *checker) finalPods() {
	each(c.w.store, pods, func(p *corev1.Pod) {
		uid := types.UID(p.Labels[v1alpha1.MigrationUIDLabel])
		if uid == "" {
			return
		}
		m := c.migrationOf(uid)
		i := c.w.instance(p.UID)
		switch {
		case p.Labels[v1alpha1.RoleLabel] != "":
			c.violated(ItEnds, "%s is left", describe(p))
		case m == nil:
		case meta.IsStatusConditionTrue(m.Status.Conditions, v1alpha1.ConditionRolledBack) && p.DeletionTimestamp == nil:
			c.violated(ItEnds, "%s is left, though PodMigration %s was rolled back", describe(p), m.Name)
		case m.Status.Phase == v1alpha1.PhaseSucceeded && m.Status.Replacement.UID != p.UID:
			c.violated(ItEnds, "%s is left beside the replacement that PodMigration %s has recorded", describe(p), m.Name)
		case m.Status.Phase.IsFinished() && owners.HasHighestDeletionCost(p) && p.DeletionTimestamp == nil:
			c.violated(ItEnds, "%s would be deleted last by its ReplicaSet, though PodMigration %s has ended", describe(p), m.Name)
		case len(p.Spec.SchedulingGates) > 0:
			c.violated(ItEnds, "%s waits at its scheduling gate for ever, though PodMigration %s has ended", describe(p), m.Name)
		case i != nil && i.images != nil && i.runs && !i.held:
			c.violated(ItEnds, "what the processes of %s were restored from is left, though they have continued", describe(p))
		case i != nil && i.hasGate && !i.gateOpen:
			c.violated(ItEnds, "%s waits at its gate for ever, though PodMigration %s has ended as %s", describe(p), m.Name, m.Status.Phase)
		}
	})
}

// finalClaims wants no checkpoint claim that nobody knows of.
func (c *checker) finalClaims() {
	each(c.w.store, claims, func(claim *corev1.PersistentVolumeClaim) {
		uid := types.UID(claim.Labels[v1alpha1.MigrationUIDLabel])
		if uid == "" || len(claim.OwnerReferences) > 0 || claim.DeletionTimestamp != nil {
			return
		}
		m := c.migrationOf(uid)
		switch {
		case m == nil && (c.w.scenario.retain || c.isOnlyCopy(claim)):
			// Who deletes the record does not mean to lose that. An event names the claim.
		case m == nil:
			c.violated(ItEnds, "claim %s is left, and its PodMigration is gone", claim.Name)
		case m.Spec.Checkpoint.ReclaimPolicy == v1alpha1.ClaimRetain && m.Status.CheckpointClaim == claim.Name:
		case strings.Contains(m.Status.Message, claim.Name):
		default:
			c.violated(ItEnds, "claim %s is left by PodMigration %s (%s), nothing owns it and no message names it", claim.Name, m.Name, m.Status.Phase)
		}
	})
}

// isOnlyCopy reports whether a claim has what was sealed, and no pod works at it.
func (c *checker) isOnlyCopy(claim *corev1.PersistentVolumeClaim) bool {
	return slices.ContainsFunc(c.w.work.copies, func(on *copied) bool {
		l := c.w.work.ofMigration[on.migration]
		if on.claim != claim.UID || !on.isSealed() || l == nil {
			return false
		}
		return !slices.ContainsFunc(l.pods, func(pod types.UID) bool {
			i := c.w.instance(pod)
			if i == nil || c.w.byUID[pod] == nil {
				return false
			}
			i.settle()
			return i.volume >= on.work
		})
	})
}

// finalWork wants every pod that was moved to work somewhere.
func (c *checker) finalWork() {
	for _, l := range c.w.work.lineages {
		if l.touched != "" || l.excused != "" && !strings.HasPrefix(l.excused, "mode ") {
			continue
		}
		if !c.w.wasMoved(l) {
			continue
		}
		works := false
		for _, uid := range l.pods {
			p, _ := c.w.byUID[uid].(*corev1.Pod)
			works = works || p != nil && (p.Status.Phase == corev1.PodSucceeded || p.DeletionTimestamp == nil && isPodReady(p))
		}
		if !works {
			c.violated(OneWorks, "nothing works at what %s did, whose pods were deleted by %s", l.name, strings.Join(c.deleters(l), " and "))
			continue
		}
		if l.mustKeep && l.excused == "" && l.acknowledged > 0 && len(c.holders(l, nil)) == 0 {
			c.violated(NothingLost, "the work %d of %s is nowhere", l.acknowledged, l.name)
		}
	}
}

func (w *world) wasMoved(l *lineage) (moved bool) {
	each(w.store, migrations, func(m *v1alpha1.PodMigration) {
		moved = moved || m.Status.Original != nil && w.work.ofPod[m.Status.Original.UID] == l
	})
	return moved
}

// deleters are who deleted the pods of a lineage.
func (c *checker) deleters(l *lineage) (by []string) {
	for _, uid := range l.pods {
		if who := c.deletedBy[uid]; who != "" {
			by = append(by, who)
		}
	}
	return by
}
