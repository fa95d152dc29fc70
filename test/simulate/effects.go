package simulate

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// livenessFailed is called when the kubelet ends a container for its liveness probe, whose
// containers only fail it when something stops them. An original whose replacement has
// taken over may end so: it has to end anyway.
func (c *checker) livenessFailed(i *instance, p *corev1.Pod) {
	if i.excused || i.held {
		c.w.touch(i, "it was frozen, and its node agent could not thaw it")
		if c.w.scenario.owner == ownedJob {
			// The Job counts it, and may end all its pods.
			c.excuseAll("a liveness probe ended a pod of the Job")
		}
		return
	}
	each(c.w.store, migrations, func(m *v1alpha1.PodMigration) {
		if m.Status.Original == nil || m.Status.Original.UID != p.UID {
			return
		}
		if meta.IsStatusConditionTrue(m.Status.Conditions, v1alpha1.ConditionReleased) || meta.IsStatusConditionTrue(m.Status.Conditions, v1alpha1.ConditionCommitted) {
			return
		}
		c.violated(NoSideEffect, "the kubelet ends pod %s for its liveness probe, which failed since PodMigration %s has frozen it", i, m.Name)
	})
}

// jobCounts is called with a pod that its Job counts as a failure.
func (c *checker) jobCounts(p *corev1.Pod, why string) {
	l := c.w.work.ofPod[p.UID]
	if l == nil || l.touched != "" || !c.w.wasMoved(l) {
		return
	}
	c.violated(NoSideEffect, "the Job counts pod %s as a failure (%s), which a migration has moved; it was deleted by %q", p.Name, why, c.deletedBy[p.UID])
}

// budgetPatience is how long a budget may have forbidden an eviction before nobody may be
// about to freeze a pod who has asked before that.
const budgetPatience = 40 * time.Second

// followBudget remembers since when a budget allows nothing.
func (c *checker) followBudget(b *policyv1.PodDisruptionBudget) {
	_, has := c.forbids[b.UID]
	switch isForbidden := b.Status.ObservedGeneration == b.Generation && b.Status.DisruptionsAllowed == 0; {
	case isForbidden && !has:
		c.forbids[b.UID] = c.w.now
	case !isForbidden:
		delete(c.forbids, b.UID)
	}
}

// asksBudget wants that a pod is frozen only when its budget would allow its eviction:
// one that is frozen is disrupted.
func (c *checker) asksBudget(before client.Object, m *v1alpha1.PodMigration) {
	earlier, is := before.(*v1alpha1.PodMigration)
	if !is || m.Status.Checkpoint == nil || m.Status.Original == nil || m.Status.Checkpoint.Step != v1alpha1.StepSeal ||
		earlier.Status.Checkpoint != nil && earlier.Status.Checkpoint.Step == v1alpha1.StepSeal {
		return
	}
	p, is := c.w.byUID[m.Status.Original.UID].(*corev1.Pod)
	if !is || canIgnoreBudget(p) || c.w.askBudgets(p, true) == nil {
		return
	}
	for _, b := range c.w.budgetsOf(p) {
		if since, has := c.forbids[b.UID]; has && c.w.now-since > budgetPatience {
			c.violated(NoSideEffect, "PodMigration %s asks to freeze pod %s, though budget %s has allowed no disruption for %s", m.Name, p.Name, b.Name, c.w.now-since)
		}
	}
}

// isEvicted wants that the product asks the Eviction API before it ends an original that a
// budget covers. What its owner would have ended is deleted.
func (c *checker) isEvicted(p *corev1.Pod) {
	if c.w.evicting == p.UID || len(c.w.budgetsOf(p)) == 0 || canBeDeleted(p) {
		return
	}
	each(c.w.store, migrations, func(m *v1alpha1.PodMigration) {
		if m.Status.Original != nil && m.Status.Original.UID == p.UID && meta.FindStatusCondition(m.Status.Conditions, v1alpha1.ConditionRolledBack) == nil {
			c.violated(NoSideEffect, "%s deletes pod %s without asking its budget", c.w.actor, p.Name)
		}
	})
}

// canBeDeleted reports whether no budget counts a pod.
func canBeDeleted(p *corev1.Pod) bool {
	return isTerminal(p) || p.Status.Phase == corev1.PodPending
}
