package simulate

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// kill ends a frozen pod, whose processes take no other step.
func (a *agent) kill(migration, pod types.UID) {
	if i := a.m.instance(pod); i != nil {
		i.killed = true
		if i.stage == running {
			i.stage = ending
			i.awaitEnd(0, 0)
		}
	}
	a.removeRecord(migration)
}

// killAndHold freezes a pod again that did not stay as it was, and takes it as it is now.
func (a *agent) killAndHold(migration types.UID) {
	r := a.record(migration)
	if r == nil {
		return
	}
	r.boots, r.disturbed = a.m.boots, false
	if i := a.m.instance(r.pod); i != nil {
		i.change(func() { i.frozen = true })
		r.restarts = i.restarts
	}
}

// watch looks at every frozen pod: one that an agent froze which died is thawed, one that
// was sealed is frozen again when it is not as it was. It needs no API server for that.
func (a *agent) watch() {
	if a.m.off || len(a.records) == 0 {
		a.watching = false
		return
	}
	a.w.after(lookAgain, a.watch)
	if a.down {
		return
	}
	for at := range a.records {
		r := &a.records[at]
		i := a.m.instance(r.pod)
		switch {
		case !r.sealed && (a.running[r.key] == nil || a.w.now > r.sealBy):
			a.unfreeze(r.migration, r.pod)
			return
		case !r.sealed || i == nil || r.boots == a.m.boots && i.frozen && i.restarts == r.restarts:
		default:
			r.disturbed = true
			if i.stage < ended {
				i.change(func() { i.frozen = true })
			}
		}
		a.enqueue(r.key, a.w.now)
	}
}

func (a *agent) beginWatch() {
	if !a.watching && len(a.records) > 0 {
		a.watching = true
		a.w.after(lookAgain, a.watch)
	}
}

// collect thaws pods whose migration is gone.
func (a *agent) collect() {
	a.w.after(gcInterval, a.collect)
	if a.down || a.m.isDown() {
		return
	}
	for _, r := range slices.Clone(a.records) {
		if m := lookup[*v1alpha1.PodMigration](a.w.store, migrations, r.key.Namespace, r.key.Name); m == nil || m.UID != r.migration {
			if r.released {
				a.orphaned(r)
				continue
			}
			a.unfreeze(r.migration, r.pod)
		}
	}
}

// isStranded reports whether a pod stays frozen until a user decides.
func (a *agent) isStranded(pod types.UID) bool {
	return slices.ContainsFunc(a.records, func(r frozenRecord) bool { return r.pod == pod && r.stranded })
}

// orphaned ends the freezing of a pod whose migration is gone and whose replacement was
// released: it must not run beside it.
func (a *agent) orphaned(r frozenRecord) {
	p, _ := a.w.byUID[r.pod].(*corev1.Pod)
	switch {
	case p == nil || p.DeletionTimestamp != nil:
		a.kill(r.migration, r.pod)
	case r.disturbed:
		a.killAndHold(r.migration)
	default:
		a.record(r.migration).stranded = true
	}
}
