package kubectl

import (
	"context"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/scheduling/budget"
)

// attempt is the migration of one pod of the node.
type attempt struct {
	pod       *drainPod
	migration *v1alpha1.PodMigration
	phase     v1alpha1.Phase
	over      bool
	succeeded bool
	// reason why it did not succeed.
	reason string
}

// moveAll creates the migrations and follows them until all are over. Of one
// workload there is one at a time: the next would wait for it all the same, and
// its time would run.
func (d *drain) moveAll(ctx context.Context, moving []*drainPod) error {
	waiting := moving
	var flight []*attempt
	for len(waiting)+len(flight) > 0 {
		var later []*drainPod
		busy := busyWorkloads(flight)
		for _, p := range waiting {
			if busy[p.workload] {
				later = append(later, p)
				continue
			}
			a, err := d.begin(ctx, p)
			if err != nil {
				return err
			}
			busy[p.workload] = true
			flight = append(flight, a)
		}
		waiting = later
		if !sleep(ctx, d.poll) {
			return exitWith(ExitInterrupted, "interrupted: %s", remaining(flight))
		}
		if !d.deadline.IsZero() && d.now().After(d.deadline) {
			return exitWith(ExitTimedOut, "not finished within %s: %s", d.options.waitTimeout, remaining(flight))
		}
		var err error
		if flight, err = d.check(ctx, flight); err != nil {
			return err
		}
	}
	return nil
}

// busyWorkloads have a pod that is about to be evicted. Once the original is gone, its
// migration blocks no other.
func busyWorkloads(flight []*attempt) map[string]bool {
	busy := map[string]bool{}
	for _, a := range flight {
		if budget.IsDisruptive(a.migration) {
			busy[a.pod.workload] = true
		}
	}
	return busy
}

// begin creates the migration of a pod, unless there is one.
func (d *drain) begin(ctx context.Context, p *drainPod) (*attempt, error) {
	a := &attempt{pod: p, migration: p.underWay}
	if a.migration == nil {
		a.migration = d.request(p)
		if err := d.client.Create(ctx, a.migration); err != nil {
			return nil, fmt.Errorf("requesting the migration of pod %s: %w", p.key, hint(err))
		}
	}
	d.tried[p.uid] = a
	return a, nil
}

// check looks at all migrations in flight and returns those that still are.
func (d *drain) check(ctx context.Context, flight []*attempt) ([]*attempt, error) {
	byUID, err := d.migrations(ctx, flight)
	if err != nil {
		if isLasting(err) {
			return nil, fmt.Errorf("following the migrations: %w", err)
		}
		if ctx.Err() == nil {
			fmt.Fprintf(d.ErrOut, "Retrying: %v\n", err)
		}
		return flight, nil
	}
	var left []*attempt
	for _, a := range flight {
		current := byUID[a.migration.UID]
		if current == nil {
			a.over, a.reason = true, "its PodMigration was deleted"
		} else {
			a.migration = current
			d.advance(a)
		}
		if !a.over {
			left = append(left, a)
		}
	}
	return left, nil
}

// advance shows a new phase, and notices the end.
func (d *drain) advance(a *attempt) {
	phase := a.migration.CurrentPhase()
	if phase != a.phase {
		a.phase = phase
		fmt.Fprintf(d.Out, "%7s  %s  %s: %s\n", elapsed(d.now().Sub(d.began)), a.pod.key, phase, a.migration.Status.Message)
	}
	if phase.IsFinished() {
		a.over, a.succeeded, a.reason = true, phase == v1alpha1.PhaseSucceeded, a.migration.Status.Message
	}
}

// migrations reads those in flight, with one request for each namespace.
func (d *drain) migrations(ctx context.Context, flight []*attempt) (map[types.UID]*v1alpha1.PodMigration, error) {
	byUID := map[types.UID]*v1alpha1.PodMigration{}
	read := map[string]bool{}
	for _, a := range flight {
		namespace := a.migration.Namespace
		if read[namespace] {
			continue
		}
		read[namespace] = true
		list := &v1alpha1.PodMigrationList{}
		if err := d.client.List(ctx, list, client.InNamespace(namespace)); err != nil {
			return nil, err
		}
		for i := range list.Items {
			byUID[list.Items[i].UID] = &list.Items[i]
		}
	}
	return byUID, nil
}

// remaining says what still moves when nobody waits any more.
func remaining(flight []*attempt) string {
	if len(flight) == 0 {
		return "no migration is under way; the node was not cordoned by this command"
	}
	names := map[string][]string{}
	for _, a := range flight {
		names[a.migration.Namespace] = append(names[a.migration.Namespace], a.migration.Name)
	}
	var commands []string
	for _, namespace := range keys(names) {
		commands = append(commands, fmt.Sprintf("kubectl migrate cancel -n %s %s", namespace, strings.Join(names[namespace], " ")))
	}
	verb := "continue"
	if len(flight) == 1 {
		verb = "continues"
	}
	return fmt.Sprintf("%s %s; cancel with:\n  %s", plural(len(flight), "migration"), verb, strings.Join(commands, "\n  "))
}
