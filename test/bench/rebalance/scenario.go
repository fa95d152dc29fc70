package main

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
)

const (
	// smallestNode leaves out the nodes that hold a pod or two at most, in
	// thousandths of a CPU; largestPod the pods that fill a node.
	smallestNode, largestPod = 32_000, 16_000
	largestGPUShare          = 1000

	// requestedShare of all CPU, of all memory and of all GPUs is asked for at most.
	requestedShare = 0.6
	// busyMean is the least mean of a trace, in percent: most PlanetLab machines idle.
	busyMean = 30.0

	// overutilizedShare of the nodes start with a load in overutilizedLoad, the others in coolLoad,
	// by the mean over the run.
	overutilizedShare = 0.25

	// memoryUse is what a pod uses of the memory it asks for; the traces have none.
	memoryUse = 0.6

	fewestReplicas, mostReplicas = 3, 6
)

var overutilizedLoad, coolLoad = [2]float64{0.75, 0.88}, [2]float64{0.15, 0.45}

// scenario is a skewed cluster and its load over time.
type scenario struct {
	nodes []*node
	// replicas are the slots of all workloads. Whichever pod is in a slot uses
	// what the slot uses.
	replicas []*replica
	// factor turns percent of a pod's request, as in its trace, into its use.
	factor float64
}

type node struct {
	name  string
	shape shape
	// aim is the load that the placement gives the node.
	aim float64
	// requested and used by the pods that start here, used as a mean over the run.
	requested amounts
	used      float64
}

// replica is one of a workload's.
type replica struct {
	slot
	request amounts
	start   string
	// milliCPU it uses, by sample.
	milliCPU []float64
}

// slot names a replica.
type slot struct {
	Workload string
	Index    int
}

func (r *replica) mean() float64 { return mean(r.milliCPU) }

// milliCPUAt holds the last sample when the time runs over.
func (r *replica) milliCPUAt(sample int) float64 {
	return r.milliCPU[min(max(0, sample), len(r.milliCPU)-1)]
}

func (r *replica) memoryMiB() int64 { return int64(memoryUse * float64(r.request.memoryMiB)) }

// newScenario draws a cluster of nodes with the given names and as many samples
// of load as asked for. The same arguments give the same scenario.
func newScenario(data *dataset, names []string, samples int, seed uint64) (*scenario, error) {
	s := &scenario{}
	random := rand.New(rand.NewPCG(seed, 0x6f70656e62))
	if err := s.drawNodes(data, names, random); err != nil {
		return nil, fmt.Errorf("scenario of seed %d: %w", seed, err)
	}
	if err := s.drawReplicas(data, samples, random); err != nil {
		return nil, fmt.Errorf("scenario of seed %d: %w", seed, err)
	}
	s.scale()
	if err := s.place(); err != nil {
		return nil, fmt.Errorf("scenario of seed %d: %w", seed, err)
	}
	return s, nil
}

func (s *scenario) drawNodes(data *dataset, names []string, random *rand.Rand) error {
	large := slices.DeleteFunc(slices.Clone(data.nodes), func(n shape) bool { return n.size.milliCPU < smallestNode })
	if len(large) == 0 {
		return errors.New("the data has no node that is large enough")
	}
	overutilized := int(overutilizedShare * float64(len(names)))
	// Which of the names are overutilized is drawn too: schedulers break ties by name.
	for i, position := range random.Perm(len(names)) {
		n := &node{name: names[position], shape: large[random.IntN(len(large))]}
		between := coolLoad
		if i < overutilized {
			between = overutilizedLoad
		}
		n.aim = between[0] + (between[1]-between[0])*random.Float64()
		s.nodes = append(s.nodes, n)
	}
	slices.SortFunc(s.nodes, func(a, b *node) int { return cmp.Compare(a.name, b.name) })
	return nil
}

// drawReplicas draws workloads until they ask for their share of the CPU.
func (s *scenario) drawReplicas(data *dataset, samples int, random *rand.Rand) error {
	var total, requested amounts
	for _, n := range s.nodes {
		total = total.plus(n.shape.size)
	}
	limit := total.share(requestedShare)
	busy := slices.DeleteFunc(slices.Clone(data.traces), func(t trace) bool { return len(t) < samples || mean(t) < busyMean })
	if len(busy) == 0 {
		return fmt.Errorf("the data has no trace of %d samples and a mean of %.0f%%", samples, busyMean)
	}
	for range 100 * len(data.pods) {
		pod := data.pods[random.IntN(len(data.pods))].size
		count := fewestReplicas + random.IntN(mostReplicas-fewestReplicas+1)
		all := pod.share(float64(count))
		if pod.milliCPU == 0 || pod.milliCPU > largestPod || pod.gpuMilli > largestGPUShare || !requested.plus(all).fitsIn(limit) {
			continue
		}
		workload := fmt.Sprintf("workload-%03d", len(s.replicas))
		for index := range count {
			t := busy[random.IntN(len(busy))]
			begin := random.IntN(len(t) - samples + 1)
			s.replicas = append(s.replicas, newReplica(slot{workload, index}, pod, t[begin:begin+samples]))
		}
		if requested = requested.plus(all); requested.milliCPU > limit.milliCPU-fewestReplicas*1000 {
			break
		}
	}
	if len(s.replicas) == 0 {
		return errors.New("no pod of the data fits the nodes")
	}
	return nil
}

func newReplica(s slot, request amounts, percent trace) *replica {
	r := &replica{slot: s, request: request}
	for _, p := range percent {
		r.milliCPU = append(r.milliCPU, p/100*float64(request.milliCPU))
	}
	return r
}

// scale makes all replicas together use what the nodes are to be loaded with.
func (s *scenario) scale() {
	wanted, used := 0.0, 0.0
	for _, n := range s.nodes {
		wanted += n.aim * float64(n.shape.size.milliCPU)
	}
	for _, r := range s.replicas {
		used += r.mean()
	}
	s.factor = wanted / used
	for _, r := range s.replicas {
		for i := range r.milliCPU {
			r.milliCPU[i] *= s.factor
		}
	}
}

// place puts each replica, the one that uses most first, on the node that is
// furthest below its aim and has room for the requests.
func (s *scenario) place() error {
	order := slices.Clone(s.replicas)
	slices.SortStableFunc(order, func(a, b *replica) int { return cmp.Compare(b.mean(), a.mean()) })
	for _, r := range order {
		var best *node
		for _, n := range s.nodes {
			if n.requested.plus(r.request).fitsIn(n.shape.size) && (best == nil || n.missing() > best.missing()) {
				best = n
			}
		}
		if best == nil {
			return fmt.Errorf("no node has room for a replica of %s", r.Workload)
		}
		r.start = best.name
		best.requested = best.requested.plus(r.request)
		best.used += r.mean()
	}
	return nil
}

// missing is what the node should be loaded with and is not, in thousandths of a CPU.
func (n *node) missing() float64 { return n.aim*float64(n.shape.size.milliCPU) - n.used }
