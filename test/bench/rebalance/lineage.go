package main

import (
	"fmt"
	"slices"
	"time"
)

// lineage tells which pod continues which. The pods of a ReplicaSet look alike,
// but each takes over the load of one that went: the replacement of a migration
// says of which, any other new pod continues the pod of its workload that began
// to end first and has no successor yet.
//
// It is fed with what a watch of all pods tells, in the watch's order.
type lineage struct {
	pods  map[string]*podLife
	slots map[slot]*chain
	// order of the slots, so that what is counted does not depend on a map.
	order []slot
	// strangers are pods that continue nobody.
	strangers []string
}

// podLife is one pod, by its UID.
type podLife struct {
	uid  string
	name string
	slot slot
	node string
	// started is when it began to run; leaving when its deletion began; gone when
	// it was no more.
	started, leaving, gone time.Time
}

func (p *podLife) runs() bool   { return !p.started.IsZero() && p.gone.IsZero() }
func (p *podLife) leaves() bool { return !p.leaving.IsZero() }

// chain holds the pods of one slot, in the order in which they came.
type chain struct{ pods []*podLife }

func newLineage() *lineage {
	return &lineage{pods: map[string]*podLife{}, slots: map[slot]*chain{}}
}

// seed enters a pod that is there from the beginning.
func (l *lineage) seed(uid, name string, s slot, node string, at time.Time) {
	l.enter(&podLife{uid: uid, name: name, slot: s, node: node, started: at})
}

func (l *lineage) enter(pod *podLife) {
	if l.slots[pod.slot] == nil {
		l.slots[pod.slot] = &chain{}
		l.order = append(l.order, pod.slot)
	}
	l.pods[pod.uid] = pod
	l.slots[pod.slot].pods = append(l.slots[pod.slot].pods, pod)
}

// appeared enters a new pod of a workload. The UID of the pod that it replaces
// is "" when nothing says so. It returns the slot, and false for a stranger.
func (l *lineage) appeared(uid, name, workload, replaces string) (slot, bool) {
	if known := l.pods[uid]; known != nil {
		return known.slot, true
	}
	predecessor := l.pods[replaces]
	if predecessor == nil {
		predecessor = l.firstWithoutSuccessor(workload)
	}
	if predecessor == nil {
		if !slices.Contains(l.strangers, uid) {
			l.strangers = append(l.strangers, uid)
		}
		return slot{}, false
	}
	l.enter(&podLife{uid: uid, name: name, slot: predecessor.slot})
	return predecessor.slot, true
}

// firstWithoutSuccessor is the last pod of a slot in which all pods leave.
func (l *lineage) firstWithoutSuccessor(workload string) *podLife {
	var first *podLife
	for _, s := range l.order {
		if s.Workload != workload {
			continue
		}
		pods := l.slots[s].pods
		if slices.ContainsFunc(pods, func(p *podLife) bool { return !p.leaves() }) {
			continue
		}
		if last := pods[len(pods)-1]; first == nil || last.leaving.Before(first.leaving) {
			first = last
		}
	}
	return first
}

// placed says on which node a pod is.
func (l *lineage) placed(uid, node string) {
	if pod := l.pods[uid]; pod != nil {
		pod.node = node
	}
}

func (l *lineage) started(uid string, at time.Time) {
	if pod := l.pods[uid]; pod != nil && pod.started.IsZero() {
		pod.started = at
	}
}

func (l *lineage) leaving(uid string, at time.Time) {
	if pod := l.pods[uid]; pod != nil && pod.leaving.IsZero() {
		pod.leaving = at
	}
}

// gone ends a pod. A pod that nobody saw leaving left now.
func (l *lineage) gone(uid string, at time.Time) {
	l.leaving(uid, at)
	if pod := l.pods[uid]; pod != nil && pod.gone.IsZero() {
		pod.gone = at
	}
}

// move is a pod that left its node, and the pod that continued it.
type move struct {
	Workload string    `json:"workload"`
	Replica  int       `json:"replica"`
	Pod      string    `json:"pod"`
	At       time.Time `json:"at"`
	From     string    `json:"from"`
	// To is "" while the successor has no place.
	To string `json:"to"`
	// Undoes says that the replica had left To before: the move takes an earlier
	// one back.
	Undoes bool `json:"undoes"`
}

// isBack says that the pod came back to the node that it was moved away from,
// at once or later.
func (m move) isBack() bool { return m.To == m.From || m.Undoes }

// moves are all departures of pods, in the order of time. Replacements that
// were given up while their original stayed are none.
func (l *lineage) moves() []move {
	var all []move
	for _, s := range l.order {
		all = append(all, l.slots[s].moves()...)
	}
	slices.SortStableFunc(all, func(a, b move) int { return a.At.Compare(b.At) })
	return all
}

func (c *chain) moves() []move {
	stays := slices.DeleteFunc(slices.Clone(c.pods), c.isGivenUp)
	var found []move
	left := map[string]bool{}
	for i, pod := range stays {
		if !pod.leaves() || pod.node == "" {
			continue
		}
		m := move{Workload: pod.slot.Workload, Replica: pod.slot.Index, Pod: pod.name, At: pod.leaving, From: pod.node}
		if i+1 < len(stays) {
			m.To = stays[i+1].node
		}
		m.Undoes = m.To != m.From && left[m.To]
		left[m.From] = true
		found = append(found, m)
	}
	return found
}

// isGivenUp reports whether a pod left while one that was there before it stayed.
func (c *chain) isGivenUp(pod *podLife) bool {
	if !pod.leaves() {
		return false
	}
	for _, other := range c.pods {
		if other == pod {
			return false
		}
		if !other.leaves() || other.leaving.After(pod.leaving) {
			return true
		}
	}
	return false
}

// isDown reports whether no pod of the slot runs.
func (c *chain) isDown() bool { return !slices.ContainsFunc(c.pods, (*podLife).runs) }

func (s slot) String() string { return fmt.Sprintf("%s/%d", s.Workload, s.Index) }
