package kubectl

import (
	"strings"
	"testing"
	"time"
)

func TestDescribe(t *testing.T) {
	succeeded, failed := through(asked("trainer-1", 0), accept, place, handOver, succeed), through(asked("trainer-2", 0), accept, place, rollBack)
	failed.Spec.PlannedNode, failed.Labels = "node-b", nil
	begun := through(asked("trainer-3", 0), accept)
	begun.Spec.TargetNode, begun.Spec.Cancel = "node-b", true
	b := newBench(t, succeeded, failed, begun, asked("trainer-4", 3*time.Second),
		event(succeeded, "second", "HandedOver", "Pod trainer is gone, replacement trainer-migrated-1 has taken over", 5*time.Second),
		event(succeeded, "first", "Accepted", "Moving pod trainer away from node node-a", 9*time.Second),
		event(failed, "other", "Accepted", "Moving pod trainer away from node node-a", 9*time.Second))
	golden(t, "describe-succeeded", b.run("describe", "pmig/trainer-1"))
	golden(t, "describe-others", b.run("describe", "trainer-2", "trainer-3", "trainer-4"))
	if got := b.run("describe", "nothing"); got.code != ExitError || !strings.Contains(got.err, `"nothing" not found`) {
		t.Error(got)
	}
	if got := b.run("describe"); got.code != ExitUsage {
		t.Error(got)
	}
}
