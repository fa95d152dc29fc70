package main

import (
	"fmt"
	"math/rand/v2"
)

// Sizes of the generated data set, which stands in where the real one is absent.
const (
	generatedNodes   = 400
	generatedPods    = 2000
	generatedTraces  = 2000
	generatedSamples = 288
)

// generateDataset makes data in the likeness of the real one, always the same.
func generateDataset() *dataset {
	random := rand.New(rand.NewPCG(2023, 2011))
	data := &dataset{source: "generated, since there is no directory with real data"}
	for i := range generatedNodes {
		sizes := []amounts{{96000, 393216, 8000}, {104000, 524288, 2000}, {64000, 262144, 2000}, {32000, 131072, 4000}}
		data.nodes = append(data.nodes, shape{fmt.Sprint("node-", i), sizes[random.IntN(len(sizes))]})
	}
	for i := range generatedPods {
		size := amounts{milliCPU: 1000 * (1 + random.Int64N(16)), memoryMiB: 1024 * (4 + random.Int64N(60))}
		if random.Float64() < 0.6 {
			size.gpuMilli = 100 * (1 + random.Int64N(10))
		}
		data.pods = append(data.pods, shape{fmt.Sprint("pod-", i), size})
	}
	for range generatedTraces {
		data.traces = append(data.traces, generateTrace(random))
	}
	return data
}

// generateTrace walks around a level at random.
func generateTrace(random *rand.Rand) trace {
	level := 100 * random.Float64() * random.Float64()
	value, t := level, make(trace, generatedSamples)
	for i := range t {
		value += 0.2*(level-value) + 5*random.NormFloat64()
		value = min(100, max(0, value))
		t[i] = value
	}
	return t
}
