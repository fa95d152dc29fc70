package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"k8s.io/kubernetes/cmd/kube-scheduler/app"
)

// apiServer reports a version and serves no devices.
func apiServer(t *testing.T, version string) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/version" {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"gitVersion":"` + version + `"}`))
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// write makes a kubeconfig for the server, and a configuration that names it.
func write(t *testing.T, server string) (kubeconfig, configuration string) {
	t.Helper()
	directory := t.TempDir()
	kubeconfig, configuration = filepath.Join(directory, "kubeconfig"), filepath.Join(directory, "configuration")
	for path, content := range map[string]string{
		kubeconfig: "apiVersion: v1\nkind: Config\nclusters: [{name: c, cluster: {server: '" + server + "'}}]\n" +
			"contexts: [{name: c, context: {cluster: c}}]\ncurrent-context: c\n",
		configuration: "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\nclientConnection: {kubeconfig: '" + kubeconfig + "'}\n",
	} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return kubeconfig, configuration
}

// emulated returns what the flag is when kube-scheduler's own part begins.
func emulated(t *testing.T, arguments ...string) string {
	t.Helper()
	command := app.NewSchedulerCommand()
	seen := "never asked"
	command.PersistentPreRunE = func(command *cobra.Command, _ []string) error {
		seen = command.Flags().Lookup(emulatedVersion).Value.String()
		return nil
	}
	command.RunE = func(*cobra.Command, []string) error { return nil }
	fitToAPIServer(command)
	command.SetArgs(arguments)
	if err := command.Execute(); err != nil {
		t.Fatal(err)
	}
	return seen
}

// A field that does not exist is reported without an API server.
func TestABadConfigurationIsRefusedAtOnce(t *testing.T) {
	command := app.NewSchedulerCommand()
	fitToAPIServer(command)
	command.SetArgs([]string{"--config=../../pkg/apis/config/load/testdata/negative-duration.bad.yaml", "--master=https://localhost:1"})
	if err := command.Execute(); err == nil || !strings.Contains(err.Error(), "attachTimeout") {
		t.Errorf("error %v, want one that names the field", err)
	}
}

func TestFitToAPIServer(t *testing.T) {
	kubeconfig, configuration := write(t, apiServer(t, "v1.33.13"))
	for _, test := range []struct {
		name, want string
		arguments  []string
	}{
		// First: the flag's value is one for the whole program.
		{"nothing is run", "[]", []string{"--kubeconfig=/none", "--write-config-to=/none"}},
		{"by the configuration", "[1.33]", []string{"--config=" + configuration, "--kubeconfig=/none"}},
		{"by the kubeconfig", "[1.33]", []string{"--kubeconfig=" + kubeconfig}},
		{"the flag is set", "[1.34]", []string{"--kubeconfig=" + kubeconfig, "--emulated-version=1.34"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := emulated(t, test.arguments...); got != test.want {
				t.Errorf("emulated version %s, want %s", got, test.want)
			}
		})
	}
}
