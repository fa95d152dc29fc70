//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// reclaimLimit is how long a waiting pod may still wait when a container of a
// neighbour has finished.
const reclaimLimit = 5 * time.Second

// A pod that waits for room runs as soon as a container of a neighbour has
// finished. Nothing is moved, and nothing restarts. Each case fills a node of its own:
// they run beside each other, and beside no other test.
func TestAWaitingPodRunsWhenANeighboursContainerFinishes(t *testing.T) {
	for i, class := range []corev1.PodQOSClass{corev1.PodQOSBurstable, corev1.PodQOSGuaranteed} {
		t.Run(string(class), func(t *testing.T) {
			t.Parallel()
			testWaitingPodRuns(t, env.nodes[i], class)
		})
	}
}

func testWaitingPodRuns(t *testing.T, node string, class corev1.PodQOSClass) {
	namespace := newNamespace(t)
	neighbour := stayingOn(node, newPod(namespace, "neighbour", container("prepare", 900, "--for=12s"), container("train", 500)))
	if class == corev1.PodQOSGuaranteed {
		guaranteed(neighbour)
	}
	create(t, neighbour)
	waitRunning(t, neighbour)
	before := containerID(t, neighbour, "train")
	waiting := pinned(newPod(namespace, "waiting", container("work", 1200)), node)
	create(t, waiting)
	wantWaiting(t, waiting)
	timeline := watchTimeline(t, namespace)

	eventually(t, time.Minute, "the waiting pod runs", func(ctx context.Context) error {
		found, err := getPod(ctx, namespace, waiting.Name)
		if err == nil && !isReady(found) {
			err = fmt.Errorf("it is %s", found.Status.Phase)
		}
		return err
	})
	timeline.print(t)
	found := wantNoRestart(t, namespace, neighbour, before)
	runtime := containerRuntime(t, node)
	finished, _ := timesOf(t, runtime, neighbour.UID, "prepare")
	_, started := timesOf(t, runtime, waiting.UID, "work")
	late := started.Sub(finished)
	t.Logf("%s: the waiting pod's container ran %v after the neighbour's container had finished", class, late.Round(10*time.Millisecond))
	if late > reclaimLimit || late < 0 {
		t.Errorf("the waiting pod ran %v after the neighbour's container had finished, want %v at most", late, reclaimLimit)
	}
	if found.Status.QOSClass != class {
		t.Errorf("the neighbour has become %s", found.Status.QOSClass)
	}
	t.Logf("the neighbour requests %dm; record: %s", cpuRequests(found), found.Annotations[v1alpha1.ReclaimedAnnotation])
	printEvents(t, namespace, neighbour.Name)
}

// timeline is what became of the pods of a namespace, and when that was reported.
type timeline struct {
	mu    sync.Mutex
	lines []string
}

func watchTimeline(t testing.TB, namespace string) *timeline {
	t.Helper()
	line, last := &timeline{}, map[string]string{}
	watchingPods(t, func(_ watch.EventType, pod *corev1.Pod) {
		says := fmt.Sprintf("requests %dm", cpuRequests(pod))
		for _, status := range pod.Status.ContainerStatuses {
			says += fmt.Sprintf(", %s ended: %t, allocated %s", status.Name, status.State.Terminated != nil, status.AllocatedResources.Cpu())
		}
		says += fmt.Sprintf(", node %q, Ready: %t", pod.Spec.NodeName, isReady(pod))
		line.mu.Lock()
		defer line.mu.Unlock()
		if says != last[pod.Name] {
			last[pod.Name] = says
			line.lines = append(line.lines, time.Now().UTC().Format("15:04:05.000 ")+pod.Name+" "+says)
		}
	}, client.InNamespace(namespace))
	return line
}

func (l *timeline) print(t testing.TB) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t.Logf("what happened:\n%s", strings.Join(l.lines, "\n"))
}

// stayingOn keeps a pod on a node, within the reach of reclaim.
func stayingOn(node string, pod *corev1.Pod) *corev1.Pod {
	pod.Spec.NodeSelector = map[string]string{corev1.LabelHostname: node}
	pod.Spec.Tolerations = []corev1.Toleration{{Key: observerTaint, Operator: corev1.TolerationOpExists}}
	return pod
}

func guaranteed(pod *corev1.Pod) {
	for i := range pod.Spec.Containers {
		r := &pod.Spec.Containers[i].Resources
		r.Limits = r.Requests.DeepCopy()
	}
}

