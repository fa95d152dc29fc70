package observe

import (
	"math"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ai-storage/orchestrator/pkg/scheduling/cluster"
)

// MetricsHistoryOptions say how measurements become load.
type MetricsHistoryOptions struct {
	// HalfLife of the exponential smoothing; 0 takes the last measurement alone.
	HalfLife time.Duration
	// Window is how far back measurements count.
	Window time.Duration
	// Percentile of the measurements in the window, 1 to 100.
	Percentile int
}

// MetricsHistory remembers measurements over a window. The load of a node or pod is
// the larger of the smoothed value and the percentile, for each resource: a
// destination must bear the peaks, and a rise shows before the percentile has
// it. Not for use by several goroutines.
type MetricsHistory struct {
	options MetricsHistoryOptions
	nodes   map[string][]sample
	pods    map[cluster.PodKey]*podSeries
}

// sample is one measurement.
type sample struct {
	at       time.Time
	window   time.Duration
	milliCPU int64
	memory   int64
}

// podSeries belongs to one pod: another under the same name starts anew.
type podSeries struct {
	uid     types.UID
	samples []sample
}

// NewMetricsHistory remembers nothing yet.
func NewMetricsHistory(options MetricsHistoryOptions) *MetricsHistory {
	return &MetricsHistory{options: options, nodes: map[string][]sample{}, pods: map[cluster.PodKey]*podSeries{}}
}

// Clone returns a copy that can record something without the original knowing.
func (s *MetricsHistory) Clone() *MetricsHistory {
	clone := NewMetricsHistory(s.options)
	for name, series := range s.nodes {
		clone.nodes[name] = slices.Clone(series)
	}
	for key, series := range s.pods {
		clone.pods[key] = &podSeries{uid: series.uid, samples: slices.Clone(series.samples)}
	}
	return clone
}

// Record takes in the measurements of an observation, of which one may have several
// for each node and pod, and forgets what is older than the window, except for
// the last one. Nodes and pods that the observation does not list are removed.
func (s *MetricsHistory) Record(observation *Observation) {
	s.recordNodes(observation)
	s.recordPods(observation)
}

func (s *MetricsHistory) recordNodes(observation *Observation) {
	known := make(map[string][]sample, len(observation.Nodes))
	for _, node := range observation.Nodes {
		known[node.Name] = s.nodes[node.Name]
	}
	for i := range observation.NodeMetrics {
		m := &observation.NodeMetrics[i]
		series, ok := known[m.Name]
		if !ok || m.Timestamp.After(observation.At.Add(clockSkew)) {
			continue
		}
		known[m.Name] = insert(series, newSample(m.Timestamp.Time, m.Window.Duration, cluster.ResourcesOf(m.Usage)))
	}
	for name, series := range known {
		known[name] = s.withinWindow(series, observation.At)
	}
	s.nodes = known
}

func (s *MetricsHistory) recordPods(observation *Observation) {
	known := make(map[cluster.PodKey]*podSeries, len(observation.Pods))
	created := make(map[cluster.PodKey]time.Time, len(observation.Pods))
	for _, pod := range observation.Pods {
		key := cluster.PodKey{Namespace: pod.Namespace, Name: pod.Name}
		series := s.pods[key]
		if series == nil || series.uid != pod.UID {
			series = &podSeries{uid: pod.UID}
		}
		known[key], created[key] = series, pod.CreationTimestamp.Time
	}
	for i := range observation.PodMetrics {
		m := &observation.PodMetrics[i]
		key := cluster.PodKey{Namespace: m.Namespace, Name: m.Name}
		series := known[key]
		// What is older than the pod was measured on another of the same name.
		if series == nil || m.Timestamp.Time.Before(created[key]) || m.Timestamp.After(observation.At.Add(clockSkew)) {
			continue
		}
		var sum cluster.Resources
		for _, container := range m.Containers {
			used := newSample(m.Timestamp.Time, 0, cluster.ResourcesOf(container.Usage))
			sum = sum.Add(cluster.Resources{MilliCPU: used.milliCPU, Memory: used.memory})
		}
		series.samples = insert(series.samples, newSample(m.Timestamp.Time, m.Window.Duration, sum))
	}
	for _, series := range known {
		series.samples = s.withinWindow(series.samples, observation.At)
	}
	s.pods = known
}

