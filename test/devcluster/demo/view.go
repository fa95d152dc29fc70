package demo

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/ai-storage/orchestrator/pkg/apis/config"
)

const (
	// maxBars is how many nodes a terminal can show.
	maxBars  = 40
	barWidth = 30

	liveInterval  = time.Second
	plainInterval = 5 * time.Second
)

// view shows how rebalancing goes: bars on a terminal, lines elsewhere.
type view struct {
	out        io.Writer
	live       bool
	thresholds config.UtilizationThresholds
	// drawn is the number of lines to draw over.
	drawn int
}

func newView(out io.Writer, live bool, thresholds config.UtilizationThresholds) *view {
	return &view{out: out, live: live, thresholds: thresholds}
}

func (v *view) interval() time.Duration {
	if v.live {
		return liveInterval
	}
	return plainInterval
}

func (v *view) draw(elapsed time.Duration, m measurement, t tally) {
	var lines []string
	if v.live && len(m.nodes) <= maxBars {
		for _, node := range m.nodes {
			lines = append(lines, v.bar(node))
		}
	}
	spread, moves := v.summary(elapsed, m, t)
	if v.live {
		// A line that a terminal breaks would be drawn over in the wrong place.
		lines = append(lines, spread, "         "+moves)
	} else {
		lines = append(lines, spread+"; "+moves)
	}
	var text strings.Builder
	if v.live && v.drawn > 0 {
		fmt.Fprintf(&text, "\x1b[%dA", v.drawn)
	}
	for _, line := range lines {
		if v.live {
			text.WriteString("\x1b[2K")
		}
		text.WriteString(line + "\n")
	}
	v.drawn = len(lines)
	fmt.Fprint(v.out, text.String())
}

func (v *view) bar(node nodeLoad) string {
	filled := min(barWidth, int(node.cpu*barWidth+0.5))
	mark := ""
	if isOverutilized(node, v.thresholds) {
		mark = "  overutilized"
	}
	return fmt.Sprintf("  %-10s %s%s CPU %3.0f%%  memory %3.0f%%%s", node.name,
		strings.Repeat("█", filled), strings.Repeat("·", barWidth-filled), 100*node.cpu, 100*node.memory, mark)
}

func (v *view) summary(elapsed time.Duration, m measurement, t tally) (spread, moves string) {
	cpus := m.cpus()
	spread = fmt.Sprintf("%6.1fs  CPU %.0f%% to %.0f%%, deviation %.1f%%; %d of %d nodes overutilized",
		elapsed.Seconds(), 100*slices.Min(cpus), 100*slices.Max(cpus), 100*deviation(cpus), m.overutilized(v.thresholds), len(m.nodes))
	moves = fmt.Sprintf("moves: %d in flight, %d succeeded, %d failed", t.inFlight, t.succeeded, t.failed)
	return spread, moves
}
