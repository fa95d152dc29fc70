package main

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var begin = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func after(seconds int) time.Time { return begin.Add(time.Duration(seconds) * time.Second) }

// pair is a workload of two replicas: a on node A, b on node B.
func pair() *lineage {
	l := newLineage()
	l.seed("a", "a", slot{"w", 0}, "A", begin)
	l.seed("b", "b", slot{"w", 1}, "B", begin)
	return l
}

// evict ends a pod, and its ReplicaSet at once makes another one.
func evict(l *lineage, uid, successor, node string, at int) {
	l.leaving(uid, after(at))
	l.appeared(successor, successor, "w", "")
	l.placed(successor, node)
	l.started(successor, after(at+1))
	l.gone(uid, after(at+2))
}

// migrate starts the replacement first.
func migrate(l *lineage, uid, replacement, node string, at int) {
	l.appeared(replacement, replacement, "w", uid)
	l.placed(replacement, node)
	l.started(replacement, after(at+1))
	l.leaving(uid, after(at+2))
	l.gone(uid, after(at+3))
}

func TestMoves(t *testing.T) {
	for _, test := range []struct {
		name string
		play func(*lineage)
		want []move
		back int
	}{
		{"nothing happens", func(*lineage) {}, nil, 0},
		{
			"an eviction", func(l *lineage) { evict(l, "a", "a2", "C", 10) },
			[]move{{Replica: 0, Pod: "a", At: after(10), From: "A", To: "C"}}, 0,
		},
		{
			"back at once", func(l *lineage) { evict(l, "a", "a2", "A", 10) },
			[]move{{Replica: 0, Pod: "a", At: after(10), From: "A", To: "A"}}, 1,
		},
		{
			"undone later", func(l *lineage) { evict(l, "a", "a2", "C", 10); evict(l, "a2", "a3", "A", 20) },
			[]move{
				{Replica: 0, Pod: "a", At: after(10), From: "A", To: "C"},
				{Replica: 0, Pod: "a2", At: after(20), From: "C", To: "A", Undoes: true},
			}, 1,
		},
		{
			"undone over a detour", func(l *lineage) {
				evict(l, "a", "a2", "C", 10)
				evict(l, "a2", "a3", "D", 20)
				evict(l, "a3", "a4", "A", 30)
			},
			[]move{
				{Replica: 0, Pod: "a", At: after(10), From: "A", To: "C"},
				{Replica: 0, Pod: "a2", At: after(20), From: "C", To: "D"},
				{Replica: 0, Pod: "a3", At: after(30), From: "D", To: "A", Undoes: true},
			}, 1,
		},
		{
			"where a sibling was is not back", func(l *lineage) { evict(l, "a", "a2", "C", 10); evict(l, "b", "b2", "A", 20) },
			[]move{
				{Replica: 0, Pod: "a", At: after(10), From: "A", To: "C"},
				{Replica: 1, Pod: "b", At: after(20), From: "B", To: "A"},
			}, 0,
		},
		{
			"two at once are continued in the order in which they left", func(l *lineage) {
				l.leaving("b", after(10))
				l.leaving("a", after(11))
				l.appeared("x", "x", "w", "")
				l.appeared("y", "y", "w", "")
				l.placed("y", "D")
				l.placed("x", "C")
			},
			[]move{
				{Replica: 1, Pod: "b", At: after(10), From: "B", To: "C"},
				{Replica: 0, Pod: "a", At: after(11), From: "A", To: "D"},
			}, 0,
		},
		{
			"a successor without a place", func(l *lineage) { l.leaving("a", after(10)); l.appeared("a2", "a2", "w", "") },
			[]move{{Replica: 0, Pod: "a", At: after(10), From: "A"}}, 0,
		},
		{
			"a migration", func(l *lineage) { migrate(l, "b", "b2", "C", 10) },
			[]move{{Replica: 1, Pod: "b", At: after(12), From: "B", To: "C"}}, 0,
		},
		{
			"a migration there and back", func(l *lineage) { migrate(l, "b", "b2", "C", 10); migrate(l, "b2", "b3", "B", 20) },
			[]move{
				{Replica: 1, Pod: "b", At: after(12), From: "B", To: "C"},
				{Replica: 1, Pod: "b2", At: after(22), From: "C", To: "B", Undoes: true},
			}, 1,
		},
		{
			"a replacement that is given up is no move", func(l *lineage) {
				l.appeared("b2", "b2", "w", "b")
				l.placed("b2", "C")
				l.gone("b2", after(15))
			}, nil, 0,
		},
		{
			"a move after one that was given up", func(l *lineage) {
				l.appeared("b2", "b2", "w", "b")
				l.placed("b2", "C")
				l.gone("b2", after(15))
				migrate(l, "b", "b3", "D", 20)
			},
			[]move{{Replica: 1, Pod: "b", At: after(22), From: "B", To: "D"}}, 0,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := pair()
			test.play(l)
			got := l.moves()
			if diff := cmp.Diff(test.want, got, cmpopts.IgnoreFields(move{}, "Workload")); diff != "" {
				t.Errorf("moves (-want +got):\n%s", diff)
			}
			back := 0
			for _, m := range got {
				if m.isBack() {
					back++
				}
			}
			if back != test.back {
				t.Errorf("%d came back, want %d", back, test.back)
			}
			if len(l.strangers) > 0 {
				t.Errorf("strangers %v", l.strangers)
			}
		})
	}
}

func TestAPodThatContinuesNobodyIsAStranger(t *testing.T) {
	l := pair()
	for range 2 {
		if s, known := l.appeared("x", "x", "w", ""); known {
			t.Errorf("it was given %v, whose pod stays", s)
		}
	}
	if _, known := l.appeared("y", "y", "another", ""); known {
		t.Error("a pod of an unknown workload was given a slot")
	}
	if diff := cmp.Diff([]string{"x", "y"}, l.strangers); diff != "" {
		t.Errorf("strangers (-want +got):\n%s", diff)
	}
}

func TestIsDown(t *testing.T) {
	l := pair()
	chain := l.slots[slot{"w", 0}]
	steps := []struct {
		play func()
		down bool
	}{
		{func() {}, false},
		{func() { l.leaving("a", after(1)) }, false}, // until its grace period is over, it works
		{func() { l.appeared("a2", "a2", "w", "") }, false},
		{func() { l.gone("a", after(2)) }, true},
		{func() { l.started("a2", after(3)) }, false},
	}
	for i, step := range steps {
		step.play()
		if chain.isDown() != step.down {
			t.Errorf("step %d: down is %v", i, chain.isDown())
		}
	}
}
