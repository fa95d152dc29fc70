package reassignment

import (
	"testing"

	"github.com/ai-storage/orchestrator/pkg/scheduling/annealing"
)

func TestCounterCountsAsAMapDoes(t *testing.T) {
	random := annealing.NewRandom(1)
	c, want := newCounter(64), map[uint64]int32{}
	for range 100_000 {
		key := pair(int32(random.Below(16)), int32(random.Below(16)))
		if want[key] > 0 && random.Next()&1 == 0 {
			c.decrement(key)
			want[key]--
		} else if len(want) < 64 || want[key] > 0 {
			c.increment(key)
			want[key]++
		}
		if want[key] == 0 {
			delete(want, key)
		}
		probe := pair(int32(random.Below(16)), int32(random.Below(16)))
		if c.get(probe) != want[probe] {
			t.Fatalf("count of %x is %d, want %d", probe, c.get(probe), want[probe])
		}
	}
}

func TestCostMatrixWidens(t *testing.T) {
	const machines = 20
	m := NewCostMatrix(machines)
	for from := range machines {
		for to := range machines {
			m.Set(from, to, int64(from*machines+to))
		}
	}
	for from := range machines {
		for to := range machines {
			if got := m.At(from, to); got != int64(from*machines+to) {
				t.Fatalf("cost %d → %d is %d", from, to, got)
			}
		}
	}
}
