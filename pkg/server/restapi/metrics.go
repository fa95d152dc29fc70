package restapi

import (
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics of the HTTP API.
type Metrics struct {
	requests    *prometheus.CounterVec
	duration    *prometheus.HistogramVec
	subscribers prometheus.Gauge
	dropped     prometheus.Counter
}

// NewMetrics registers the metrics of the HTTP API.
func NewMetrics(registerer prometheus.Registerer) *Metrics {
	m := &Metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ai_storage_api_requests_total",
			Help: "Requests to the HTTP API, by route, method and status code.",
		}, []string{"route", "method", "code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "ai_storage_api_request_duration_seconds",
			Help:    "Time to answer a request to the HTTP API, but for streams.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 15),
		}, []string{"route", "method"}),
		subscribers: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "ai_storage_api_watchers",
			Help: "Clients connected to /api/v1/watch.",
		}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "ai_storage_api_watchers_dropped_total",
			Help: "Clients of /api/v1/watch that were disconnected because they read too slowly.",
		}),
	}
	registerer.MustRegister(m.requests, m.duration, m.subscribers, m.dropped)
	return m
}

// methods that have a value of their own: others are whatever a client makes up.
var methods = map[string]bool{"GET": true, "HEAD": true, "POST": true, "PUT": true, "PATCH": true, "DELETE": true, "OPTIONS": true}

func (m *Metrics) observe(method, pattern string, code int, took time.Duration) {
	route := "none"
	if _, path, found := strings.Cut(pattern, " "); found {
		route = path
	}
	if !methods[method] {
		method = "other"
	}
	m.requests.WithLabelValues(route, method, strconv.Itoa(code)).Inc()
	if route != streamPath {
		m.duration.WithLabelValues(route, method).Observe(took.Seconds())
	}
}
