//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// kubectl runs bin/kubectl with our plugin on its PATH, as a person does.
func kubectl(t *testing.T, namespace string, args ...string) (code int, text string) {
	t.Helper()
	bin, err := filepath.Abs("../../bin")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	command := exec.CommandContext(ctx, filepath.Join(bin, "kubectl"), append(args, "--namespace="+namespace)...)
	command.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "KUBECONFIG="+env.cluster.AdminKubeconfig(), "HOME="+t.TempDir())
	var out bytes.Buffer
	command.Stdout, command.Stderr = &out, &out
	err = command.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("running kubectl %s: %v", strings.Join(args, " "), err)
	}
	t.Logf("$ kubectl %s\n%s", strings.Join(args, " "), out.String())
	return command.ProcessState.ExitCode(), out.String()
}

func wantAnswer(t *testing.T, code, wantCode int, text string, wants ...string) {
	t.Helper()
	if code != wantCode {
		t.Errorf("exit code %d, want %d", code, wantCode)
	}
	for _, want := range wants {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in:\n%s", want, text)
		}
	}
}

// The plugin as a person uses it: it moves a pod and reports how, and shows the plan.
func TestKubectlMigrate(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t)
	pod := newPod(namespace, "trainer", container("prepare", 100, "--for=1s"), container("train", 50))
	pod.Annotations = map[string]string{v1alpha1.ExcludeAnnotation: "true"}
	startOn(t, env.nodes[0], pod)
	waitCompletedWithin(t, pod, "prepare", 30*time.Second)
	code, text := kubectl(t, namespace, "migrate", "pod", "trainer", "--to="+env.nodes[1], "--wait")
	wantAnswer(t, code, 0, text, "Placing", "Succeeded", "moved from node "+env.nodes[0]+" to node "+env.nodes[1], "New pod:", "Downtime:", "100m (67%)")
	code, text = kubectl(t, namespace, "migrate", "plan")
	wantAnswer(t, code, 0, text, "Plan of ", "PREDICTED (source: Measured)", env.nodes[0])
	code, text = kubectl(t, namespace, "migrate", "top")
	wantAnswer(t, code, 0, text, "CPU REQUESTED", env.nodes[1])
	if strings.Contains(text, "No measurements") {
		t.Error("top has no measurements")
	}
	moved := onlyRunning(t, namespace)
	if moved.Spec.NodeName != env.nodes[1] || len(moved.Spec.Containers) != 1 {
		t.Errorf("pod %s is on node %s with %d containers", moved.Name, moved.Spec.NodeName, len(moved.Spec.Containers))
	}
	code, text = kubectl(t, namespace, "migrate", "pod", moved.Name, "--to="+env.nodes[1])
	wantAnswer(t, code, 3, text, "TargetIsSource")
}

func onlyRunning(t *testing.T, namespace string) *corev1.Pod {
	t.Helper()
	pods := &corev1.PodList{}
	if err := env.client.List(t.Context(), pods, client.InNamespace(namespace)); err != nil {
		t.Fatal(err)
	}
	if len(pods.Items) != 1 {
		t.Fatalf("%d pods are left, want one", len(pods.Items))
	}
	return &pods.Items[0]
}

// A drain moves a pod that nothing would recreate and a pod of a Deployment, reports
// what cannot move, and cordons the node; the loop is paused meanwhile. No other test
// may run.
func TestKubectlDrain(t *testing.T) {
	namespace, from := newNamespace(t), env.nodes[0]
	code, text := kubectl(t, namespace, "migrate", "pause", "--reason=maintenance of "+from)
	wantAnswer(t, code, 0, text, "rebalancing paused")
	defer kubectl(t, namespace, "migrate", "resume")
	startOn(t, from, excluded(newPod(namespace, "trainer", container("train", 50))))
	setCordon(t, env.nodes[1], true)
	create(t, newDeployment(namespace, "served", 1, templateOf("served", corev1.PodSpec{
		SchedulerName: v1alpha1.SchedulerName, Containers: []corev1.Container{container("serve", 50)},
	})))
	eventually(t, time.Minute, "the pod of the Deployment runs", func(ctx context.Context) error {
		_, err := runningOn(ctx, namespace, from, 2)
		return err
	})
	setCordon(t, env.nodes[1], false)
	code, text = kubectl(t, namespace, "migrate", "drain", from, "--dry-run=server")
	wantAnswer(t, code, 3, text, namespace+"/trainer", "moves", "kube-system/csidriver-"+from, "of its node through volume", "cordoned (server dry run)")
	defer setCordon(t, from, false)
	code, text = kubectl(t, namespace, "migrate", "drain", from)
	wantAnswer(t, code, 3, text, "2 pods moved off node "+from, "1 left that cannot move", "node/"+from+" cordoned")
	moved, err := runningOn(t.Context(), namespace, env.nodes[1], 2)
	if err != nil {
		t.Error(err)
	}
	t.Log(moved)
	code, text = kubectl(t, namespace, "migrate", "plan")
	wantAnswer(t, code, 0, text, "maintenance of "+from)
}

// runningOn names the running pods of a namespace on a node, and wants so many.
func runningOn(ctx context.Context, namespace, node string, want int) (names []string, err error) {
	pods := &corev1.PodList{}
	if err := env.client.List(ctx, pods, client.InNamespace(namespace)); err != nil {
		return nil, err
	}
	for i := range pods.Items {
		if pod := &pods.Items[i]; pod.Spec.NodeName == node && pod.Status.Phase == corev1.PodRunning && pod.DeletionTimestamp == nil {
			names = append(names, pod.Name)
		}
	}
	if len(names) != want {
		err = fmt.Errorf("pods %v run on node %s, want %d", names, node, want)
	}
	return names, err
}
