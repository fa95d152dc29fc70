package observe

import (
	"math"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/scheduling/cluster"
)

func samples(distance time.Duration, figures ...int64) []sample {
	var series []sample
	for i, figure := range figures {
		series = append(series, sample{at: now.Add(time.Duration(i) * distance), milliCPU: figure})
	}
	return series
}

func cpuOf(s sample) int64 { return s.milliCPU }

func TestSmoothing(t *testing.T) {
	for _, tt := range []struct {
		name     string
		halfLife time.Duration
		samples  []sample
		want     int64
	}{
		{"one", time.Minute, samples(0, 700), 700},
		{"constant", time.Minute, samples(30*time.Second, 500, 500, 500, 500), 500},
		{"after one half-life, half of the step", time.Minute, samples(time.Minute, 0, 1000), 500},
		{"after two, three quarters", time.Minute, samples(time.Minute, 0, 1000, 1000), 750},
		{"twice as often makes no difference", time.Minute, samples(30*time.Second, 0, 1000, 1000, 1000, 1000), 750},
		{"long ago counts for nothing", time.Second, samples(time.Hour, 0, 1000), 1000},
		{"no half-life takes the last", 0, samples(time.Minute, 0, 300, 1000), 1000},
	} {
		s := NewMetricsHistory(MetricsHistoryOptions{HalfLife: tt.halfLife})
		if got := s.smooth(tt.samples, cpuOf); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
}

func TestPercentile(t *testing.T) {
	ten := samples(time.Second, 5, 1, 9, 3, 7, 2, 10, 4, 8, 6)
	for _, tt := range []struct {
		percentile int
		samples    []sample
		want       int64
	}{
		{90, ten, 9}, {91, ten, 10}, {100, ten, 10}, {50, ten, 5}, {1, ten, 1}, {10, ten, 1}, {11, ten, 2},
		{90, samples(0, 4), 4}, {1, samples(0, 4), 4},
	} {
		s := NewMetricsHistory(MetricsHistoryOptions{Percentile: tt.percentile})
		if got := s.percentile(tt.samples, cpuOf); got != tt.want {
			t.Errorf("percentile %d of %d: %d, want %d", tt.percentile, len(tt.samples), got, tt.want)
		}
	}
}

func TestLoadIsTheLargerOne(t *testing.T) {
	s := NewMetricsHistory(MetricsHistoryOptions{HalfLife: time.Second, Percentile: 50})
	for _, tt := range []struct{ samples, want int64 }{{0, 0}} {
		if load, smoothed := s.load(nil); load != nil || smoothed != nil {
			t.Errorf("%d samples: %v, %v", tt.samples, load, smoothed)
		}
	}
	// A rise is in the smoothed value first, a fall in the percentile last.
	if load, smoothed := s.load(samples(time.Hour, 100, 100, 900)); load.MilliCPU != 900 || smoothed.MilliCPU != 900 {
		t.Errorf("after a rise: %+v, %+v", load, smoothed)
	}
	load, smoothed := s.load(samples(time.Hour, 900, 900, 100))
	if load.MilliCPU != 900 || smoothed.MilliCPU != 100 || !load.At.Equal(now.Add(2*time.Hour)) {
		t.Errorf("after a fall: %+v, %+v", load, smoothed)
	}
}

// measure lets an observation say that node and pod used so much at a moment.
func measure(r *Observation, at time.Time, milliCPU int64) {
	usage := corev1.ResourceList{corev1.ResourceCPU: *resource.NewMilliQuantity(milliCPU, resource.DecimalSI), corev1.ResourceMemory: resource.MustParse("1Gi")}
	r.At = at
	r.NodeMetrics = []metricsv1beta1.NodeMetrics{{ObjectMeta: metav1.ObjectMeta{Name: "n1"}, Timestamp: metav1.NewTime(at),
		Window: metav1.Duration{Duration: 15 * time.Second}, Usage: usage}}
	r.PodMetrics = []metricsv1beta1.PodMetrics{{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p"}, Timestamp: metav1.NewTime(at),
		Containers: []metricsv1beta1.ContainerMetrics{{Name: "train", Usage: usage}}}}
}

func metricsHistoryOptions() Options {
	options := testOptions()
	options.MetricsHistory = NewMetricsHistory(MetricsHistoryOptions{HalfLife: time.Minute, Window: 5 * time.Minute, Percentile: 100})
	return options
}

func record(r *Observation, options Options) (*cluster.Node, *cluster.Pod) {
	options.MetricsHistory.Record(r)
	snapshot := Build(r, options)
	return snapshot.Nodes[0], snapshot.Pods[0]
}

func TestMetricsHistoryForgetWhatIsOld(t *testing.T) {
	observation, options := testObservation(), metricsHistoryOptions()
	var node *cluster.Node
	var pod *cluster.Pod
	for i, used := range []int64{3000, 100, 100, 100, 100, 100, 100} {
		measure(observation, now.Add(time.Duration(i)*time.Minute), used)
		node, pod = record(observation, options)
		want := int64(3000)
		if i > 5 {
			want = 100
		}
		if i > 0 && (node.Measured.MilliCPU < want || pod.Measured.MilliCPU < want) || i > 5 && node.Measured.MilliCPU > 200 {
			t.Errorf("after %d minutes: node %d, pod %d, want about %d", i, node.Measured.MilliCPU, pod.Measured.MilliCPU, want)
		}
	}
	if n := len(options.MetricsHistory.nodes["n1"]); n != 6 {
		t.Errorf("%d samples are kept, want 6 of 5 minutes", n)
	}
	// The same answer twice is one measurement, and old ones grow too old to use.
	record(observation, options)
	observation.At = observation.At.Add(3 * time.Minute)
	if node, pod = record(observation, options); node.Measured != nil || pod.Measured != nil || node.Skipped != "the last measurement of the node is 3m0s old" {
		t.Errorf("3 minutes later: node %+v skipped %q, pod %+v", node.Measured, node.Skipped, pod.Measured)
	}
	observation.Nodes, observation.Pods = nil, nil
	options.MetricsHistory.Record(observation)
	if len(options.MetricsHistory.nodes) != 0 || len(options.MetricsHistory.pods) != 0 {
		t.Error("what is gone from the cluster is remembered")
	}
}

// What was measured before a migration changed the node describes another node.
func TestMetricsHistoryStartAnewWhenAMigrationChangesTheNode(t *testing.T) {
	observation, options := testObservation(), metricsHistoryOptions()
	options.MinimumSamples = 2
	changed := now.Add(2*time.Minute + 20*time.Second)
	for i, tt := range []struct {
		used, want  int64
		skipped     string
		stabilizing bool
	}{
		{3000, 3000, "the node has been measured 1 of 2 times since it changed, or since the rebalancer started", true},
		{3000, 3000, "", false},
		{3000, 3000, "", false},
		{100, 100, "the node has been measured 1 of 2 times since it changed, or since the rebalancer started", true},
		{100, 100, "", false},
	} {
		measure(observation, now.Add(time.Duration(i)*time.Minute), tt.used)
		if i >= 3 {
			observation.Migrations = []v1alpha1.PodMigration{migrationOf(v1alpha1.PhaseSucceeded, changed)}
		}
		node, _ := record(observation, options)
		if node.Measured.MilliCPU != tt.want || node.Skipped != tt.skipped || node.Stabilizing != tt.stabilizing {
			t.Errorf("minute %d: %+v, skipped %q, stabilizing %t", i, node.Measured, node.Skipped, node.Stabilizing)
		}
	}
}

// A pod that was recreated under the same name has a history of its own.
func TestMetricsHistoryKnowPodsByUID(t *testing.T) {
	observation, options := testObservation(), metricsHistoryOptions()
	measure(observation, now, 3000)
	record(observation, options)
	observation.Pods[0] = observation.Pods[0].DeepCopy()
	observation.Pods[0].UID = types.UID("another")
	observation.Pods[0].CreationTimestamp = metav1.NewTime(now.Add(10 * time.Second))
	if _, pod := record(observation, options); pod.Measured != nil {
		t.Errorf("the new pod has the use of the old one: %+v", pod.Measured)
	}
	measure(observation, now.Add(time.Minute), 100)
	if _, pod := record(observation, options); pod.Measured == nil || pod.Measured.MilliCPU != 100 {
		t.Errorf("the new pod is measured as %+v", pod.Measured)
	}
}

// One answer may have several moments, in any order.
func TestMetricsHistoryTakeAWholeWindow(t *testing.T) {
	observation, options := testObservation(), metricsHistoryOptions()
	options.MinimumSamples = 3
	var all []metricsv1beta1.NodeMetrics
	for _, age := range []time.Duration{time.Minute, 0, 2 * time.Minute, time.Minute, 9 * time.Minute, -time.Hour} {
		measure(observation, now.Add(-age), 1000+int64(age.Minutes()))
		all = append(all, observation.NodeMetrics...)
	}
	observation.NodeMetrics, observation.At = all, now
	node, _ := record(observation, options)
	if node.Skipped != "" || node.Measured.MilliCPU != 1002 || !node.Measured.At.Equal(now) {
		t.Errorf("skipped %q, measured %+v", node.Skipped, node.Measured)
	}
}

// Without anything that measures, what pods request counts, and GPUs always do.
func TestRequestsStandInForMeasurements(t *testing.T) {
	observation, options := testObservation(), metricsHistoryOptions()
	options.MinimumSamples = 3
	observation.NodeMetrics, observation.PodMetrics, observation.Source = nil, nil, cluster.SourceRequests
	observation.Pods[0].Spec.Containers[1].Resources.Requests["example.com/gpu"] = resource.MustParse("2")
	snapshot := Build(observation, options)
	node, pod := snapshot.Nodes[0], snapshot.Pods[0]
	if snapshot.Source != cluster.SourceRequests || node.Skipped != "" || pod.Immovable != "" {
		t.Errorf("source %s, skipped %q, immovable %q", snapshot.Source, node.Skipped, pod.Immovable)
	}
	if node.Measured.MilliCPU != 1400 || pod.Measured.MilliCPU != 1400 || node.Measured.Memory != 2<<30 || !node.Measured.At.Equal(now) {
		t.Errorf("node %+v, pod %+v", node.Measured, pod.Measured)
	}
	if pod.Requests.Scalar["example.com/gpu"] != 2 || pod.StrippedRequests.Scalar["example.com/gpu"] != 2 {
		t.Errorf("GPUs: %v, %v", pod.Requests.Scalar, pod.StrippedRequests.Scalar)
	}
	if source := Build(testObservation(), testOptions()).Source; source != cluster.SourceMeasured {
		t.Errorf("source with measurements: %s", source)
	}
}

// Figures that no machine has neither overflow nor become negative.
func TestMetricsHistoryBoundFigures(t *testing.T) {
	observation, options := testObservation(), metricsHistoryOptions()
	for i, used := range []int64{-5, math.MaxInt64, math.MinInt64} {
		measure(observation, now.Add(time.Duration(i)*time.Second), used)
		node, pod := record(observation, options)
		for _, usage := range []*cluster.Usage{node.Measured, node.Smoothed, pod.Measured} {
			if usage.MilliCPU < 0 || usage.MilliCPU > mostOf {
				t.Errorf("use of %d is counted as %d", used, usage.MilliCPU)
			}
		}
	}
}
