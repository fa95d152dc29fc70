package simulation

import (
	"context"
	"slices"
	"testing"

	fwk "k8s.io/kube-scheduler/framework"
	schedulerconfig "k8s.io/kubernetes/pkg/scheduler/apis/config"
	"k8s.io/kubernetes/pkg/scheduler/framework"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// TestAMigrationNeverPreempts asks the framework of the shipped configuration:
// what counts is that our plugin comes before DefaultPreemption.
func TestAMigrationNeverPreempts(t *testing.T) {
	simulator := newSimulator(t)
	order := simulator.framework.ListPlugins().PostFilter.Enabled
	preemption := slices.IndexFunc(order, func(p schedulerconfig.Plugin) bool { return p.Name == "DefaultPreemption" })
	if preemption < 1 || order[0].Name != "CheckpointVolume" {
		t.Fatalf("PostFilter plugins are %v, want CheckpointVolume before DefaultPreemption", order)
	}
	replacement := pod("p").Annotation(v1alpha1.SourceNodeAnnotation, "n1").Obj()
	nodes := framework.NewDefaultNodeToStatus()
	result, status := simulator.framework.RunPostFilterPlugins(context.Background(), framework.NewCycleState(), replacement, nodes)
	if result != nil || status.Code() != fwk.UnschedulableAndUnresolvable || status.Plugin() != "CheckpointVolume" {
		t.Errorf("result %v, status %v by %q, want CheckpointVolume to end it", result, status, status.Plugin())
	}
}
