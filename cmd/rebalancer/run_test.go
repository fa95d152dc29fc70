package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Checkpoints that nobody would fill: every migration of the loop that carries
// something would fail.
func TestCheckpointsNeedTheNodeAgent(t *testing.T) {
	content, err := os.ReadFile("../../config/scheduler-configuration.yaml")
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(t.TempDir(), "configuration.yaml")
	changed := strings.Replace(string(content), "# checkpointStorageClassName: shared", "checkpointStorageClassName: shared", 1)
	if err := os.WriteFile(config, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	err = run(t.Context(), &options{config: config, kubeconfig: "none"})
	if err == nil || !strings.Contains(err.Error(), "checkpointStorageClassName") || !strings.Contains(err.Error(), "--node-agent-image") {
		t.Errorf("got %v", err)
	}
	err = run(t.Context(), &options{config: config, kubeconfig: "none", nodeAgentImage: "agent"})
	if err == nil || !strings.Contains(err.Error(), "--kubeconfig") {
		t.Errorf("with an agent: got %v", err)
	}
}
