package auth

import (
	"math"
	"time"

	"golang.org/x/time/rate"
	"k8s.io/utils/lru"
)

// rememberedCallers bounds the memory of RateLimiter; who called longest ago is dropped.
const rememberedCallers = 4096

// RateLimiter bounds how often each caller may send a request.
type RateLimiter struct {
	rate    rate.Limit
	burst   int
	callers *lru.Cache
	now     func() time.Time
}

// NewRateLimiter lets every caller send perSecond requests a second, and burst at once.
// A rate of 0 does not limit.
func NewRateLimiter(perSecond float64, burst int, now func() time.Time) *RateLimiter {
	limit := rate.Limit(perSecond)
	if perSecond == 0 {
		limit = rate.Inf
	}
	return &RateLimiter{rate: limit, burst: burst, callers: lru.New(rememberedCallers), now: now}
}

// Reserve counts a request of a caller, and returns 0. Where the caller has sent too
// many it counts nothing, and returns how long to wait before the next one.
func (l *RateLimiter) Reserve(caller string) time.Duration {
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
