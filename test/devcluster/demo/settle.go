package demo

import (
	"time"

	"github.com/ai-storage/orchestrator/pkg/apis/config"
)

// quietTime without a new migration means that the rebalancer has no more to
// do: many of its cycles, and several measurements.
const quietTime = 45 * time.Second

// ending is how rebalancing came to its end.
type ending string

const (
	notEnded         ending = ""
	noneOverutilized ending = "no node is above a threshold"
	planDone         ending = "the rebalancer found nothing more to move"
)

// settled judges whether rebalancing has ended: nothing is in flight, the
// figures are all from after the last move, and either no node is overutilized or the
// rebalancer has been quiet for long.
func settled(now, begin time.Time, m measurement, t tally, thresholds config.UtilizationThresholds) ending {
	last := begin
	if t.last.After(last) {
		last = t.last
	}
	switch {
	case t.inFlight > 0 || m.since.Before(last):
		return notEnded
	case m.overutilized(thresholds) == 0:
		return noneOverutilized
	case now.Sub(last) >= quietTime:
		return planDone
	}
	return notEnded
}
