package main

import (
	"os"
	"path/filepath"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/ai-storage/orchestrator/pkg/apis/config"
	"github.com/ai-storage/orchestrator/pkg/apis/config/load"
)

// policy is what the test looks at of a policy of the descheduler.
type policy struct {
	Total    int32 `json:"maxNoOfPodsToEvictTotal"`
	PerNode  int32 `json:"maxNoOfPodsToEvictPerNode"`
	Profiles []struct {
		PluginConfig []struct {
			Name string `json:"name"`
			Args struct {
				MinPodAge          string
				MetricsUtilization struct{ Source string }
			} `json:"args"`
		} `json:"pluginConfig"`
	} `json:"profiles"`
}

// Both tools may do as much, from the same age of a pod on. What they call overutilized is
// theirs: the descheduler comes with a static threshold and with one around the mean.
func TestArmsAreComparable(t *testing.T) {
	for _, a := range arms {
		read, err := load.File(filepath.Join("testdata", a.configuration))
		if err != nil {
			t.Fatal(err)
		}
		if a.policy != "" {
			t.Run(a.name, func(t *testing.T) { compare(t, a.policy, read.Rebalance) })
		}
	}
}

func compare(t *testing.T, file string, ours *config.RebalanceArgs) {
	content, err := os.ReadFile(filepath.Join("testdata", file))
	if err != nil {
		t.Fatal(err)
	}
	var theirs policy
	if err := yaml.Unmarshal(content, &theirs); err != nil {
		t.Fatal(err)
	}
	if theirs.Total != ours.Budget.MaxMovesPerCycle || theirs.PerNode != ours.Budget.MaxInFlightPerNode {
		t.Errorf("its caps are %d and %d, ours %+v", theirs.Total, theirs.PerNode, ours.Budget)
	}
	seen := map[string]bool{}
	for _, plugin := range theirs.Profiles[0].PluginConfig {
		seen[plugin.Name] = true
		switch args := plugin.Args; plugin.Name {
		case "DefaultEvictor":
			if args.MinPodAge != "1m" || ours.MinimumPodAge.Minutes() != 1 {
				t.Errorf("its pods must be %s old, ours %s", args.MinPodAge, ours.MinimumPodAge.Duration)
			}
		case "LowNodeUtilization":
			if args.MetricsUtilization.Source != "KubernetesMetrics" {
				t.Errorf("it takes its metrics from %q", args.MetricsUtilization.Source)
			}
		}
	}
	if !seen["DefaultEvictor"] || !seen["LowNodeUtilization"] {
		t.Errorf("it configures %v", seen)
	}
}
