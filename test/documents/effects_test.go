package documents

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/ai-storage/orchestrator/internal/world"
	"github.com/ai-storage/orchestrator/pkg/controllers/rebalance"
)

var update = flag.Bool("update", false, "write the tables of effects in docs/tuning.md anew")

// effects are the tables in tuning.md, by the name in their marks. Each is made
// by the loop itself, so that a change of the planner shows in the document.
var effects = map[string]func(t *testing.T) table{
	"strategies":     strategiesEffect,
	"thresholds":     thresholdsEffect,
	"minimumGain":    minimumGainEffect,
	"budget":         budgetEffect,
	"scope":          scopeEffect,
	"signals":        signalsEffect,
	"abnormalCycles": abnormalCyclesEffect,
	"cooldown":       cooldownEffect,
	"circuitBreaker": circuitBreakerEffect,
}

// table is written with its columns aligned by nothing, as markdown allows.
type table struct {
	head []string
	rows [][]string
}

func (b table) String() string {
	var s strings.Builder
	fmt.Fprintf(&s, "| %s |\n|%s\n", strings.Join(b.head, " | "), strings.Repeat("---|", len(b.head)))
	for _, row := range b.rows {
		fmt.Fprintf(&s, "| %s |\n", strings.Join(row, " | "))
	}
	return s.String()
}

var marked = regexp.MustCompile(`(?s)(<!-- effect: (\w+) -->\n).*?(<!-- end -->)`)

