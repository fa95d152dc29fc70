package kubectl

import (
	"context"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"
)

func someMigrations() []client.Object {
	queued := asked("web-q", 5*time.Second)
	queued.Spec.PodName, queued.Spec.TargetNode, queued.Status.Message = "web-0", "node-b", "waiting for a place in the budget: 5 migrations are in flight"
	elsewhere := through(asked("other", 2*time.Minute), accept)
	elsewhere.Namespace = "team-b"
	return []client.Object{queued, through(asked("trainer-1", time.Hour), accept, place, handOver, succeed), elsewhere,
		through(asked("trainer-2", time.Minute), accept, place, rollBack)}
}

func TestList(t *testing.T) {
	b := newBench(t, someMigrations()...)
	for name, args := range map[string]string{
		"list": "list", "list-all": "list -A", "list-wide": "list -o wide", "list-name": "list -A -o name",
		"list-phase": "list -A --phase pending,preparing", "list-none": "list --phase Placing", "list-yaml": "list --phase Pending -o yaml",
	} {
		golden(t, name, b.run(strings.Fields(args)...))
	}
	if got := b.run("list", "--phase", "Running"); got.code != ExitUsage || !strings.Contains(got.err, "must be one of Pending, Preparing") {
		t.Error(got)
	}
}

func TestListWatches(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	b := newBench(t, through(asked("trainer-1", time.Minute), accept))
	done := b.control("trainer-1", place, handOver, succeed)
	go func() {
		<-done
		time.Sleep(50 * time.Millisecond)
		interrupt()
	}()
	golden(t, "list-watch", b.runContext(ctx, "list", "--watch"))
}
