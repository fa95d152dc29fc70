package simulate

import (
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/node/agent/decide"
)

// Promises about what is on its way: who may send it, where it may be written, what a
// replacement may be released with, and when it may go.

// connects is called when the agent of a destination has admitted a connection.
func (c *checker) connects(b *agent, h decide.Sender) {
	m := c.migrationOf(h.Migration)
	if m == nil || m.Status.Checkpoint == nil || m.Status.Checkpoint.Source == nil {
		c.violated(OnlyOurs, "%s admits a connection of migration %s, which has no source", b.name, h.Migration)
		return
	}
	s := m.Status.Checkpoint.Source
	if s.Fingerprint != h.Fingerprint || s.Attempt != h.Attempt || m.Status.Checkpoint.Attempt != h.Attempt {
		c.violated(OnlyOurs, "%s admits %.12s… in attempt %d, and the source of PodMigration %s is %.12s… in attempt %d", b.name, h.Fingerprint, h.Attempt, m.Name, s.Fingerprint, m.Status.Checkpoint.Attempt)
	}
}

// writesVolumes is called when what is carried is written into the volumes of a pod.
func (c *checker) writesVolumes(i *instance) {
	if i.runs || i.gateOpen && i.images == nil {
		c.violated(OnlyOurs, "what is carried is written into the volumes of pod %s, whose containers may run", i)
	}
}

// releases is called before a replacement is let run: its volumes have what was sealed in
// this attempt, and the source has reported its digest.
func (c *checker) releases(a *agent, m *v1alpha1.PodMigration, i *instance) {
	cp := m.Status.Checkpoint
	if a.receivers[m.UID] != nil {
		c.violated(OnlyOurs, "pod %s is released, and %s still receives into its volumes", i, a.name)
	}
	if cp == nil || cp.Source == nil {
		c.violated(NothingLost, "pod %s is released, and nothing was sealed for it", i)
		return
	}
	has := i.restoredFrom
	wasSealed := slices.ContainsFunc(c.w.work.seals[m.CheckpointUID()], func(s content) bool {
		return s.digest == has.digest && s.work == has.work && (s.attempt == cp.Attempt || cp.RecoveredFrom != "")
	})
	switch {
	case has.digest == "" || has.digest != cp.Source.ManifestDigest:
		c.violated(NothingLost, "pod %s is released with digest %q, and the source has sealed %q", i, has.digest, cp.Source.ManifestDigest)
	case !wasSealed:
		c.violated(NothingLost, "pod %s is released with work %d, digest %q, which was not sealed in attempt %d", i, has.work, has.digest, cp.Attempt)
	case !i.runs && i.volume != has.work:
		c.violated(NothingLost, "pod %s is released with work %d on its volumes, and %d was sealed", i, i.volume, has.work)
	}
}

// counts reports whether what waits on a node is the state of a lineage that a migration
// goes by: only one that is committed does.
func (c *checker) counts(r *received, l *lineage) bool {
	m := c.migrationOf(r.migration)
	return r.isWaiting() && r.isSealed() && !r.m.dead && r.work >= l.acknowledged && m != nil && c.w.work.ofMigration[r.migration] == l &&
		meta.IsStatusConditionTrue(m.Status.Conditions, v1alpha1.ConditionCommitted)
}

// waitingGone is called when what waited on a node is removed.
func (c *checker) waitingGone(r *received) {
	if m := c.migrationOf(r.migration); m != nil && r.isSealed() && !r.m.dead && m.Status.Phase == v1alpha1.PhaseFailed &&
		meta.IsStatusConditionTrue(m.Status.Conditions, v1alpha1.ConditionCommitted) && !meta.IsStatusConditionTrue(m.Status.Conditions, v1alpha1.ConditionReleased) {
		c.violated(NothingLost, "what waits on node %s is removed, and PodMigration %s has failed after its commitment", r.m.node, m.Name)
		return
	}
	l := c.w.work.ofMigration[r.migration]
	if l == nil || !l.mustKeep || l.excused != "" || l.acknowledged == 0 || !c.counts(r, l) {
		return
	}
	if len(c.holders(l, r)) == 0 {
		c.violated(NothingLost, "what waited on node %s is removed, and nothing else has the work %d of %s", r.m.node, l.acknowledged, l.name)
	}
}

