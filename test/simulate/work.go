package simulate

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// ledger knows what was worked at, and where it is.
type ledger struct {
	w        *world
	lineages []*lineage
	ofPod    map[types.UID]*lineage
	// ofMigration is what a migration moves, also when its record is gone.
	ofMigration map[types.UID]*lineage
	// copies are what is on checkpoint claims; seals what was sealed in the attempts of
	// migrations.
	copies []*copied
	seals  map[types.UID][]content
	// saved is what applications have saved on claims of their own.
	saved map[types.UID]int64
}

// lineage is a pod and the replacements that take over from it.
type lineage struct {
	number int
	name   string
	root   types.UID
	pods   []types.UID
	// acknowledged is the highest number that a container of it has acknowledged.
	acknowledged int64
	// saved is what its application saved last, in mode Application.
	saved int64
	// mustKeep: a migration has promised to carry what is acknowledged.
	mustKeep bool
	// alone: two pods of it must never work at the same time.
	alone bool
	// touched is why it may not run in the end.
	touched string
	// excused is why work may be lost: what a user or a broken machine did.
	excused string
}

// copied is the copy of a migration on a claim.
type copied struct {
	claim, migration types.UID
	content
}

func newLedger(w *world) *ledger {
	return &ledger{w: w, ofPod: map[types.UID]*lineage{}, ofMigration: map[types.UID]*lineage{}, seals: map[types.UID][]content{}, saved: map[types.UID]int64{}}
}

// lineageOf finds what a pod works at: what its original did, or something new. Pods
// with a role do no work.
func (l *ledger) lineageOf(p *corev1.Pod) *lineage {
	if p.Labels[v1alpha1.RoleLabel] != "" {
		return nil
	}
	if found := l.ofPod[p.UID]; found != nil {
		return found
	}
	found := l.ofPod[types.UID(p.Annotations[v1alpha1.OriginalUIDAnnotation])]
	if found == nil {
		found = &lineage{number: len(l.lineages) + 1, name: p.Name, root: p.UID}
		l.lineages = append(l.lineages, found)
	}
	l.ofPod[p.UID] = found
	found.pods = append(found.pods, p.UID)
	return found
}

// sealed remembers what was sealed.
func (l *ledger) sealed(migration types.UID, c content) {
	l.seals[migration] = append(l.seals[migration], c)
}

// removeCopy removes the copy of a migration from a claim.
func (l *ledger) removeCopy(claim, migration types.UID) {
	l.copies = slices.DeleteFunc(slices.Clone(l.copies), func(c *copied) bool { return c.claim == claim && c.migration == migration })
}

// copyOf is the checkpoint of a migration on a claim; nil when there is none.
func (l *ledger) copyOf(claim, migration types.UID) *copied {
	for _, c := range l.copies {
		if c.claim == claim && c.migration == migration {
			return c
		}
	}
	return nil
}

// copyFor is the same, and begins one.
func (l *ledger) copyFor(claim, migration types.UID) *copied {
	if c := l.copyOf(claim, migration); c != nil {
		return c
	}
	c := &copied{claim: claim, migration: migration}
	l.copies = append(l.copies, c)
	return c
}
