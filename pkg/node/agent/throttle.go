package agent

import (
	"sync"
	"time"
)

// throttle lets through one call in an interval.
type throttle struct {
	interval time.Duration
	mu       sync.Mutex
	last     time.Time
}

func newThrottle(interval time.Duration, start time.Time) *throttle {
	return &throttle{interval: interval, last: start}
}

func (t *throttle) isDue(now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now.Sub(t.last) < t.interval {
		return false
	}
	t.last = now
	return true
}