func TestEffectsAreThoseOfTheLoop(t *testing.T) {
	path := filepath.Join(repository, "docs", "tuning.md")
	page := read(t, "docs/tuning.md")
	seen := map[string]bool{}
	want := marked.ReplaceAllStringFunc(page, func(block string) string {
		parts := marked.FindStringSubmatch(block)
		make, known := effects[parts[2]]
		if !known {
			t.Errorf("tuning.md shows the effect %q, which nothing makes", parts[2])
			return block
		}
		seen[parts[2]] = true
		made := parts[1] + make(t).String() + parts[3]
		if made != block && !*update {
			t.Errorf("the effect %s is another (go test ./test/documents -run Effects -update writes it):\nthe page says\n%s\nit is\n%s", parts[2], block, made)
		}
		return made
	})
	for name := range effects {
		if !seen[name] {
			t.Errorf("tuning.md does not show the effect %q", name)
		}
	}
	if *update && !t.Failed() {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// trial is one row: arguments, as the reader sees them, and as they are.
type trial struct{ shown, arguments string }

func trials(arguments ...string) []trial {
	list := make([]trial, len(arguments))
	for i, a := range arguments {
		list[i] = trial{"`" + a + "`", a + "\n"}
	}
	return list
}

func strategiesEffect(t *testing.T) table {
	b := table{head: []string{"strategies", "moves", "deviation of CPU load", "nodes without pods", "free capacity that holds no shape"}}
	shapes := "shapes: [{cpu: 10}]\n"
	for _, try := range []trial{
		{"`Balance`", ""},
		{"`Balance`, `Consolidate`", "strategies: [{name: Balance}, {name: Consolidate}]\n"},
		{"`Balance`, `Consolidate` with weight 10", "strategies: [{name: Balance}, {name: Consolidate, weight: 10}]\n"},
		{"`Consolidate`", "strategies: [{name: Consolidate}]\n"},
		{"`Balance`, `Defragment`", "strategies: [{name: Balance}, {name: Defragment}]\n" + shapes},
		{"`Defragment`", "strategies: [{name: Defragment}]\n" + shapes},
	} {
		w := night()
		status := plan(t, w.Observation(), try.arguments+wide)
		o := outcomeOf(w, status)
		fragmentation := "–"
		if strings.Contains(try.arguments, "shapes") {
			fragmentation = arrow(points(status.Before.Fragmentation)+" %", points(status.After.Fragmentation)+" %")
		}
		b.rows = append(b.rows, []string{try.shown, fmt.Sprint(o.moves), deviations(status), arrow(o.emptyBefore, o.emptyAfter), fragmentation})
	}
	return b
}

func deviations(status *rebalance.Status) string {
	return arrow(points(status.Before.CPUDeviation), points(status.After.CPUDeviation))
}

// balancing shows what becomes of the cluster with each of the arguments.
func balancing(t *testing.T, heading string, budget string, list []trial) table {
	b := table{head: []string{heading, "moves", "overutilized nodes", "deviation of CPU load"}}
	for _, try := range list {
		w := newWorld()
		status := plan(t, w.Observation(), try.arguments+budget)
		o := outcomeOf(w, status)
		b.rows = append(b.rows, []string{try.shown, fmt.Sprint(o.moves), arrow(o.overutilizedBefore, o.overutilizedAfter), deviations(status)})
	}
	return b
}

func thresholdsEffect(t *testing.T) table {
	return balancing(t, "thresholds", wide, trials("thresholds: {cpu: 50}", "thresholds: {cpu: 70}", "thresholds: {cpu: 85}", "thresholds: {memory: 15}",
		"thresholds: {mode: Deviation, cpu: 5}", "thresholds: {mode: Deviation, cpu: 10}", "thresholds: {mode: Deviation, cpu: 20}"))
}

func minimumGainEffect(t *testing.T) table {
	return balancing(t, "minimumGain", wide, trials("minimumGain: 1", "minimumGain: 5", "minimumGain: 10", "minimumGain: 20", "minimumGain: 50"))
}

func budgetEffect(t *testing.T) table {
	limit := func(name string, n int) trial {
		return trial{fmt.Sprintf("`%s: %d`, the others 50", name, n), strings.Replace(wide, name+": 50", fmt.Sprintf("%s: %d", name, n), 1)}
	}
	return balancing(t, "budget", "", []trial{
		{"the defaults", ""}, {"all of them 50", wide},
		limit("maxInFlight", 3), limit("maxInFlightPerNode", 1), limit("maxInFlightPerNamespace", 3), limit("maxInFlightPerWorkload", 1), limit("maxMovesPerCycle", 2),
	})
}

// scopeEffect shows which pods and nodes the loop deals with.
func scopeEffect(t *testing.T) table {
	b := table{head: []string{"arguments", "pods that may move", "nodes skipped", "moves", "overutilized nodes"}}
	zone := func(i int) string { return fmt.Sprintf("{matchLabels: {topology.kubernetes.io/zone: zone-%d}}", i) }
	for _, try := range []trial{
		{"the defaults", ""},
		{"`nodeSelector` of one zone", "nodeSelector: " + zone(0) + "\n"},
		{"`nodePools` of each zone", "nodePools: [" + zone(0) + ", " + zone(1) + ", " + zone(2) + "]\n"},
		{"`nodePools` of two of three zones", "nodePools: [" + zone(0) + ", " + zone(1) + "]\n"},
		{"`minimumPodAge: 45m`, where half of the pods are younger", "minimumPodAge: 45m\n"},
		{"`priorityCeiling: 0`, where a third of the pods has priority 1000", "priorityCeiling: 0\n"},
		{"`metricsMaxAge: 2m`, where the first overutilized node was last measured 3 min ago", "metricsMaxAge: 2m\n"},
		{"`metricsMaxAge: 4m` there", "metricsMaxAge: 4m\n"},
	} {
		w := newWorld()
		mark(w)
		observation := w.Observation()
		if strings.Contains(try.arguments, "metricsMaxAge") {
			makeStale(observation, w.Nodes[0].Name)
		}
		status := plan(t, observation, try.arguments+wide)
		o := outcomeOf(w, status)
		b.rows = append(b.rows, []string{try.shown, fmt.Sprint(movable(t, observation, try.arguments+wide)), fmt.Sprint(len(status.Skipped)),
			fmt.Sprint(o.moves), arrow(o.overutilizedBefore, o.overutilizedAfter)})
	}
	return b
}

// mark makes every second pod young, and every third one important.
func mark(w *world.World) {
	for i, pod := range w.Pods {
		if i%2 == 0 {
			age(w, pod, 30)
		}
		if i%3 == 0 {
			pod.Spec.Priority = new(int32(1000))
		}
	}
}