func wantWaiting(t testing.TB, pod *corev1.Pod) {
	t.Helper()
	eventually(t, 8*time.Second, "the scheduler finds no room", func(ctx context.Context) error {
		found, err := getPod(ctx, pod.Namespace, pod.Name)
		if err != nil {
			return err
		}
		for _, c := range found.Status.Conditions {
			if c.Type == corev1.PodScheduled && c.Reason == corev1.PodReasonUnschedulable {
				t.Logf("pod %s waits: %s", pod.Name, c.Message)
				return nil
			}
		}
		return fmt.Errorf("it has not said so: node %q", found.Spec.NodeName)
	})
}

func statusOf(t testing.TB, pod *corev1.Pod, name string) *corev1.ContainerStatus {
	t.Helper()
	for i := range pod.Status.ContainerStatuses {
		if status := &pod.Status.ContainerStatuses[i]; status.Name == name {
			return status
		}
	}
	t.Fatalf("pod %s has no status of container %s", pod.Name, name)
	return nil
}

func containerID(t testing.TB, pod *corev1.Pod, name string) string {
	t.Helper()
	var id string
	eventually(t, 20*time.Second, "container "+name+" runs", func(ctx context.Context) error {
		found, err := getPod(ctx, pod.Namespace, pod.Name)
		if err != nil {
			return err
		}
		if id = statusOf(t, found, name).ContainerID; id == "" {
			return fmt.Errorf("it has no ID")
		}
		return nil
	})
	return id
}

func wantNoRestart(t testing.TB, namespace string, neighbour *corev1.Pod, train string) *corev1.Pod {
	t.Helper()
	pods := &corev1.PodList{}
	if err := env.client.List(t.Context(), pods, client.InNamespace(namespace)); err != nil {
		t.Fatal(err)
	}
	var found *corev1.Pod
	for i := range pods.Items {
		pod := &pods.Items[i]
		if n := restarts(pod); n != 0 {
			t.Errorf("%d restarts in pod %s", n, pod.Name)
		}
		if pod.UID == neighbour.UID {
			found = pod
		}
	}
	if found == nil {
		t.Fatal("the neighbour is gone")
	}
	if id := statusOf(t, found, "train").ContainerID; id != train {
		t.Errorf("container train is %s, was %s", id, train)
	}
	return found
}

func printEvents(t testing.TB, namespace, pod string) {
	t.Helper()
	list := &eventsv1.EventList{}
	if err := env.client.List(t.Context(), list, client.InNamespace(namespace)); err != nil {
		t.Fatal(err)
	}
	for _, e := range list.Items {
		if e.Regarding.Name == pod && strings.HasPrefix(e.Reason, "Requests") {
			t.Logf("event on pod %s: %s: %s", pod, e.Reason, e.Note)
		}
	}
}

// The runtime loses its record of a finished container, so the kubelet takes it
// for one that has never run and starts it. It may not report that. The container
// has its requests back while it runs, in the API and in its cgroup. The observer has
// room for it beside other tests.
func TestAContainerThatStartsAgainHasItsRequestsBack(t *testing.T) {
	t.Parallel()
	namespace, node := newNamespace(t), env.observer
	pod := stayingOn(node, newPod(namespace, "training", container("batch", 900, "--for=15s"), container("train", 300)))
	create(t, pod)
	waitRunning(t, pod)
	train := containerID(t, pod, "train")
	eventually(t, time.Minute, "the finished container is shrunk", func(ctx context.Context) error {
		found, err := getPod(ctx, namespace, pod.Name)
		if err == nil && cpuRequests(found) != 301 {
			err = fmt.Errorf("the pod requests %dm", cpuRequests(found))
		}
		return err
	})
	t.Log("the pod requests 301m, since its container batch has finished")

	again := startAgain(t, containerRuntime(t, node), pod, "batch")
	started := time.Now()
	eventually(t, 10*time.Second, "the container has its requests back", func(ctx context.Context) error {
		found, err := getPod(ctx, namespace, pod.Name)
		if err == nil && cpuRequests(found) != 1200 {
			err = fmt.Errorf("the pod requests %dm", cpuRequests(found))
		}
		return err
	})
	t.Logf("the pod requests 1200m again, %v after the container was seen running", time.Since(started).Round(10*time.Millisecond))
	eventually(t, 8*time.Second, "the cgroup of the container follows", func(context.Context) error { return wantShares(again.Id, 900) })
	t.Logf("the cgroup of the running container has the shares of 900m, %v after it was seen running", time.Since(started).Round(10*time.Millisecond))
	found, err := getPod(t.Context(), namespace, pod.Name)
	if err != nil {
		t.Fatal(err)
	}
	if id := statusOf(t, found, "train").ContainerID; id != train || restarts(found) != 0 {
		t.Errorf("container train is %s, was %s", id, train)
	}
	t.Logf("its status of container batch: %+v", statusOf(t, found, "batch").State.Terminated)
	printEvents(t, namespace, pod.Name)
}

