package auth

import (
	"math"
	"time"

	"golang.org/x/time/rate"
	"k8s.io/utils/lru"
)

// rememberedCallers bounds the memory of Limit; who called longest ago is forgotten.
const rememberedCallers = 4096

// Limit is how often each caller may ask.
type Limit struct {
	rate    rate.Limit
	burst   int
	callers *lru.Cache
	now     func() time.Time
}

// NewLimit lets every caller ask so often in a second, and so often at once. A
// rate of 0 does not limit.
func NewLimit(perSecond float64, burst int, now func() time.Time) *Limit {
	limit := rate.Limit(perSecond)
	if perSecond == 0 {
		limit = rate.Inf
	}
	return &Limit{rate: limit, burst: burst, callers: lru.New(rememberedCallers), now: now}
}

// Take returns how long a caller has to wait before the next request; 0 lets it pass.
func (l *Limit) Take(caller string) time.Duration {
	found, known := l.callers.Get(caller)
	if !known {
		found = rate.NewLimiter(l.rate, l.burst)
		l.callers.Add(caller, found)
	}
	now := l.now()
	reservation := found.(*rate.Limiter).ReserveN(now, 1)
	delay := reservation.DelayFrom(now)
	if delay > 0 {
		reservation.CancelAt(now)
	}
	return delay
}

// Seconds rounds a wait up to what Retry-After can say.
func Seconds(wait time.Duration) int { return max(1, int(math.Ceil(wait.Seconds()))) }
