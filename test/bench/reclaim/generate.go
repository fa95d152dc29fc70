package main

import (
	"fmt"
	"math/rand/v2"
)

// complete generates what no file told.
func (d *data) complete(seed uint64) {
	random := rand.New(rand.NewPCG(seed, 7))
	if len(d.nodes) == 0 {
		d.generated = append(d.generated, "nodes")
		for i := range 200 {
			size := []node{{cpu: 96000, memory: 393216}, {cpu: 32000, memory: 131072}, {cpu: 8000, memory: 32768}}[random.IntN(3)]
			size.name = fmt.Sprint("generated-", i)
			d.nodes = append(d.nodes, size)
		}
	}
	if len(d.instances) > 0 {
		return
	}
	d.generated = append(d.generated, "pods")
	several, single := instance{Name: "generated pipelines"}, instance{Name: "generated jobs of one container"}
	for i := range 80 {
		t := task{name: fmt.Sprint("task-", i)}
		for s := range 1 + random.IntN(8) {
			t.steps = append(t.steps, randomStep(random, fmt.Sprint("step-", s)))
		}
		several.tasks = append(several.tasks, t)
		single.tasks = append(single.tasks, task{name: t.name, steps: []step{randomStep(random, "job")}})
	}
	d.instances = []instance{several, single}
}

// randomStep requests something in half of all cases, as steps do in the wild.
func randomStep(random *rand.Rand, name string) step {
	s := step{name: name, finishes: true}
	if random.IntN(2) == 0 {
		return s
	}
	cpu, memory := int64(50*(1+random.IntN(40))), int64(64*(1+random.IntN(64)))
	s.cpu, s.memory, s.memoryMax = &cpu, &memory, &memory
	return s
}
