package main

import (
	"math/rand/v2"

	"github.com/ai-storage/orchestrator/pkg/cluster"
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
	// exactly what finished steps asked for were free.
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

// measure packs an instance on nodes and lets its steps finish.
func measure(in instance, nodes []node, o options) (*result, error) {
	full := newRooms(nodes, o.podsPerNode)
	pods := full.fill(in.tasks, rand.New(rand.NewPCG(o.seed, 1)))
	r := &result{Instance: in.Name, Tasks: len(in.tasks), Pods: len(pods), Nodes: len(nodes), Control: true}
	alive, last := make([]*live, len(in.tasks)), 0
	for i := range in.tasks {
		t := &in.tasks[i]
		alive[i] = newLive(t)
		r.Steps += len(t.steps)
		last = max(last, len(t.steps)-1)
		r.Control = r.Control && len(t.steps) == 1
	}
	for _, p := range pods {
		asks := in.tasks[p.task].asks()
		r.CPURequested += cores(asks)
		r.MemoryRequested += gibibytes(asks)
	}
	kinds := full.thatWait(in.tasks)
	r.WaitingKinds = len(kinds)
	without, with, exact := full.clone(), full.clone(), full
	freedBefore, exactBefore := make([]cluster.Resources, len(alive)), make([]cluster.Resources, len(alive))
	for number := 0; number <= last; number++ {
		s := stage{Stage: number}
		freed, ceiling := make([]cluster.Resources, len(alive)), make([]cluster.Resources, len(alive))
		for i, l := range alive {
			if err := l.advance(number); err != nil {
				return nil, err
			}
			freed[i], ceiling[i] = l.task.asks().Sub(l.counted()), l.task.ceilingAt(number)
			r.perTask = append(r.perTask, l.at(number))
		}
		for _, p := range pods {
			s.FinishedSteps += in.tasks[p.task].finishedAt(number)
			s.CPUReclaimed, s.MemoryReclaimed = s.CPUReclaimed+cores(freed[p.task]), s.MemoryReclaimed+gibibytes(freed[p.task])
			s.CPUCeiling, s.MemoryCeiling = s.CPUCeiling+cores(ceiling[p.task]), s.MemoryCeiling+gibibytes(ceiling[p.task])
			with.free[p.node] = with.free[p.node].Add(freed[p.task].Sub(freedBefore[p.task]))
			exact.free[p.node] = exact.free[p.node].Add(ceiling[p.task].Sub(exactBefore[p.task]))
		}
		freedBefore, exactBefore = freed, ceiling
		// The same pods come in all three worlds.
		arrivals := func() *rand.Rand { return rand.New(rand.NewPCG(o.seed, uint64(2+number))) }
		s.ExtraWithout, s.Extra, s.ExtraCeiling = without.admit(kinds, arrivals()), with.admit(kinds, arrivals()), exact.admit(kinds, arrivals())
		if number > 0 {
			before := r.Stages[number-1]
			s.ExtraWithout, s.Extra, s.ExtraCeiling = s.ExtraWithout+before.ExtraWithout, s.Extra+before.Extra, s.ExtraCeiling+before.ExtraCeiling
		}
		r.Stages = append(r.Stages, s)
	}
	for i, l := range alive {
		if err := l.checkEnds(); err != nil {
			return nil, err
		}
		r.Resizes += alive[i].resizes
	}
	return r, nil
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
