package planner

import (
	"strings"

	"github.com/ai-storage/orchestrator/pkg/scheduling/budget"
	"github.com/ai-storage/orchestrator/pkg/scheduling/cluster"
)

// state is who would be where once the plan is done, with room, load and cost
// of each node kept up to date. It takes memory for pods and nodes, not for
// their product.
type state struct {
	index  *resourceIndex
	nodes  []node
	pods   []pod
	shapes shapes
	limits limits
	// weights are never all zero.
	weights Weights
	// moveCostFactor is how many times its cost a move must gain.
	moveCostFactor float64
	// total is what all nodes cost, packed the packing in it, and price what the
	// moves cost.
	total, packed, price float64
	// moved are the pods that are not at home, in the order in which they left.
	moved []*pod
	// siblings counts the moved pods of each workload.
	siblings []int
	ledger   *budget.Ledger
	// scratch and roomRow are rows to work on.
	scratch, roomRow []int64
}

// node is a node in the search. Index 0 of a pair is CPU, 1 is memory.
type node struct {
	*cluster.Node
	id int32
	// usable nodes are measured and not skipped.
	usable bool
	// source nodes may give pods away when they are overutilized.
	source bool
	load   [2]int64
	// atStart is the load before the plan.
	atStart [2]int64
	// arrived is the load that the plan brings.
	arrived [2]int64
	inverse []float64
	// free is what is left for requests when the plan is done; held is what is
	// left while the originals of all moves still hold their places.
	free, held []int64
	// zones is free for each NUMA node; nil where the node does not tell.
	zones [][]int64
	// evictable is what those pods request that keep the node from being empty.
	evictable [2]int64
	// pinned nodes hold a pod that cannot leave, so they are never empty.
	pinned bool
	// residents are the pods that are there at the start.
	residents []int32
	// cost and packing are what the node costs now; packing is the part that
	// consolidation and defragmentation add, and is contained in cost.
	cost, packing float64
}

// pod is a pod in the search.
type pod struct {
	*cluster.Pod
	id       int32
	home, at int32
	// zone it was given on its new node, or anyZone.
	zone     int
	usage    [2]int64
	workload int32
	// requests of the original, stripped of the replacement.
	requests, stripped []int64
	movable            bool
	// occupies reports that the pod keeps its node from being empty.
	occupies bool
	// why is the rule that allowed the latest move.
	why rule
	// hasRefusals reports that the scheduler refused some node.
	hasRefusals bool
	// isOrdered tells, while the plan is put into order, that the pod has its turn.
	isOrdered bool
}

const (
	// anyZone: the pod is spread over all NUMA nodes, or the node has none.
	anyZone = -1
	// noZone: the pod needs one NUMA node, and none has room.
	noZone = -2
)

func newState(snapshot *cluster.Snapshot, options Options) *state {
	s := &state{weights: options.Weights.orBalance(), moveCostFactor: max(1, options.MinimumGain), ledger: options.Budget}
	s.index = &resourceIndex{}
	for _, r := range options.Shapes {
		s.index.include(r)
	}
	for _, n := range snapshot.Nodes {
		s.index.include(n.Allocatable)
	}
	for _, p := range snapshot.Pods {
		s.index.include(p.Requests)
		s.index.include(p.StrippedRequests)
	}
	s.index.sort()
	s.shapes = newShapes(options.Shapes, s.index)
	byName := s.addNodes(snapshot.Nodes, options)
	s.addPods(snapshot.Pods, byName)
	s.limits = limitsOf(options, s.nodes)
	s.scratch = make([]int64, s.index.size())
	for i := range s.nodes {
		n := &s.nodes[i]
		s.reprice(n)
	}
	return s
}

func (s *state) addNodes(list []*cluster.Node, options Options) map[string]int32 {
	size := s.index.size()
	rows := make([]int64, 2*size*len(list))
	byName := make(map[string]int32, len(list))
	s.nodes = make([]node, len(list))
	for i, from := range list {
		n := &s.nodes[i]
		*n = node{Node: from, id: int32(i), usable: from.Measured != nil && from.Skipped == ""}
		n.free, n.held, rows = rows[:size:size], rows[size:2*size:2*size], rows[2*size:]
		s.index.fill(n.free, from.Allocatable)
		n.inverse = inverses(n.free)
		for _, zone := range from.Zones {
			n.zones = append(n.zones, s.index.vector(zone))
		}
		if from.Measured != nil {
			n.load = [2]int64{from.Measured.MilliCPU, from.Measured.Memory}
			n.atStart = n.load
		}
		n.source = n.usable && (options.Sources == nil || options.Sources[n.Name])
		byName[n.Name] = n.id
	}
	return byName
}

func (s *state) addPods(list []*cluster.Pod, byName map[string]int32) {
	size := s.index.size()
	rows := make([]int64, 2*size*len(list))
	workloads := map[string]int32{}
	countsPods := s.podsIndex()
	s.pods = make([]pod, 0, len(list))
	for _, from := range list {
		home, known := byName[from.NodeName]
		if !known {
			continue
		}
		workload, seen := workloads[from.Workload]
		if !seen {
			workload = int32(len(workloads))
			workloads[from.Workload] = workload
		}
		s.pods = append(s.pods, pod{Pod: from, id: int32(len(s.pods)), home: home, at: home, zone: anyZone, workload: workload})
		p, n := &s.pods[len(s.pods)-1], &s.nodes[home]
		p.requests, p.stripped, rows = rows[:size:size], rows[size:2*size:2*size], rows[2*size:]
		s.index.fill(p.requests, from.Requests)
		s.index.fill(p.stripped, from.StrippedRequests)
		if countsPods >= 0 {
			p.requests[countsPods], p.stripped[countsPods] = 1, 1
		}
		p.movable = from.Immovable == "" && from.Measured != nil && n.usable
		if from.Measured != nil {
			p.usage = [2]int64{from.Measured.MilliCPU, from.Measured.Memory}
		}
		n.residents = append(n.residents, p.id)
		addTo(n.free, p.requests, -1)
		s.countOccupant(n, p)
	}
	for i := range s.nodes {
		copy(s.nodes[i].held, s.nodes[i].free)
	}
	s.siblings = make([]int, len(workloads))
}

// podsIndex is where vectors count pods, or -1 when no node limits them.
func (s *state) podsIndex() int {
	for i, name := range s.index.names {
		if name == podsResource {
			return 2 + i
		}
	}
	return -1
}

// countOccupant notes what keeps the node from being empty. Pods that belong to the
// node, of DaemonSets and of the kubelet itself, do not.
func (s *state) countOccupant(n *node, p *pod) {
	if strings.HasPrefix(p.Workload, "DaemonSet/") || strings.HasPrefix(p.Workload, "Node/") {
		return
	}
	p.occupies = true
	if !p.movable {
		n.pinned = true
		return
	}
	n.evictable[0] += p.requests[0]
	n.evictable[1] += p.requests[1]
}
