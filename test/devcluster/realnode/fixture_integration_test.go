package realnode_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/ai-storage/orchestrator/test/devcluster/controlplane"
	"github.com/ai-storage/orchestrator/test/devcluster/image"
	"github.com/ai-storage/orchestrator/test/devcluster/process"
	"github.com/ai-storage/orchestrator/test/devcluster/realnode"
)

const (
	binDir    = "../../../bin"
	namespace = "default"
)

// nodeNames are the nodes of the fixture.
var nodeNames = []string{"real-0", "real-1"}

// fixture is a control plane with two real nodes.
type fixture struct {
	stateDir    string
	credentials *controlplane.Credentials
	images      []string
	client      kubernetes.Interface
}

// newFixture skips the test unless it is asked for: real nodes need root and
// change the machine while they run.
func newFixture(t *testing.T) *fixture {
	t.Helper()
	if os.Getenv("REAL_NODES") == "" {
		t.Skip("set REAL_NODES=1, as root, to start real nodes on this machine")
	}
	if err := realnode.CheckPrerequisites(binDir); err != nil {
		t.Fatal(err)
	}
	// No Unix socket could lie below a path of this length.
	f := &fixture{stateDir: filepath.Join(t.TempDir(), strings.Repeat("a long path ", 10)+"end")}
	before, alone := machineState(t), !hasBridges(t)
	t.Cleanup(func() {
		f.stop(t)
		if left, err := realnode.Find(f.stateDir); err != nil || len(left) > 0 {
			t.Errorf("nodes %v are left, error %v", left, err)
		}
		if !alone || hasBridges(t) {
			t.Log("another cluster has nodes on this machine, which is thus not compared with before")
			return
		}
		assertSameMachine(t, before)
	})
	f.startControlPlane(t)
	var err error
	if f.images, err = image.BuildLocal(binDir, filepath.Join(f.stateDir, "images")); err != nil {
		t.Fatal(err)
	}
	for index := range nodeNames {
		f.startNode(t, index)
	}
	if err := controlplane.AwaitNodes(t.Context(), f.client, len(nodeNames)); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *fixture) startControlPlane(t *testing.T) {
	t.Helper()
	programs, err := filepath.Abs(binDir)
	if err != nil {
		t.Fatal(err)
	}
	ports, err := controlplane.FreePorts()
	if err != nil {
		t.Fatal(err)
	}
	options := controlplane.Options{StateDir: f.stateDir, BinDir: programs, Ports: ports, Report: t.Logf}
	if err := os.MkdirAll(f.stateDir, 0o755); err != nil {
		t.Fatal(err)
	}
	if f.credentials, err = controlplane.NewCredentials(f.stateDir, ports, time.Now); err != nil {
		t.Fatal(err)
	}
	if err := controlplane.Start(t.Context(), options); err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.BuildConfigFromFlags("", f.kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	if f.client, err = kubernetes.NewForConfig(config); err != nil {
		t.Fatal(err)
	}
	applier, err := controlplane.NewApplier(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := controlplane.ApplyBase(t.Context(), applier, options); err != nil {
		t.Fatal(err)
	}
	if err := controlplane.AwaitNamespaces(t.Context(), f.client, namespace); err != nil {
		t.Fatal(err)
	}
}

func (f *fixture) kubeconfig() string { return controlplane.KubeconfigPath(f.stateDir, "admin") }

func (f *fixture) startNode(t *testing.T, index int) {
	t.Helper()
	name := nodeNames[index]
	kubeconfig, err := f.credentials.NodeKubeconfig(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := realnode.Start(t.Context(), realnode.Options{
		Name: name, Index: index, StateDir: f.stateDir, BinDir: binDir, Kubeconfig: kubeconfig,
		ClientCAFile: controlplane.CertificatePath(f.stateDir, "ca"), Images: f.images, Log: t.Logf,
	}); err != nil {
		t.Fatal(err)
	}
}

func (f *fixture) stop(t *testing.T) {
	t.Helper()
	if t.Failed() {
		for _, name := range nodeNames {
			t.Logf("kubelet of %s:\n%s", name, process.LogTail(f.stateDir, "kubelet-"+name, 30))
		}
	}
	f.loseFiles(t, nodeNames[1])
	ctx := context.Background()
	for _, name := range nodeNames {
		if err := realnode.Stop(ctx, realnode.Options{Name: name, StateDir: f.stateDir}); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{controlplane.ControllerManager, controlplane.APIServer, controlplane.Etcd} {
		if err := process.Stop(ctx, f.stateDir, name); err != nil {
			t.Error(err)
		}
	}
	strays, err := process.Strays(f.stateDir)
	if err != nil || len(strays) > 0 {
		t.Errorf("processes are left: %v, error %v", strays, err)
	}
}

// loseFiles hides all files of a running node: its end must not need them.
func (f *fixture) loseFiles(t *testing.T, node string) {
	t.Helper()
	records, err := filepath.Glob(filepath.Join(f.stateDir, "processes", "*-"+node+".json"))
	if err != nil || len(records) == 0 {
		t.Errorf("process records of node %s: %v, error %v", node, records, err)
	}
	for _, path := range append(records, filepath.Join(f.stateDir, "nodes", node)) {
		if err := os.Rename(path, filepath.Join(f.stateDir, "lost-"+filepath.Base(path))); err != nil {
			t.Error(err)
		}
	}
}

// hasBridges tells whether there are nodes, of whatever cluster.
func hasBridges(t *testing.T) bool {
	t.Helper()
	bridges, err := filepath.Glob("/sys/class/net/ais-*")
	if err != nil {
		t.Fatal(err)
	}
	return len(bridges) > 0
}

// machineState is what nodes change on a machine, one line each.
func machineState(t *testing.T) map[string]bool {
	t.Helper()
	state := map[string]bool{}
	for _, command := range [][]string{
		{"find", "/sys/fs/cgroup", "-type", "d", "-name", "ai-storage-*"},
		{"findmnt", "--noheadings", "--raw", "--output", "TARGET,FSTYPE"},
		{"ip", "-brief", "link"},
		{"ip", "netns"},
		// The first mount(8) of a machine makes /run/mount for its own table.
		{"find", "/run", "/var/lib", "/var/log", "-maxdepth", "1", "-not", "-path", "/run/mount"},
		{"cat", "/proc/sys/net/ipv4/ip_forward"},
		// Ours alone: other programs of the machine come and go.
		{"pgrep", "--list-full", "containerd|kubelet|runc"},
	} {
		// pgrep fails when there is nothing.
		output, _ := exec.Command(command[0], command[1:]...).Output()
		for _, line := range strings.Split(string(output), "\n") {
			state[command[0]+": "+strings.TrimSpace(line)] = true
		}
	}
	return state
}

// assertSameMachine allows the first process of the machine a moment to reap
// what it inherited.
func assertSameMachine(t *testing.T, before map[string]bool) {
	t.Helper()
	eventually(t, func() error {
		after := machineState(t)
		var differences []error
		for line := range after {
			if !before[line] {
				differences = append(differences, fmt.Errorf("left on the machine: %s", line))
			}
		}
		for line := range before {
			if !after[line] {
				differences = append(differences, fmt.Errorf("lost on the machine: %s", line))
			}
		}
		return errors.Join(differences...)
	})
}

// eventually polls until check returns nil.
func eventually(t *testing.T, check func() error) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func container(name, cpu string, arguments ...string) corev1.Container {
	return corev1.Container{
		Name: name, Image: image.WorkloadReference, Args: append([]string{"run"}, arguments...),
		Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
			corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse("32Mi"),
		}},
	}
}

// runPod creates a pod on a node and waits until all its containers started.
func (f *fixture) runPod(t *testing.T, name, node string, containers ...corev1.Container) *corev1.Pod {
	t.Helper()
	pods := f.client.CoreV1().Pods(namespace)
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{
			NodeName: node, RestartPolicy: corev1.RestartPolicyNever, DNSPolicy: corev1.DNSDefault, Containers: containers,
			Volumes: []corev1.Volume{{Name: "shared", VolumeSource: corev1.VolumeSource{
				PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "shared"},
			}}},
		},
	}
	if _, err := pods.Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() (err error) {
		pod, err = pods.Get(t.Context(), name, metav1.GetOptions{})
		if err == nil && pod.Status.Phase != corev1.PodRunning {
			err = fmt.Errorf("pod %s is %s: %+v", name, pod.Status.Phase, pod.Status.ContainerStatuses)
		}
		return err
	})
	return pod
}

// kubectl runs the real one: exec takes a protocol of its own.
func (f *fixture) kubectl(t *testing.T, arguments ...string) (string, error) {
	t.Helper()
	command := exec.CommandContext(t.Context(), filepath.Join(binDir, "kubectl"), append([]string{"--kubeconfig", f.kubeconfig()}, arguments...)...)
	var output, failure bytes.Buffer
	command.Stdout, command.Stderr = &output, &failure
	if err := command.Run(); err != nil {
		return "", fmt.Errorf("kubectl %s: %w: %s", strings.Join(arguments, " "), err, failure.String())
	}
	return output.String(), nil
}

func (f *fixture) logs(t *testing.T, pod, container string) string {
	t.Helper()
	stream, err := f.client.CoreV1().Pods(namespace).GetLogs(pod, &corev1.PodLogOptions{Container: container}).Stream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	content, err := io.ReadAll(stream)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}