// diskGone is called when a disk is lost for good: what waited there alone is lost with it.
func (c *checker) diskGone(r *received) {
	l := c.w.work.ofMigration[r.migration]
	if l == nil || !r.isWaiting() || !r.isSealed() {
		return
	}
	const why = "the node died on which its state waited"
	c.touch(l, why)
	if c.counts(r, l) && len(c.holders(l, r)) == 0 {
		c.excuse(l, why)
	}
}

// copyGoes is called before an agent removes the copy of a migration from a claim.
func (c *checker) copyGoes(claim types.UID, m *v1alpha1.PodMigration) {
	on, l := c.w.work.copyOf(claim, m.CheckpointUID()), c.w.work.ofMigration[m.UID]
	if l == nil {
		l = c.w.work.ofMigration[m.CheckpointUID()]
	}
	if on == nil || !on.isSealed() || l == nil || !l.mustKeep || l.excused != "" || on.work < l.acknowledged || l.acknowledged == 0 {
		return
	}
	if len(c.holders(l, on)) == 0 {
		c.violated(NothingLost, "%s removes the sealed copy of PodMigration %s from its claim, and nothing else has the work %d", c.w.actor, m.Name, l.acknowledged)
	}
}

// thawMargin is how long an agent may take to say that a pod runs again, and to thaw it.
const thawMargin = 5 * time.Second

// staysFrozen wants that a sealed pod about which nobody decides runs again when its time is
// over, unless its node agent could not do anything about it.
func (c *checker) staysFrozen(r *frozenRecord, i *instance) {
	m := c.migrationOf(r.migration)
	if !r.sealed || i == nil || i.excused || i.m.isDown() || c.w.now < r.until+thawMargin || m == nil || m.Status.Checkpoint == nil ||
		m.Status.Checkpoint.Step != v1alpha1.StepSeal || meta.IsStatusConditionTrue(m.Status.Conditions, v1alpha1.ConditionCommitted) || m.Status.Phase.IsFinished() {
		return
	}
	c.violated(NoSideEffect, "pod %s is frozen for %s longer than it may be, and nobody has decided about it", i, c.w.now-r.until)
}

func (c *checker) touch(l *lineage, why string) {
	if l.touched == "" {
		l.touched = why
	}
}

// finalCarried wants that nothing is left on nodes and claims of a migration that has ended
// well, and that a message names the node where the only copy waits.
func (c *checker) finalCarried() {
	for _, m := range c.w.machines {
		for _, r := range m.received {
			c.finalReceived(m, r)
		}
		for _, migration := range slices.Sorted(maps.Keys(m.sent)) {
			if found := c.migrationOf(migration); decide.MayRemove(found) && !m.isDown() && !m.agent.down {
				c.violated(ItEnds, "node %s keeps what it knows of what it sent of migration %s, which has ended", m.node, migration)
			}
		}
	}
	for _, on := range c.w.work.copies {
		claim, _ := c.w.byUID[on.claim].(*corev1.PersistentVolumeClaim)
		m := c.migrationOf(on.migration)
		// One that carries nothing any more, since processes could not be, leaves what it had.
		if claim == nil || claim.DeletionTimestamp != nil || m == nil || m.Status.Phase != v1alpha1.PhaseSucceeded || !m.Status.Checkpoint.Carries() {
			continue
		}
		if i := c.w.instance(m.Status.Replacement.UID); i != nil && i.hasClaim(on.claim) && !i.m.isDown() {
			c.violated(ItEnds, "a copy of PodMigration %s is left on claim %s, though it has succeeded", m.Name, claim.Name)
		}
	}
}

func (c *checker) finalReceived(at *machine, r *received) {
	if at.isDown() || at.agent.down {
		return
	}
	m := c.migrationOf(r.migration)
	switch {
	case m == nil:
		c.violated(ItEnds, "node %s keeps what it has received of migration %s, which is gone", at.node, r.migration)
	case m.Status.Phase != v1alpha1.PhaseFailed:
		c.violated(ItEnds, "node %s keeps what it has received of PodMigration %s, which has ended as %s", at.node, m.Name, m.Status.Phase)
	case !meta.IsStatusConditionTrue(m.Status.Conditions, v1alpha1.ConditionCommitted):
		c.violated(ItEnds, "node %s keeps what it has received of PodMigration %s, which has failed before it was committed", at.node, m.Name)
	case r.isWaiting() && r.isSealed() && m.Status.CheckpointClaim == "" && !strings.Contains(m.Status.Message, "node "+at.node):
		c.violated(ItEnds, "the state of PodMigration %s waits on node %s alone, and its message does not say so: %q", m.Name, at.node, m.Status.Message)
	}
}
