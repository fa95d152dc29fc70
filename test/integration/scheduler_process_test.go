package integration

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/yaml"
)

const (
	repository       = "../.."
	schedulerAccount = "system:serviceaccount:ai-storage-system:ai-storage-scheduler"
)

// buildScheduler compiles cmd/scheduler for one test.
func buildScheduler(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "scheduler")
	build := exec.Command("go", "build", "-o", program, "./cmd/scheduler")
	build.Dir = repository
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the scheduler: %v\n%s", err, output)
	}
	return program
}

// startScheduler runs the real program with the shipped configuration and the
// rights of its service account in manifests/, until the test ends.
func startScheduler(t *testing.T, program string) {
	t.Helper()
	applyManifest(t, "manifests/namespace.yaml")
	applyManifest(t, "manifests/base/scheduler-rbac.yaml")
	var output lockedBuffer
	command := exec.Command(program, "--config="+schedulerConfiguration(t, "config/scheduler-configuration.yaml"), "--secure-port=0", "-v=3")
	command.Stdout, command.Stderr = &output, &output
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- command.Wait() }()
	t.Cleanup(func() {
		if err := command.Process.Signal(syscall.SIGTERM); err != nil {
			t.Errorf("the scheduler ended by itself: %v", err)
		}
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			_ = command.Process.Kill()
			t.Error("the scheduler does not end")
		}
		if strings.Contains(output.String(), "forbidden") {
			t.Errorf("a right is missing in the scheduler's rights:\n%s", linesWith(output.String(), "forbidden"))
		}
		if t.Failed() {
			t.Logf("the scheduler says:\n%s", output.String())
		}
	})
}

// schedulerConfiguration is a file of the repository with a kubeconfig in it.
func schedulerConfiguration(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(repository, path))
	if err != nil {
		t.Fatal(err)
	}
	configuration := map[string]any{}
	if err := yaml.Unmarshal(data, &configuration); err != nil {
		t.Fatal(err)
	}
	configuration["clientConnection"] = map[string]any{"kubeconfig": impersonatingKubeconfig(t)}
	return writeYAML(t, "scheduler-configuration.yaml", configuration)
}

// impersonatingKubeconfig lets the scheduler act as its service account.
func impersonatingKubeconfig(t *testing.T) string {
	t.Helper()
	config := clientcmdapi.NewConfig()
	config.Clusters["test"] = &clientcmdapi.Cluster{Server: restConfig.Host, CertificateAuthorityData: restConfig.CAData}
	config.AuthInfos["scheduler"] = &clientcmdapi.AuthInfo{
		ClientCertificateData: restConfig.CertData,
		ClientKeyData:         restConfig.KeyData,
		Impersonate:           schedulerAccount,
		ImpersonateGroups:     []string{"system:serviceaccounts", "system:serviceaccounts:ai-storage-system", "system:authenticated"},
	}
	config.Contexts["test"] = &clientcmdapi.Context{Cluster: "test", AuthInfo: "scheduler"}
	config.CurrentContext = "test"
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		t.Fatal(err)
	}
	return path
}

func writeYAML(t *testing.T, name string, content any) string {
	t.Helper()
	data, err := yaml.Marshal(content)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// applyManifest creates every object of a file that does not exist.
func applyManifest(t *testing.T, path string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(repository, path))
	if err != nil {
		t.Fatal(err)
	}
	decoder := utilyaml.NewYAMLOrJSONDecoder(bytes.NewReader(data), 4096)
	for {
		object := &unstructured.Unstructured{}
		err := decoder.Decode(object)
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		if err := k8s.Create(context.Background(), object); err != nil && !apierrors.IsAlreadyExists(err) {
			t.Fatalf("%s: %s %s: %v", path, object.GetKind(), object.GetName(), err)
		}
	}
}

func linesWith(text, part string) string {
	var found []string
	for line := range strings.Lines(text) {
		if strings.Contains(line, part) {
			found = append(found, line)
		}
	}
	return strings.Join(found, "")
}

// lockedBuffer may be read while a process writes to it.
type lockedBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}
