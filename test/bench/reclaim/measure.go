package main

import (
	"math/rand/v2"

	"github.com/ai-storage/orchestrator/pkg/scheduling/cluster"
)

// result is what was measured of one instance.
type result struct {
	Instance string `json:"instance"`
	Tasks    int    `json:"tasks"`
	Steps    int    `json:"steps"`
	Pods     int    `json:"pods"`
	Nodes    int    `json:"nodes"`
	Control  bool   `json:"negativeControl"`
	Resizes  int    `json:"resizes"`
	// WaitingKinds are the tasks whose pods find no room in the full cluster.
	WaitingKinds int     `json:"waitingKinds"`
	Stages       []stage `json:"stages"`
	// CPURequested and MemoryRequested are of the pods before anything finished.
	CPURequested    float64 `json:"cpuRequestedCores"`
	MemoryRequested float64 `json:"memoryRequestedGiB"`
	Seconds         float64 `json:"seconds"`

	perTask []taskStage
}

// stage is after so many steps of every pod have finished.
type stage struct {
	Stage         int     `json:"stage"`
	FinishedSteps int     `json:"finishedSteps"`
	CPUCeiling    float64 `json:"cpuCeilingCores"`
	CPUReclaimed  float64 `json:"cpuReclaimedCores"`
	MemoryCeiling float64 `json:"memoryCeilingGiB"`
	// MemoryReclaimed, like all others, is of all pods of the cluster.
	MemoryReclaimed float64 `json:"memoryReclaimedGiB"`
	// Extra pods, of the kinds that wait, that were admitted until now: without reclaim, with it, and if
	// exactly what finished steps requested were free.
	ExtraWithout int `json:"extraPodsWithout"`
	Extra        int `json:"extraPods"`
	ExtraCeiling int `json:"extraPodsCeiling"`
}

// taskStage is one pod of one task at one stage, for whoever wants to check.
type taskStage struct {
	task                                         string
	stage                                        int
	cpuCeiling, cpuCounted, cpuOriginal          int64 // thousandths of a CPU
	memoryCeiling, memoryCounted, memoryOriginal int64 // bytes
}

// world is a packed cluster and what became of it in three ways: without reclaim,
// with it, and if exactly what finished steps requested were free.
type world struct {
	tasks []task
	alive []*live
	pods  []placed
	// kinds of pods wait for room.
	kinds                []cluster.Resources
	without, with, exact *rooms
	// freed and ceiling of a pod of each task, at the stage before.
	freed, ceiling []cluster.Resources
	seed           uint64
}

// measure packs an instance on nodes and lets its steps finish.
func measure(in instance, nodes []node, o options) (*result, error) {
	full := newRooms(nodes, o.podsPerNode)
	w := &world{tasks: in.tasks, seed: o.seed, pods: full.fill(in.tasks, rand.New(rand.NewPCG(o.seed, 1)))}
	w.kinds = full.thatWait(in.tasks)
	w.without, w.with, w.exact = full.clone(), full.clone(), full
	w.freed, w.ceiling = make([]cluster.Resources, len(in.tasks)), make([]cluster.Resources, len(in.tasks))
	r := &result{
		Instance: in.Name, Tasks: len(in.tasks), Pods: len(w.pods), Nodes: len(nodes), WaitingKinds: len(w.kinds), Control: true,
	}
	last := 0
	for i := range in.tasks {
		steps := len(in.tasks[i].steps)
		w.alive = append(w.alive, newLive(&in.tasks[i]))
		r.Steps, last, r.Control = r.Steps+steps, max(last, steps-1), r.Control && steps == 1
	}
	for _, p := range w.pods {
		asks := in.tasks[p.task].asks()
		r.CPURequested, r.MemoryRequested = r.CPURequested+cores(asks), r.MemoryRequested+gibibytes(asks)
	}
	for number := 0; number <= last; number++ {
		s, err := w.advance(number)
		if err != nil {
			return nil, err
		}
		if number > 0 {
			before := r.Stages[number-1]
			s.ExtraWithout, s.Extra, s.ExtraCeiling = s.ExtraWithout+before.ExtraWithout, s.Extra+before.Extra, s.ExtraCeiling+before.ExtraCeiling
		}
		r.Stages = append(r.Stages, s)
		for _, l := range w.alive {
			r.perTask = append(r.perTask, l.at(number))
		}
	}
	for _, l := range w.alive {
		r.Resizes += l.resizes
		if err := l.checkEnds(); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// advance brings all pods to a stage and admits pods that wait.
func (w *world) advance(number int) (stage, error) {
	s := stage{Stage: number}
	freed, ceiling := make([]cluster.Resources, len(w.alive)), make([]cluster.Resources, len(w.alive))
	for i, l := range w.alive {
		if err := l.advance(number); err != nil {
			return s, err
		}
		freed[i], ceiling[i] = l.task.asks().Sub(l.counted()), l.task.ceilingAt(number)
	}
	for _, p := range w.pods {
		s.FinishedSteps += w.tasks[p.task].finishedAt(number)
		s.CPUReclaimed, s.MemoryReclaimed = s.CPUReclaimed+cores(freed[p.task]), s.MemoryReclaimed+gibibytes(freed[p.task])
		s.CPUCeiling, s.MemoryCeiling = s.CPUCeiling+cores(ceiling[p.task]), s.MemoryCeiling+gibibytes(ceiling[p.task])
		w.with.free[p.node] = w.with.free[p.node].Add(freed[p.task].Sub(w.freed[p.task]))
		w.exact.free[p.node] = w.exact.free[p.node].Add(ceiling[p.task].Sub(w.ceiling[p.task]))
	}
	w.freed, w.ceiling = freed, ceiling
	// The same pods come in all three ways.
	arrivals := func() *rand.Rand { return rand.New(rand.NewPCG(w.seed, uint64(2+number))) }
	s.ExtraWithout, s.Extra, s.ExtraCeiling = w.without.admit(w.kinds, arrivals()), w.with.admit(w.kinds, arrivals()), w.exact.admit(w.kinds, arrivals())
	return s, nil
}

func (l *live) at(stage int) taskStage {
	counted, ceiling, original := l.counted(), l.task.ceilingAt(stage), l.task.asks()
	return taskStage{
		task: l.task.name, stage: stage,
		cpuCeiling: ceiling.MilliCPU, cpuCounted: counted.MilliCPU, cpuOriginal: original.MilliCPU,
		memoryCeiling: ceiling.Memory, memoryCounted: counted.Memory, memoryOriginal: original.Memory,
	}
}

func cores(r cluster.Resources) float64     { return float64(r.MilliCPU) / 1000 }
func gibibytes(r cluster.Resources) float64 { return float64(r.Memory) / (1 << 30) }
