package load

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/config"
)

func files(t *testing.T, pattern string) []string {
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
		Interval:      duration(30 * time.Second),
		Thresholds:    config.UtilizationThresholds{CPU: 70, Memory: 80},
		MetricsMaxAge: duration(2 * time.Minute),
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

func TestArguments(t *testing.T) {
	some := defaults()
	some.Thresholds.CPU = 50
	some.Reclaim.Enabled = false
	some.NodeSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"pool": "gpu"}}
	for path, want := range map[string]*config.RebalanceArgs{
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
