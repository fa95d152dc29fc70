package main

import (
	"math/rand/v2"

	"github.com/ai-storage/orchestrator/pkg/scheduling/cluster"
)

// waiting is how many pods must have found no room until a cluster counts as full.
const waiting = 1000

// patience is how many pods in a row must find no room until no more are tried.
const patience = 200

// rooms are what is left of nodes for more pods.
type rooms struct {
	free []cluster.Resources
	pods []int
	next int
}

func newRooms(nodes []node, podsPerNode int) *rooms {
	r := &rooms{}
	for _, n := range nodes {
		r.free = append(r.free, cluster.Resources{MilliCPU: n.cpu, Memory: n.memory * mebibyte})
		r.pods = append(r.pods, podsPerNode)
	}
	return r
}

func (r *rooms) clone() *rooms {
	return &rooms{free: append([]cluster.Resources(nil), r.free...), pods: append([]int(nil), r.pods...), next: r.next}
}

// place takes the first node with room, in turn.
func (r *rooms) place(asks cluster.Resources) (node int, found bool) {
	for range r.free {
		node = r.next
		r.next = (r.next + 1) % len(r.free)
		if r.pods[node] > 0 && asks.FitsIn(r.free[node]) {
			r.free[node] = r.free[node].Sub(asks)
			r.pods[node]--
			return node, true
		}
	}
	return 0, false
}

// placed tells on which node a pod of which task is.
type placed struct{ task, node int }

// fill places pods of all tasks, as they come, until so many wait for room.
func (r *rooms) fill(tasks []task, random *rand.Rand) []placed {
	var pods []placed
	for failures := 0; failures < waiting; {
		i := random.IntN(len(tasks))
		if node, found := r.place(tasks[i].asks()); found {
			pods = append(pods, placed{task: i, node: node})
		} else {
			failures++
		}
	}
	return pods
}

// thatWait returns what the kinds of pods request that find no room on any node.
func (r *rooms) thatWait(tasks []task) (asks []cluster.Resources) {
	for i := range tasks {
		if _, found := r.clone().place(tasks[i].asks()); !found {
			asks = append(asks, tasks[i].asks())
		}
	}
	return asks
}

// admit places pods of the kinds that wait, until no more do, and counts them.
func (r *rooms) admit(kinds []cluster.Resources, random *rand.Rand) (admitted int) {
	for failures := 0; failures < patience && len(kinds) > 0; {
		if _, found := r.place(kinds[random.IntN(len(kinds))]); found {
			admitted, failures = admitted+1, 0
		} else {
			failures++
		}
	}
	return admitted
}
