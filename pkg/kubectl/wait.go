package kubectl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// redraw is the time between two drawings of a live line.
const redraw = 200 * time.Millisecond

// wait shows on out how far a migration is, and returns its final state. A limit
// of 0 waits as long as it takes.
func (c *cli) wait(ctx context.Context, s *session, m *v1alpha1.PodMigration, limit time.Duration, out io.Writer) (*v1alpha1.PodMigration, error) {
	waiting, stop := within(ctx, limit)
	defer stop() // also what follows the migration
	show := newProgress(out, c.now, c.width())
	defer show.end()
	tick := time.NewTicker(redraw)
	defer tick.Stop()
	sightings := s.follow(waiting, m)
	for {
		select {
		case <-tick.C:
			show.tick()
		case seen, more := <-sightings:
			switch {
			case !more || waiting.Err() != nil:
				return m, c.notOver(ctx, m, limit)
			case seen.final:
				return m, fmt.Errorf("following PodMigration %s: %w", m.Name, seen.err)
			case seen.err != nil:
				show.complain(seen.err)
			default:
				m = seen.migration
				show.see(m)
				if m.Status.Phase.IsFinished() {
					return m, nil
				}
			}
		}
	}
}

// within bounds a context; a limit of 0 does not.
func within(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	if limit == 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, limit)
}

// notOver is the answer when the waiting ends before the migration.
func (c *cli) notOver(ctx context.Context, m *v1alpha1.PodMigration, limit time.Duration) error {
	continues := fmt.Sprintf("the migration continues; cancel it with: kubectl migrate cancel %s -n %s", m.Name, m.Namespace)
	if tooLate(m) != "" {
		continues = fmt.Sprintf("the migration continues, and is committed; see kubectl migrate describe %s -n %s", m.Name, m.Namespace)
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return exitWith(ExitInterrupted, "interrupted: %s", continues)
	}
	return exitWith(ExitTimedOut, "not finished within %s: %s", limit, continues)
}

// outcome is nil when a finished migration has succeeded.
func outcome(m *v1alpha1.PodMigration) error {
	switch {
	case m.Status.Phase == v1alpha1.PhaseSucceeded:
		return nil
	case wasRefused(m):
		return exitWith(ExitRefused, "pod %s was not moved (%s): %s", m.Spec.PodName, conditionReason(m, v1alpha1.ConditionAccepted), m.Status.Message)
	}
	rolledBack := ""
	if meta.IsStatusConditionTrue(m.Status.Conditions, v1alpha1.ConditionRolledBack) {
		rolledBack = "; it was rolled back"
	}
	return exitWith(ExitFailed, "the migration of pod %s ended %s: %s%s", m.Spec.PodName, strings.ToLower(string(m.Status.Phase)), m.Status.Message, rolledBack)
}

// wasRefused reports whether a migration ended before it began.
func wasRefused(m *v1alpha1.PodMigration) bool {
	return m.Status.Phase == v1alpha1.PhaseFailed && m.Status.Times.Started == nil
}

func conditionReason(m *v1alpha1.PodMigration, kind string) string {
	if c := meta.FindStatusCondition(m.Status.Conditions, kind); c != nil {
		return c.Reason
	}
	return ""
}

// writeOutcome shows the result of a migration that succeeded.
func writeOutcome(w io.Writer, m *v1alpha1.PodMigration) {
	st := &m.Status
	if st.Phase != v1alpha1.PhaseSucceeded {
		return
	}
	if m.Spec.RecoverFrom != "" {
		fmt.Fprintf(w, "\nPod %s/%s runs on node %s with the state that migration %s had kept.\n\n", m.Namespace, m.Spec.PodName, st.Replacement.NodeName, m.Spec.RecoverFrom)
	} else {
		fmt.Fprintf(w, "\nPod %s/%s moved from node %s to node %s.\n\n", m.Namespace, m.Spec.PodName, st.Original.NodeName, st.Replacement.NodeName)
	}
	table := newTable(w)
	fmt.Fprintf(table, "New pod:\t%s\n", st.Replacement.Name)
	fmt.Fprintf(table, "Took:\t%s\n", took(m))
	fmt.Fprintf(table, "Downtime:\t%s\n", downtimeOf(m))
	if checkpoint := carried(m); checkpoint != "" {
		fmt.Fprintf(table, "Carried:\t%s\n", checkpoint)
	}
	if text := restored(m); text != "" {
		fmt.Fprintf(table, "Restored:\t%s\n", text)
	}
	table.Flush()
	fmt.Fprintln(w)
	writeVerdicts(w, "MOVED", st.Containers)
	if st.Before == nil {
		return
	}
	fmt.Fprintln(w)
	writeResources(w, st.Before, st.After)
}

// took is the time from the request to the end.
func took(m *v1alpha1.PodMigration) string {
	t := m.Status.Times
	if t.Finished == nil || t.Started == nil {
		return "-"
	}
	text := elapsed(t.Finished.Sub(t.Started.Time))
	if queued := t.Started.Sub(m.CreationTimestamp.Time); queued >= time.Second {
		text += fmt.Sprintf(", after %s in the queue", elapsed(queued))
	}
	return text
}

func downtimeOf(m *v1alpha1.PodMigration) string {
	switch d := m.Status.Downtime; {
	case d == nil:
		return "-"
	case d.Duration == 0:
		return "none: the replacement was ready before the original was evicted"
	default:
		return d.Duration.Round(time.Millisecond).String()
	}
}

// restored says what the new pod continued with, or why not with its processes; ""
// before anything is known and where nothing was carried.
func restored(m *v1alpha1.PodMigration) string {
	c := m.Status.Checkpoint
	switch {
	case c == nil:
		return ""
	case c.FallbackReason != "":
		return strings.TrimPrefix(string(c.Restored)+", ", ", ") + "containers afresh: " + c.FallbackReason
	}
	return string(c.Restored)
}

// carried says what state was carried; "" when none.
func carried(m *v1alpha1.PodMigration) string {
	c := m.Status.Checkpoint
	if !c.Carries() {
		return ""
	}
	var parts []string
	if len(c.Processes) > 0 {
		parts = append(parts, "processes of "+strings.Join(c.Processes, ", "))
	}
	if len(c.Volumes) == 1 {
		parts = append(parts, "volume "+c.Volumes[0])
	}
	if len(c.Volumes) > 1 {
		parts = append(parts, "volumes "+strings.Join(c.Volumes, ", "))
	}
	text := strings.Join(parts, ", ")
	if c.Source != nil {
		text += fmt.Sprintf(" (%s in %s)", bytesOf(c.Source.Bytes), plural(int(c.Source.Files), "file"))
	}
	return fmt.Sprintf("%s, mode %s, through claim %s", text, c.Mode, m.Status.CheckpointClaim)
}
