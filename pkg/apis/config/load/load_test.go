package load

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/config"
)

func files(t testing.TB, pattern string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join("testdata", pattern))
	if err != nil || len(found) == 0 {
		t.Fatalf("no files %s: %v", pattern, err)
	}
	return found
}

func TestGoodFiles(t *testing.T) {
	for _, path := range files(t, "*.good.yaml") {
		t.Run(filepath.Base(path), func(t *testing.T) {
			if _, err := File(path); err != nil {
				t.Error(err)
			}
		})
	}
}

// The first line of a bad file says what the error must contain.
func TestBadFiles(t *testing.T) {
	for _, path := range files(t, "*.bad.yaml") {
		t.Run(filepath.Base(path), func(t *testing.T) {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			first, _, _ := strings.Cut(string(data), "\n")
			want, ok := strings.CutPrefix(first, "# want: ")
			if !ok || want == "" {
				t.Fatal("the first line does not say what is wanted")
			}
			_, err = File(path)
			if err == nil {
				t.Fatal("no error")
			}
			if !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
				t.Errorf("error %q\nwants %q and the file", err, want)
			}
		})
	}
}

func TestMissingFile(t *testing.T) {
	if _, err := File("testdata/none.yaml"); err == nil || !strings.Contains(err.Error(), "none.yaml") {
		t.Errorf("got %v", err)
	}
}

func duration(d time.Duration) metav1.Duration { return metav1.Duration{Duration: d} }

// defaults are written out here once more: a change of them must be meant.
func defaults() *config.RebalanceArgs {
	return &config.RebalanceArgs{
		Interval:       duration(30 * time.Second),
		Strategies:     []config.Strategy{{Name: "Balance", Weight: 1}},
		Thresholds:     config.UtilizationThresholds{Mode: "Absolute", CPU: 70, Memory: 80},
		AbnormalCycles: 3,
		MinimumGain:    1,
		Signals:        config.SignalArgs{HalfLife: duration(time.Minute), Window: duration(5 * time.Minute), Percentile: 90},
		MaxCooldown:    duration(2 * time.Hour),
		CircuitBreaker: config.CircuitBreakerArgs{FailurePercent: 50, Migrations: 10, Window: duration(time.Hour), OpenFor: duration(30 * time.Minute)},
		MetricsMaxAge:  duration(2 * time.Minute),
		Budget: config.BudgetArgs{
			MaxInFlight: 5, MaxInFlightPerNode: 2, MaxInFlightPerNamespace: 5, MaxInFlightPerWorkload: 1, MaxMovesPerCycle: 5,
		},
		Cooldown:         duration(10 * time.Minute),
		MinimumPodAge:    duration(time.Minute),
		PriorityCeiling:  1_000_000_000,
		MigrationTimeout: duration(10 * time.Minute),
		Reclaim:          config.ReclaimArgs{Enabled: true},
	}
}

// deviating shows the defaults that depend on other arguments.
func deviating() *config.RebalanceArgs {
	args := defaults()
	args.Interval, args.Signals.Window = duration(5*time.Minute), duration(30*time.Minute)
	args.Thresholds = config.UtilizationThresholds{Mode: "Deviation", CPU: 10, Memory: 10}
	args.Cooldown, args.MaxCooldown = duration(3*time.Hour), duration(3*time.Hour)
	args.Signals.Prometheus = &config.PrometheusArgs{URL: "http://prometheus:9090", Queries: config.PrometheusQueries{
		NodeCPU:    `sum by (node) (rate(container_cpu_usage_seconds_total{id="/",node!=""}[$range])) or sum by (node) (rate(container_cpu_usage_seconds_total{container!="",pod!="",node!=""}[$range]))`,
		NodeMemory: `sum by (node) (container_memory_working_set_bytes{id="/",node!=""}) or sum by (node) (container_memory_working_set_bytes{container!="",pod!="",node!=""})`,
		PodCPU:     `sum by (namespace, pod) (rate(container_cpu_usage_seconds_total{container!="",pod!=""}[$range]))`,
		PodMemory:  `sum by (namespace, pod) (container_memory_working_set_bytes{container!="",pod!=""})`,
		Range:      duration(2 * time.Minute),
	}}
	return args
}

// every is everything that can be said of the loop's decisions.
func every() *config.RebalanceArgs {
	args := defaults()
	args.NodePools = []metav1.LabelSelector{{MatchLabels: map[string]string{"pool": "gpu"}}, {MatchLabels: map[string]string{"pool": "cpu"}}}
	args.Strategies = []config.Strategy{{Name: "Balance", Weight: 3}, {Name: "Defragment", Weight: 1}}
	args.Shapes = []corev1.ResourceList{{"nvidia.com/gpu": resource.MustParse("8"), "cpu": resource.MustParse("32")}}
	args.Thresholds = config.UtilizationThresholds{Mode: "Deviation", CPU: 15, Memory: 20}
	args.AbnormalCycles, args.MinimumGain = 5, 2.5
	args.Signals = config.SignalArgs{HalfLife: duration(2 * time.Minute), Window: duration(10 * time.Minute), Percentile: 95,
		Prometheus: &config.PrometheusArgs{URL: "https://prometheus.monitoring:9090", BearerTokenFile: "/var/run/token", Queries: config.PrometheusQueries{
			NodeCPU: "node_cpu", NodeMemory: "node_memory", PodCPU: "pod_cpu", PodMemory: "pod_memory", Range: duration(time.Minute)}}}
	args.Cooldown, args.MaxCooldown = duration(5*time.Minute), duration(80*time.Minute)
	args.CircuitBreaker = config.CircuitBreakerArgs{FailurePercent: 30, Migrations: 20, Window: duration(2 * time.Hour), OpenFor: duration(time.Hour)}
	return args
}

func TestArguments(t *testing.T) {
	some := defaults()
	some.Thresholds.CPU = 50
	some.Reclaim.Enabled = false
	some.NodeSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"pool": "gpu"}}
	for path, want := range map[string]*config.RebalanceArgs{
		"testdata/every-argument.good.yaml": every(),
		"testdata/deviation.good.yaml":      deviating(),
		"testdata/defaults.good.yaml":       defaults(),
		"testdata/plugins-off.good.yaml":    defaults(),
		"testdata/some-arguments.good.yaml": some,
		// The file that users start from says that its values are the defaults.
		"../../../../config/scheduler-configuration.yaml": defaults(),
	} {
		t.Run(filepath.Base(path), func(t *testing.T) {
			got, err := File(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got.Rebalance); diff != "" {
				t.Errorf("RebalanceArgs (-want +got):\n%s", diff)
			}
			wantVolume := &config.CheckpointVolumeArgs{AttachTimeout: duration(2 * time.Minute), FailedNodeBackoff: duration(5 * time.Minute)}
			if diff := cmp.Diff(wantVolume, got.CheckpointVolume); diff != "" {
				t.Errorf("CheckpointVolumeArgs (-want +got):\n%s", diff)
			}
			if got.Profile.SchedulerName != "ai-storage-scheduler" {
				t.Errorf("profile %q", got.Profile.SchedulerName)
			}
		})
	}
}
