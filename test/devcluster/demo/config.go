package demo

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/ai-storage/orchestrator/pkg/apis/config"
	"github.com/ai-storage/orchestrator/pkg/apis/config/load"
	"github.com/ai-storage/orchestrator/test/devcluster"
)

// overrides are the arguments of the Rebalance plugin that a demo cannot wait
// for, or that its machine has no cores for.
func overrides(kind devcluster.NodeKind) map[string]any {
	changed := map[string]any{"interval": "5s", "minimumPodAge": "20s", "abnormalCycles": 1}
	if kind == devcluster.Real {
		// The nodes share the machine's cores: loads are real, but must be low.
		changed["thresholds"] = map[string]any{"cpu": 40, "memory": 80}
	}
	return changed
}

// writeConfig writes a copy of a configuration with other arguments of the
// Rebalance plugin, and returns the arguments as both programs will read them.
func writeConfig(from, to string, changed map[string]any) (*config.RebalanceArgs, error) {
	content, err := os.ReadFile(from)
	if err != nil {
		return nil, fmt.Errorf("demo configuration: %w", err)
	}
	patched, err := withArguments(content, changed)
	if err != nil {
		return nil, fmt.Errorf("demo configuration: %s: %w", from, err)
	}
	read, err := load.Bytes(patched)
	if err != nil {
		return nil, fmt.Errorf("demo configuration: %w", err)
	}
	if err := os.WriteFile(to, patched, 0o644); err != nil {
		return nil, fmt.Errorf("demo configuration: %w", err)
	}
	return read.Rebalance, nil
}

// withArguments sets arguments of the Rebalance plugin in every profile that
// configures it.
func withArguments(configuration []byte, changed map[string]any) ([]byte, error) {
	fields := map[string]any{}
	if err := yaml.UnmarshalStrict(configuration, &fields); err != nil {
		return nil, err
	}
	found := false
	for _, profile := range list(fields["profiles"]) {
		for _, plugin := range list(profile["pluginConfig"]) {
			arguments, ok := plugin["args"].(map[string]any)
			if ok && plugin["name"] == config.RebalanceName {
				maps.Copy(arguments, changed)
				found = true
			}
		}
	}
	if !found {
		return nil, fmt.Errorf("no profile has arguments for the plugin %s", config.RebalanceName)
	}
	return yaml.Marshal(fields)
}

func list(value any) []map[string]any {
	items, _ := value.([]any)
	var objects []map[string]any
	for _, item := range items {
		if object, ok := item.(map[string]any); ok {
			objects = append(objects, object)
		}
	}
	return objects
}

func describe(changed map[string]any) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(changed)) {
		value := fmt.Sprint(changed[name])
		if nested, ok := changed[name].(map[string]any); ok {
			value = describe(nested)
		}
		parts = append(parts, name+"="+value)
	}
	return strings.Join(parts, " ")
}
