package rebalance

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/ai-storage/orchestrator/internal/race"
	"github.com/ai-storage/orchestrator/pkg/apis/config"
)

func constant(load float64) func(time.Duration) float64 {
	return func(time.Duration) float64 { return load }
}

// skewed fills a quarter of the nodes to the overutilized share of their CPU, and the
// others to the cool one, with pods of random size. Every third pod belongs to a
// ReplicaSet, of which each has pods on several nodes.
func skewed(t *testing.T, nodes int, overutilized, cool float64, seed uint64, load func(base float64, random *rand.Rand) func(time.Duration) float64) *model {
	m := newModel(t, nodes)
	random := rand.New(rand.NewPCG(seed, 1))
	pods := 0
	for i, node := range m.nodes {
		share := cool
		if i < nodes/4 {
			share = overutilized
		}
		for left := share * nodeCPU; left > 50; pods++ {
			base := math.Min(left, 400+600*random.Float64())
			left -= base
			owner := ""
			if pods%3 == 0 {
				owner = fmt.Sprint("set-", pods%12)
			}
			m.addPod(fmt.Sprint("pod-", pods), owner, node.Name, load(base, random))
		}
	}
	return m
}

// With load that does not change, the loop comes to rest within ten minutes.
func TestConstantLoadComesToRest(t *testing.T) {
	for _, tt := range []struct {
		name               string
		overutilized, cool float64
		change             func(*config.RebalanceArgs)
	}{
		{"a quarter is overutilized", 0.85, 0.4, func(*config.RebalanceArgs) {}},
		{"barely overutilized", 0.71, 0.6, func(*config.RebalanceArgs) {}},
		{"nowhere to go", 0.95, 0.69, func(*config.RebalanceArgs) {}},
		{"nothing is overutilized", 0.65, 0.3, func(*config.RebalanceArgs) {}},
		{"deviation", 0.6, 0.3, func(args *config.RebalanceArgs) {
			args.Thresholds = config.UtilizationThresholds{Mode: config.ThresholdsDeviation, CPU: 10, Memory: 10}
		}},
		{"with claims", 0.85, 0.4, func(args *config.RebalanceArgs) { args.CheckpointStorageClassName = "shared" }},
		{"in haste", 0.9, 0.3, func(args *config.RebalanceArgs) {
			args.AbnormalCycles, args.Cooldown.Duration, args.MinimumPodAge.Duration = 1, 0, 0
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := skewed(t, 12, tt.overutilized, tt.cool, 7, func(base float64, _ *rand.Rand) func(time.Duration) float64 { return constant(base) })
			args := defaultArgs(t)
			tt.change(args)
			m.run(args, 30*time.Minute, 0)
			last := time.Duration(0)
			for _, move := range m.moves {
				last = max(last, move.created.Sub(noon))
			}
			t.Logf("%d moves, the last after %s; loads %s", len(m.moves), last, m.describeLoads())
			if last > 10*time.Minute {
				t.Errorf("a move began after %s, want none in the last 20 of 30 minutes", last)
			}
			moves := tt.overutilized > 0.7 && tt.cool < 0.69 || tt.name == "deviation"
			if moves != (len(m.moves) > 0) {
				t.Errorf("%d moves", len(m.moves))
			}
		})
	}
}

// With load that swings around the threshold, no workload moves twice within its
// cooldown, also when another loop takes over that knows only the API objects.
func TestSwingingLoadRespectsCooldowns(t *testing.T) {
	sine := func(phase float64) float64 { return math.Sin(2 * math.Pi * phase) }
	square := func(phase float64) float64 { return math.Copysign(1, sine(phase)) }
	again, total := 0, 0
	for _, swing := range []struct {
		period time.Duration
		shape  func(phase float64) float64
	}{{40 * time.Second, sine}, {2 * time.Minute, square}, {5 * time.Minute, sine}, {12 * time.Minute, square}} {
		for _, amplitude := range []float64{0.05, 0.2, 0.5} {
			if race.Enabled && amplitude != 0.5 {
				continue
			}
			for _, restart := range []time.Duration{0, 7 * time.Minute} {
				t.Run(fmt.Sprintf("every %s by %.2f, restart every %s", swing.period, amplitude, restart), func(t *testing.T) {
					// The pods swing one after the other, so that overutilized and cool change places.
					m := skewed(t, 8, 0.68, 0.62, 3, func(base float64, random *rand.Rand) func(time.Duration) float64 {
						offset := float64(random.IntN(4)) / 4
						return func(at time.Duration) float64 {
							return base * (1 + amplitude*swing.shape(at.Seconds()/swing.period.Seconds()+offset))
						}
					})
					args := defaultArgs(t)
					args.Cooldown.Duration, args.MaxCooldown.Duration = 4*time.Minute, 20*time.Minute
					args.AbnormalCycles = 1
					m.run(args, 30*time.Minute, restart)
					total += len(m.moves)
					again += checkCooldowns(t, m, args)
				})
			}
		}
	}
	t.Logf("%d moves, of which %d were another one of the same workload", total, again)
	if again == 0 {
		t.Error("no workload moved a second time, so nothing was tested")
	}
}

// With the default configuration, and with a storage class whose volumes several nodes can
// use at once, a pod moves again and again.
func TestAPodMovesAgain(t *testing.T) {
	for _, class := range []string{"", "shared"} {
		m := skewed(t, 8, 0.68, 0.62, 3, func(base float64, random *rand.Rand) func(time.Duration) float64 {
			offset := float64(random.IntN(4)) / 4
			return func(at time.Duration) float64 {
				return base * (1 + 0.5*math.Copysign(1, math.Sin(2*math.Pi*(at.Minutes()/12+offset))))
			}
		})
		args := defaultArgs(t)
		args.Cooldown.Duration, args.MaxCooldown.Duration = time.Minute, time.Minute
		args.AbnormalCycles, args.CheckpointStorageClassName = 1, class
		m.run(args, 40*time.Minute, 0)
		most := 0
		for workload, moves := range m.movesByWorkload() {
			if strings.HasPrefix(workload, "Pod/") {
				most = max(most, len(moves))
			}
		}
		t.Logf("storage class %q: %d moves, %d of the pod that moved most", class, len(m.moves), most)
		if most < 2 {
			t.Errorf("storage class %q: a pod has moved %d times", class, most)
		}
	}
}

// checkCooldowns works the cooldowns out by itself: nothing here is long enough
// to reset them. It returns how many moves followed another one.
func checkCooldowns(t *testing.T, m *model, args *config.RebalanceArgs) (again int) {
	t.Helper()
	for workload, moves := range m.movesByWorkload() {
		cooldown := args.Cooldown.Duration
		for i := 1; i < len(moves); i++ {
			again++
			if pause := moves[i].created.Sub(moves[i-1].finished); pause < cooldown {
				t.Errorf("%s moved again %s after its move %d, its cooldown is %s", workload, pause, i, cooldown)
			}
			cooldown = min(2*cooldown, args.MaxCooldown.Duration)
		}
	}
	return again
}