// startAgain lets the runtime lose its record of a finished container, and returns
// the one that the kubelet then starts.
func startAgain(t testing.TB, runtime runtimeapi.RuntimeServiceClient, pod *corev1.Pod, name string) (again *runtimeapi.Container) {
	t.Helper()
	lost := findContainer(t, runtime, pod.UID, name)
	if lost == nil {
		t.Fatalf("the runtime does not know container %s", name)
	}
	if _, err := runtime.RemoveContainer(t.Context(), &runtimeapi.RemoveContainerRequest{ContainerId: lost.Id}); err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, "the kubelet starts the container again", func(context.Context) error {
		if again = findContainer(t, runtime, pod.UID, name); again == nil || again.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
			return fmt.Errorf("it does not run: %v", again)
		}
		return nil
	})
	return again
}

// containerRuntime connects to containerd of a node.
func containerRuntime(t testing.TB, node string) runtimeapi.RuntimeServiceClient {
	t.Helper()
	processes, err := env.cluster.Processes()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range processes {
		if p.Alive && p.Name == "containerd-"+node {
			socket := "unix:///proc/" + strconv.Itoa(p.PID) + "/root/run/containerd/containerd.sock"
			connection, err := grpc.NewClient(socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { connection.Close() })
			return runtimeapi.NewRuntimeServiceClient(connection)
		}
	}
	t.Fatalf("no containerd of node %s among %v", node, processes)
	return nil
}

// findContainer returns the latest container of that name.
func findContainer(t testing.TB, runtime runtimeapi.RuntimeServiceClient, pod types.UID, name string) (latest *runtimeapi.Container) {
	t.Helper()
	list, err := runtime.ListContainers(t.Context(), &runtimeapi.ListContainersRequest{Filter: &runtimeapi.ContainerFilter{
		LabelSelector: map[string]string{"io.kubernetes.pod.uid": string(pod), "io.kubernetes.container.name": name},
	}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range list.Containers {
		if latest == nil || c.CreatedAt > latest.CreatedAt {
			latest = c
		}
	}
	return latest
}

// timesOf asks the runtime, whose times are exact, unlike those of the API.
func timesOf(t testing.TB, runtime runtimeapi.RuntimeServiceClient, pod types.UID, name string) (finished, started time.Time) {
	t.Helper()
	c := findContainer(t, runtime, pod, name)
	if c == nil {
		t.Fatalf("the runtime does not know container %s", name)
	}
	answer, err := runtime.ContainerStatus(t.Context(), &runtimeapi.ContainerStatusRequest{ContainerId: c.Id})
	if err != nil {
		t.Fatal(err)
	}
	return time.Unix(0, answer.Status.FinishedAt), time.Unix(0, answer.Status.StartedAt)
}

// wantShares compares the CPU shares of a running container with what the kubelet
// makes of a request; of cgroup v2, whose weights runtimes compute differently,
// only that it has more than the least.
func wantShares(container string, milliCPU int64) error {
	files, _ := filepath.Glob("/proc/[0-9]*/cgroup") // the pattern is well-formed
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil || !strings.Contains(string(content), container) {
			continue
		}
		for _, line := range strings.Split(string(content), "\n") {
			fields := strings.SplitN(line, ":", 3)
			if len(fields) != 3 {
				continue
			}
			least, most, path := milliCPU*1024/1000, milliCPU*1024/1000, filepath.Join("/sys/fs/cgroup/cpu", fields[2], "cpu.shares")
			if fields[0] == "0" {
				least, most, path = 2, 10000, filepath.Join("/sys/fs/cgroup", fields[2], "cpu.weight")
			}
			if fields[0] != "0" && !strings.Contains(","+fields[1]+",", ",cpu,") {
				continue
			}
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			shares, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
			if err == nil && (shares < least || shares > most) {
				err = fmt.Errorf("%s is %d, want %d", path, shares, least)
			}
			return err
		}
	}
	return fmt.Errorf("no process of container %s", container)
}
