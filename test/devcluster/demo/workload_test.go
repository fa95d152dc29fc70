package demo

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/ai-storage/orchestrator/test/devcluster"
	"github.com/ai-storage/orchestrator/test/devcluster/simnode"
)

var (
	simulated20 = devcluster.NodeSpec{Kind: devcluster.Simulated, Count: 20}
	real2       = devcluster.NodeSpec{Kind: devcluster.Real, Count: 2}

	bigNode   = amount{milliCPU: 8000, memory: 32 << 30}
	smallNode = amount{milliCPU: 2000, memory: 4 << 30}
)

// The skew must be there, and there must be a way out of it.
func TestCrowdIsSkewedAndCanBeBalanced(t *testing.T) {
	for _, test := range []struct {
		name      string
		nodes     devcluster.NodeSpec
		pods      int
		node      amount
		threshold float64
	}{
		{"demo", simulated20, 200, bigNode, 0.7},
		{"default number", simulated20, defaultPods(simulated20), bigNode, 0.7},
		{"two simulated nodes", devcluster.NodeSpec{Kind: devcluster.Simulated, Count: 2}, 20, bigNode, 0.7},
		{"real nodes", real2, defaultPods(real2), smallNode, 0.4},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, err := newCrowd(test.nodes, test.pods, test.node, test.threshold)
			if err != nil {
				t.Fatal(err)
			}
			perOverutilizedNode := float64(c.overutilizedPods / c.overutilizedNodes)
			if load := perOverutilizedNode * c.use.milliCPU / test.node.milliCPU; load < test.threshold || load > 1 {
				t.Errorf("an overutilized node has load %.2f, want above %.2f", load, test.threshold)
			}
			all := float64(c.pods) * c.use.milliCPU / (test.node.milliCPU * float64(test.nodes.Count))
			if all > 0.9*test.threshold {
				t.Errorf("all nodes have load %.2f: no room below %.2f", all, test.threshold)
			}
			if asked := perOverutilizedNode * c.ask.milliCPU; asked > test.node.milliCPU {
				t.Errorf("the pods of an overutilized node ask for %.0fm of %.0fm", asked, test.node.milliCPU)
			}
		})
	}
}

func TestCrowdRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		nodes devcluster.NodeSpec
		pods  int
	}{
		"one node":      {devcluster.NodeSpec{Kind: devcluster.Simulated, Count: 1}, 10},
		"too few pods":  {simulated20, 20},
		"too many pods": {real2, 200},
	} {
		if _, err := newCrowd(test.nodes, test.pods, bigNode, 0.7); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestPodsOfACrowd(t *testing.T) {
	c, err := newCrowd(simulated20, 200, bigNode, 0.7)
	if err != nil {
		t.Fatal(err)
	}
	pods := c.newPods()
	if diff := cmp.Diff(pods, c.newPods()); diff != "" {
		t.Errorf("two runs differ:\n%s", diff)
	}
	total := 0.0
	for _, pod := range pods {
		if pod.Spec.NodeName != "" || len(pod.Spec.NodeSelector) > 0 || pod.Spec.Affinity != nil {
			t.Fatalf("pod %s is pinned to a node", pod.Name)
		}
		if pod.Spec.RestartPolicy != corev1.RestartPolicyNever || pod.Spec.SchedulerName != "ai-storage-scheduler" {
			t.Fatalf("pod %s: %+v", pod.Name, pod.Spec)
		}
		for _, name := range []string{"trainer", "logger"} {
			use := resource.MustParse(pod.Annotations[simnode.CPUUsagePrefix+name])
			total += float64(use.MilliValue())
		}
		if _, found := pod.Annotations[simnode.FinishAfterPrefix+loaderName]; !found || len(pod.Spec.Containers) != 3 {
			t.Fatalf("pod %s has no loader that finishes: %v", pod.Name, pod.Annotations)
		}
	}
	if want := 200 * c.use.milliCPU; total < 0.95*want || total > 1.05*want {
		t.Errorf("the pods use %.0fm, want about %.0fm", total, want)
	}
}

func TestContainersOfRealPods(t *testing.T) {
	c, err := newCrowd(real2, 6, smallNode, 0.4)
	if err != nil {
		t.Fatal(err)
	}
	pod := c.newPods()[0]
	args := pod.Spec.Containers[0].Args
	if len(args) != 4 || args[0] != "run" || args[3] != "--for=15s" {
		t.Errorf("loader runs %v", args)
	}
	if args := pod.Spec.Containers[1].Args; len(args) != 3 {
		t.Errorf("trainer runs %v", args)
	}
	if len(pod.Annotations) > 0 {
		t.Errorf("annotations for simulated nodes: %v", pod.Annotations)
	}
}