// clockSkew is how far a measurement may be ahead of our clock.
const clockSkew = time.Minute

// mostOf bounds a figure, so that no sum of them overflows.
const mostOf = int64(1) << 52

func newSample(at time.Time, window time.Duration, used cluster.Resources) sample {
	return sample{
		at: at, window: max(0, window),
		milliCPU: min(max(0, used.MilliCPU), mostOf), memory: min(max(0, used.Memory), mostOf),
	}
}

// insert keeps a series in order of time, with one sample for each moment.
func insert(series []sample, s sample) []sample {
	if n := len(series); n == 0 || s.at.After(series[n-1].at) {
		return append(series, s)
	}
	i, found := slices.BinarySearchFunc(series, s, func(a, b sample) int { return a.at.Compare(b.at) })
	if found {
		return series
	}
	return slices.Insert(series, i, s)
}

// withinWindow drops what is too old. The last sample stays: how old it is may
// be the reason to skip a node.
func (s *MetricsHistory) withinWindow(series []sample, now time.Time) []sample {
	old := 0
	for old < len(series)-1 && now.Sub(series[old].at) > s.options.Window {
		old++
	}
	return slices.Delete(series, 0, old)
}

// node returns the samples of a node whose windows began after a moment, and
// its last sample of all; nil when there is none.
func (s *MetricsHistory) node(name string, since time.Time) (usable []sample, last *sample) {
	series := s.nodes[name]
	if len(series) == 0 {
		return nil, nil
	}
	first := 0
	for first < len(series) && since.After(series[first].at.Add(-series[first].window)) {
		first++
	}
	return series[first:], &series[len(series)-1]
}

// Age is how old the last measurement is of the node whose last is the oldest; 0
// where no node was ever measured.
func (s *MetricsHistory) Age(now time.Time) time.Duration {
	var age time.Duration
	for _, series := range s.nodes {
		if n := len(series); n > 0 {
			age = max(age, now.Sub(series[n-1].at))
		}
	}
	return age
}

func (s *MetricsHistory) pod(pod *corev1.Pod) []sample {
	series := s.pods[cluster.PodKey{Namespace: pod.Namespace, Name: pod.Name}]
	if series == nil || series.uid != pod.UID {
		return nil
	}
	return series.samples
}

// load returns the load that the planner counts with, and the smoothed value.
// Without samples both are nil.
func (s *MetricsHistory) load(samples []sample) (load, smoothed *cluster.Usage) {
	if len(samples) == 0 {
		return nil, nil
	}
	at := samples[len(samples)-1].at
	cpu := func(s sample) int64 { return s.milliCPU }
	memory := func(s sample) int64 { return s.memory }
	smoothed = &cluster.Usage{MilliCPU: s.smooth(samples, cpu), Memory: s.smooth(samples, memory), At: at}
	load = &cluster.Usage{
		MilliCPU: max(smoothed.MilliCPU, s.percentile(samples, cpu)),
		Memory:   max(smoothed.Memory, s.percentile(samples, memory)),
		At:       at,
	}
	return load, smoothed
}

// smooth weighs every sample by its age: the weight halves with the half-life.
// Uneven distances in time do not change what a sample of a given age counts.
func (s *MetricsHistory) smooth(samples []sample, figure func(sample) int64) int64 {
	mean := float64(figure(samples[0]))
	for i := 1; i < len(samples); i++ {
		kept := 0.0
		if s.options.HalfLife > 0 {
			kept = math.Exp2(-float64(samples[i].at.Sub(samples[i-1].at)) / float64(s.options.HalfLife))
		}
		mean += (1 - kept) * (float64(figure(samples[i])) - mean)
	}
	return int64(math.Round(mean))
}

// percentile is the smallest figure that the given share of the samples does
// not exceed (nearest rank).
func (s *MetricsHistory) percentile(samples []sample, figure func(sample) int64) int64 {
	figures := make([]int64, len(samples))
	for i := range samples {
		figures[i] = figure(samples[i])
	}
	slices.Sort(figures)
	rank := (len(figures)*s.options.Percentile + 99) / 100
	return figures[min(max(rank, 1), len(figures))-1]
}
