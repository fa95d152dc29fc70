package observe

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/prometheus/client_golang/api"
	promv1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/transport"
	"k8s.io/klog/v2"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"
)

// queryTimeout bounds each query.
const queryTimeout = 20 * time.Second

// PrometheusOptions say where measurements are and how to ask for them.
type PrometheusOptions struct {
	URL string
	// BearerTokenFile is read again while it changes; empty sends no token.
	BearerTokenFile string
	// Queries return cores and bytes, by the label node, or namespace and pod.
	// "$range" stands for the Range.
	NodeCPU, NodeMemory, PodCPU, PodMemory string
	// Range that the queries look back over.
	Range time.Duration
	// Window that is asked for at first: a restarted rebalancer knows at once what
	// it knew before.
	Window time.Duration
	// Step between two measurements.
	Step time.Duration
}

// Prometheus reads measurements from a Prometheus server.
type Prometheus struct {
	options PrometheusOptions
	api     promv1.API
	// last is the newest moment that was read.
	last time.Time
}

// NewPrometheus connects to nothing yet. It fails when the URL cannot be read,
// or the token file.
func NewPrometheus(options PrometheusOptions) (*Prometheus, error) {
	roundTripper := api.DefaultRoundTripper
	if options.BearerTokenFile != "" {
		var err error
		if roundTripper, err = transport.NewBearerAuthWithRefreshRoundTripper("", options.BearerTokenFile, roundTripper); err != nil {
			return nil, fmt.Errorf("signals.prometheus.bearerTokenFile: %w", err)
		}
	}
	client, err := api.NewClient(api.Config{Address: options.URL, RoundTripper: roundTripper})
	if err != nil {
		return nil, fmt.Errorf("signals.prometheus.url: %w", err)
	}
	for _, query := range []*string{&options.NodeCPU, &options.NodeMemory, &options.PodCPU, &options.PodMemory} {
		*query = strings.ReplaceAll(*query, "$range", model.Duration(options.Range).String())
	}
	return &Prometheus{options: options, api: promv1.NewAPI(client)}, nil
}

// Read adds what was measured since the last call to the observation. When the
// server does not answer, that is logged and nothing is added: what was measured
// before grows old, and the next call asks for what is missing.
func (p *Prometheus) Read(ctx context.Context, observation *Observation) {
	end := observation.At.Truncate(p.options.Step)
	start := p.last.Add(p.options.Step)
	if oldest := end.Add(-p.options.Window); start.Before(oldest) {
		start = oldest
	}
	if start.After(end) {
		return
	}
	span := promv1.Range{Start: start, End: end, Step: p.options.Step}
	nodes, nodesErr := p.measure(ctx, span, p.options.NodeCPU, p.options.NodeMemory, "node")
	pods, podsErr := p.measure(ctx, span, p.options.PodCPU, p.options.PodMemory, "namespace", "pod")
	if err := errors.Join(nodesErr, podsErr); err != nil {
		klog.FromContext(ctx).Error(err, "Prometheus does not answer")
		return
	}
	p.last = end
	window := metav1.Duration{Duration: p.options.Range}
	for _, m := range nodes {
		observation.NodeMetrics = append(observation.NodeMetrics, metricsv1beta1.NodeMetrics{
			ObjectMeta: metav1.ObjectMeta{Name: m.labels[0]}, Timestamp: m.at, Window: window, Usage: m.usage})
	}
	for _, m := range pods {
		observation.PodMetrics = append(observation.PodMetrics, metricsv1beta1.PodMetrics{
			ObjectMeta: metav1.ObjectMeta{Namespace: m.labels[0], Name: m.labels[1]}, Timestamp: m.at, Window: window,
			Containers: []metricsv1beta1.ContainerMetrics{{Usage: m.usage}}})
	}
}

// measurement of something that has these labels.
type measurement struct {
	labels [2]string
	at     metav1.Time
	usage  corev1.ResourceList
}

type moment struct {
	labels [2]string
	at     model.Time
}

// measure joins the answers to the two queries. A moment of which only one has a
// figure is left out: half a measurement would look like an idle node.
func (p *Prometheus) measure(ctx context.Context, span promv1.Range, cpuQuery, memoryQuery string, labels ...model.LabelName) ([]measurement, error) {
	cpus, err := p.query(ctx, span, cpuQuery, labels)
	if err != nil {
		return nil, err
	}
	memories, err := p.query(ctx, span, memoryQuery, labels)
	if err != nil {
		return nil, err
	}
	var joined []measurement
	for at, cpu := range cpus {
		memory, both := memories[at]
		if !both {
			continue
		}
		joined = append(joined, measurement{labels: at.labels, at: metav1.NewTime(at.at.Time()), usage: corev1.ResourceList{
			corev1.ResourceCPU:    *resource.NewMilliQuantity(int64(math.Round(1000*cpu)), resource.DecimalSI),
			corev1.ResourceMemory: *resource.NewQuantity(int64(memory), resource.BinarySI),
		}})
	}
	return joined, nil
}

func (p *Prometheus) query(ctx context.Context, span promv1.Range, query string, labels []model.LabelName) (map[moment]float64, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	value, warnings, err := p.api.QueryRange(ctx, query, span, promv1.WithTimeout(queryTimeout))
	if err != nil {
		return nil, fmt.Errorf("query %s: %w", query, err)
	}
	if len(warnings) > 0 {
		klog.FromContext(ctx).V(2).Info("Prometheus warns", "query", query, "warnings", warnings)
	}
	matrix, ok := value.(model.Matrix)
	if !ok {
		return nil, fmt.Errorf("query %s: want a matrix, got %s", query, value.Type())
	}
	figures := map[moment]float64{}
	for _, series := range matrix {
		var m moment
		for i, label := range labels {
			m.labels[i] = string(series.Metric[label])
		}
		if m.labels[0] == "" {
			return nil, fmt.Errorf("query %s: a series has no label %s", query, labels[0])
		}
		for _, pair := range series.Values {
			if figure := float64(pair.Value); figure >= 0 && figure < float64(mostOf)/1000 { // not NaN
				m.at = pair.Timestamp
				figures[m] = figure
			}
		}
	}
	return figures, nil
}
