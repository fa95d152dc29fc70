package kubectl

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/pkg/controllers/rebalance"
)

func measured(name, cpu, memory string) *metricsv1beta1.NodeMetrics {
	return &metricsv1beta1.NodeMetrics{ObjectMeta: metav1.ObjectMeta{Name: name}, Timestamp: metav1.NewTime(noon), Usage: fixture.Amounts(cpu, memory)}
}

func withGPUs(n *corev1.Node, count int64) *corev1.Node {
	n.Status.Allocatable["nvidia.com/gpu"] = *resource.NewQuantity(count, resource.DecimalSI)
	return n
}

func TestTop(t *testing.T) {
	cordoned := node("node-c")
	cordoned.Spec.Unschedulable = true
	trainer := trainer().With(func(p *corev1.Pod) {
		p.Spec.Containers[0].Resources.Requests["nvidia.com/gpu"] = resource.MustParse("1")
	}).Obj()
	objects := []client.Object{withGPUs(node("node-a"), 4), node("node-b"), cordoned, trainer,
		fixture.MakePod("web").Node("node-b").Container("web", fixture.Running(), fixture.Requests("250m", "256Mi")).Obj()}
	b := newBench(t, append(objects, measured("node-a", "500m", "12Gi"), measured("node-b", "3", "1Gi"), status(t, func(*rebalance.Status) {}))...)
	for name, args := range map[string]string{
		"top": "top", "top-sorted": "top --sort-by=cpu", "top-one": "top node-b", "top-json": "top node-a -o json",
	} {
		golden(t, name, b.run(strings.Fields(args)...))
	}
	b = newBench(t, objects...)
	b.refuse = func(_ string, object any) error {
		if _, is := object.(*metricsv1beta1.NodeMetricsList); is {
			return apierrors.NewServiceUnavailable("the server is currently unable to handle the request")
		}
		return nil
	}
	golden(t, "top-without-metrics", b.run("top"))
	for args, says := range map[string]string{
		"top --sort-by=gpu": "must be one of name, cpu, cpu-reclaimable", "top -l =": "--selector", "top -o wide": `must be "json" or "yaml"`,
	} {
		if got := b.run(strings.Fields(args)...); got.code != ExitUsage || !strings.Contains(got.err, says) {
			t.Errorf("%s: %s", args, got)
		}
	}
	if got := b.run("top", "node-z"); got.code != ExitError || !strings.Contains(got.err, "there is no node node-z") {
		t.Error(got)
	}
}
