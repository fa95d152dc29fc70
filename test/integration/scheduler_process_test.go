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
	return buildProgram(t, "scheduler")
}

// buildProgram compiles one of our programs for one test, as make build does, which
// leaves what is compiled to it.
func buildProgram(t *testing.T, name string) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), name)
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", program, "./cmd/"+name)
	build.Dir, build.Env = repository, append(os.Environ(), "CGO_ENABLED=0")
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the %s: %v\n%s", name, err, output)
	}
	return program
}

// startScheduler runs the real program with the shipped configuration and the
// rights of its service account in manifests/, until the test ends.
func startScheduler(t *testing.T, program string) {
	t.Helper()
	applyManifest(t, "manifests/namespace.yaml")
	applyManifest(t, "manifests/base/scheduler-rbac.yaml")
	runProgram(t, program, "--config="+schedulerConfiguration(t, "config/scheduler-configuration.yaml"), "--secure-port=0", "-v=3")
}

// runProgram runs a program until the test ends. It must end when it is asked to,
// and no right may be missing.
func runProgram(t *testing.T, program string, arguments ...string) {
	t.Helper()
	name := filepath.Base(program)
	var output lockedBuffer
	command := exec.Command(program, arguments...)
	command.Stdout, command.Stderr = &output, &output
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- command.Wait() }()
	t.Cleanup(func() {
		if err := command.Process.Signal(syscall.SIGTERM); err != nil {
			t.Errorf("the %s ended by itself: %v", name, err)
		}
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			// Go programs tell then where each goroutine stands.
			_ = command.Process.Signal(syscall.SIGQUIT)
			<-done
			t.Errorf("the %s does not end", name)
		}
		if strings.Contains(output.String(), "forbidden") {
			t.Errorf("a right is missing in those of the %s:\n%s", name, linesWith(output.String(), "forbidden"))
		}
		if t.Failed() {
			t.Logf("the %s says:\n%s", name, output.String())
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
	configuration["clientConnection"] = map[string]any{"kubeconfig": impersonatingKubeconfig(t, schedulerAccount)}
	return writeYAML(t, "scheduler-configuration.yaml", configuration)
}

// impersonatingKubeconfig lets a program act as its service account,
// system:serviceaccount:NAMESPACE:NAME.
func impersonatingKubeconfig(t *testing.T, account string) string {
	t.Helper()
	config := clientcmdapi.NewConfig()
	config.Clusters["test"] = &clientcmdapi.Cluster{Server: restConfig.Host, CertificateAuthorityData: restConfig.CAData}
	config.AuthInfos["program"] = &clientcmdapi.AuthInfo{
		ClientCertificateData: restConfig.CertData,
		ClientKeyData:         restConfig.KeyData,
		Impersonate:           account,
		ImpersonateGroups:     []string{"system:serviceaccounts", "system:serviceaccounts:" + strings.Split(account, ":")[2], "system:authenticated"},
	}
	config.Contexts["test"] = &clientcmdapi.Context{Cluster: "test", AuthInfo: "program"}
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
