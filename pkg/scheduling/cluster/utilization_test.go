package cluster_test

import (
	"math"
	"testing"

	"github.com/ai-storage/orchestrator/pkg/scheduling/cluster"
)

func TestIsOverutilized(t *testing.T) {
	node := &cluster.Node{Allocatable: cluster.Resources{MilliCPU: 3000, Memory: 1000}}
	limit := cluster.Percent(70, 80)
	for _, test := range []struct {
		name             string
		milliCPU, memory int64
		want             bool
	}{
		{"idle", 0, 0, false},
		{"at both limits", 2100, 800, false},
		{"CPU above", 2101, 0, true},
		{"memory above", 0, 801, true},
	} {
		if got := node.IsOverutilized(test.milliCPU, test.memory, limit); got != test.want {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
	if (&cluster.Node{}).IsOverutilized(1, 1, limit) {
		t.Error("a node that can allocate nothing is overutilized")
	}
}

func TestOverutilizedAbove(t *testing.T) {
	loads := []cluster.Utilization{{CPU: 0.25, Memory: 0.5}, {CPU: 0.75, Memory: 0.5}}
	thresholds := cluster.Utilization{CPU: 0.125, Memory: 0.25}
	for _, test := range []struct {
		name     string
		fromMean bool
		loads    []cluster.Utilization
		want     cluster.Utilization
	}{
		{"absolute", false, loads, thresholds},
		{"above the mean", true, loads, cluster.Utilization{CPU: 0.625, Memory: 0.75}},
		{"above the mean of nothing", true, nil, thresholds},
	} {
		if got := cluster.OverutilizedAbove(thresholds, test.fromMean, test.loads); got != test.want {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}

func TestDeviation(t *testing.T) {
	for _, test := range []struct {
		values []float64
		want   float64
	}{{nil, 0}, {[]float64{5}, 0}, {[]float64{2, 4, 4, 4, 5, 5, 7, 9}, 2}} {
		if got := cluster.Deviation(test.values); math.Abs(got-test.want) > 1e-12 {
			t.Errorf("deviation of %v: %v, want %v", test.values, got, test.want)
		}
	}
}
