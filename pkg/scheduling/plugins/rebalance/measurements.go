package rebalance

import (
	"context"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"
	"k8s.io/utils/clock"

	"github.com/ai-storage/orchestrator/pkg/scheduling/cluster"
)

const (
	// pollInterval is the time between two requests to the metrics API, which
	// measures every 15 s by default. A smaller age limit makes it shorter.
	pollInterval = 10 * time.Second
	// requestTimeout bounds one request.
	requestTimeout = 10 * time.Second
)

// nodeMetricsLister is what this package asks of the metrics API.
type nodeMetricsLister interface {
	List(ctx context.Context, options metav1.ListOptions) (*metricsv1beta1.NodeMetricsList, error)
}

// measurement is what one node used between two moments.
type measurement struct {
	used        cluster.Resources
	from, until time.Time
}

// measurements holds the last answer of the metrics API. Scoring reads it in
// parallel and never waits for a request.
type measurements struct {
	clock   clock.WithTicker
	maxAge  time.Duration
	current atomic.Pointer[map[string]measurement]
}

func newMeasurements(clock clock.WithTicker, maxAge time.Duration) *measurements {
	return &measurements{clock: clock, maxAge: maxAge}
}

// fresh returns the measurement of a node, unless it is too old or missing.
func (m *measurements) fresh(node string) (measurement, bool) {
	all := m.current.Load()
	if all == nil {
		return measurement{}, false
	}
	found, ok := (*all)[node]
	return found, ok && m.clock.Since(found.until) < m.maxAge
}

// run polls until ctx ends. A change between answers and errors is logged once.
func (m *measurements) run(ctx context.Context, lister nodeMetricsLister) {
	logger := klog.FromContext(ctx)
	ticker := m.clock.NewTicker(min(pollInterval, max(m.maxAge/3, time.Second)))
	defer ticker.Stop()
	failing := false
	for {
		err := m.poll(ctx, lister)
		if ctx.Err() != nil {
			return
		}
		if err != nil && !failing {
			logger.V(1).Info("No measured use, nodes are scored by requests", "reason", err.Error())
		}
		if err == nil && failing {
			logger.V(1).Info("Measured use is back")
		}
		failing = err != nil
		select {
		case <-ctx.Done():
			return
		case <-ticker.C():
		}
	}
}

// poll replaces the measurements. After an error the old ones stay, and grow
// too old by themselves.
func (m *measurements) poll(ctx context.Context, lister nodeMetricsLister) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	list, err := lister.List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	all := make(map[string]measurement, len(list.Items))
	for i := range list.Items {
		item := &list.Items[i]
		all[item.Name] = measurement{
			used:  cluster.ResourcesOf(item.Usage),
			from:  item.Timestamp.Add(-item.Window.Duration),
			until: item.Timestamp.Time,
		}
	}
	m.current.Store(&all)
	return nil
}
