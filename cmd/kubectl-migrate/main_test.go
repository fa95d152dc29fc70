package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// runPlugin makes the test binary the plugin.
const runPlugin = "RUN_KUBECTL_MIGRATE"

func TestMain(m *testing.M) {
	if os.Getenv(runPlugin) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// A cluster that does not answer is one line, and nothing of the libraries.
func TestClusterThatDoesNotAnswer(t *testing.T) {
	for _, args := range []string{"list", "pod trainer", "plan", "top", "describe one", "cancel one", "pause", "drain node-a", "version"} {
		command := exec.CommandContext(t.Context(), os.Args[0], append(strings.Fields(args), "--server=https://127.0.0.1:1", "--kubeconfig=")...)
		command.Env = append(os.Environ(), runPlugin+"=1", "KUBECONFIG=/nonexistent")
		var said strings.Builder
		command.Stderr = &said
		if err := command.Run(); err == nil || command.ProcessState.ExitCode() != 1 {
			t.Errorf("%s: %v, want exit code 1", args, err)
		}
		if lines := strings.Split(strings.TrimSpace(said.String()), "\n"); len(lines) != 1 ||
			!strings.HasPrefix(lines[0], "error: the cluster at https://127.0.0.1:1 cannot be reached: dial tcp 127.0.0.1:1: connect: connection refused.") {
			t.Errorf("%s prints %q", args, said.String())
		}
	}
}
