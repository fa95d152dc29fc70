package simnode

import (
	"strings"
	"testing"
)

// The stages are a file of kwok's and cannot use the constants.
func TestStagesReadTheAnnotations(t *testing.T) {
	for _, prefix := range []string{CPUUsagePrefix, MemoryUsagePrefix, FinishAfterPrefix} {
		if !strings.Contains(string(stages), `"`+prefix) {
			t.Errorf("kwok.yaml does not read annotations %s...", prefix)
		}
	}
	if !strings.Contains(string(RBAC), "name: "+User) {
		t.Errorf("rbac.yaml gives no rights to %s", User)
	}
}

func TestNewNode(t *testing.T) {
	node := newNode("sim-1")
	if got := node.Annotations[metricsPathAnnotation]; !strings.Contains(string(stages), strings.ReplaceAll(got, "sim-1", "{nodeName}")) {
		t.Errorf("kwok.yaml does not serve %s", got)
	}
	if node.Labels[managedLabel] != managedValue {
		t.Errorf("labels %v: kwok would not play the node", node.Labels)
	}
	if node.Status.Allocatable.Cpu().IsZero() || node.Status.Allocatable.Pods().IsZero() {
		t.Errorf("allocatable %v", node.Status.Allocatable)
	}
}
