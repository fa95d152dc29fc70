package demo

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ai-storage/orchestrator/test/devcluster"
)

const shippedConfig = "../../../config/scheduler-configuration.yaml"

func TestWriteConfig(t *testing.T) {
	to := filepath.Join(t.TempDir(), "demo.yaml")
	args, err := writeConfig(shippedConfig, to, overrides(devcluster.Real))
	if err != nil {
		t.Fatal(err)
	}
	if args.Interval.Duration != 5*time.Second || args.MinimumPodAge.Duration != 20*time.Second || args.Thresholds.CPU != 40 || args.AbnormalCycles != 1 {
		t.Errorf("arguments %+v", args)
	}
	if args.Budget.MaxInFlight == 0 || args.Cooldown.Duration == 0 {
		t.Errorf("arguments that were not overridden are lost: %+v", args)
	}
	if _, err := os.Stat(to); err != nil {
		t.Error(err)
	}
}

func TestWriteConfigRefuses(t *testing.T) {
	to := filepath.Join(t.TempDir(), "demo.yaml")
	if _, err := writeConfig(shippedConfig, to, map[string]any{"noSuchField": 1}); err == nil {
		t.Error("an unknown argument is accepted")
	}
	if _, err := os.Stat(to); err == nil {
		t.Error("a refused configuration is written")
	}
	if _, err := withArguments([]byte("profiles: []\n"), nil); err == nil {
		t.Error("a configuration without our plugin is accepted")
	}
}

func TestDescribe(t *testing.T) {
	if got, want := describe(overrides(devcluster.Real)), "abnormalCycles=1 interval=5s minimumPodAge=20s thresholds=cpu=40 memory=80"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
