package kubectl

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

func (c *cli) describeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "describe NAME...", Short: "Show details of migrations: phases, containers, resources, conditions, events",
		Args: atLeastOne("the name of a migration: kubectl migrate list shows them"),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := c.connect()
			if err != nil {
				return err
			}
			for i, name := range args {
				if i > 0 {
					fmt.Fprint(c.Out, "\n\n")
				}
				if err := c.describe(cmd.Context(), s, name); err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.ValidArgsFunction = c.completeMany(completeMigrations)
	return cmd
}

func (c *cli) describe(ctx context.Context, s *session, name string) error {
	m, err := s.migration(ctx, name)
	if err != nil {
		return err
	}
	c.describeHead(m)
	c.section("Phases", func(w io.Writer) { c.writePhases(w, m) })
	if len(m.Status.Containers) > 0 {
		c.section("Containers", func(w io.Writer) { writeVerdicts(w, "MOVES", m.Status.Containers) })
	}
	if m.Status.Before != nil {
		c.section("Resources", func(w io.Writer) { writeResources(w, m.Status.Before, m.Status.After) })
	}
	if len(m.Status.Conditions) > 0 {
		c.section("Conditions", func(w io.Writer) { c.writeConditions(w, m) })
	}
	c.describeEvents(ctx, s, m)
	return nil
}

// section writes a title, and below it what a table writes, indented.
func (c *cli) section(title string, write func(io.Writer)) {
	var text bytes.Buffer
	write(&text)
	fmt.Fprintf(c.Out, "\n%s:\n", title)
	for line := range strings.Lines(text.String()) {
		fmt.Fprint(c.Out, "  ", line)
	}
}

func (c *cli) describeHead(m *v1alpha1.PodMigration) {
	st := &m.Status
	table := newTable(c.Out)
	line := func(name, format string, args ...any) { fmt.Fprintf(table, name+":\t"+format+"\n", args...) }
	line("Name", "%s", m.Name)
	line("Namespace", "%s", m.Namespace)
	created := fmt.Sprintf("%s (%s ago)", m.CreationTimestamp.UTC().Format(time.RFC3339), c.age(m.CreationTimestamp.Time))
	if by := createdBy(m); by != "" {
		created += " by " + by
	}
	line("Created", "%s", created)
	if m.Spec.Reason != "" {
		line("Reason", "%s", m.Spec.Reason)
	}
	line("Pod", "%s", m.Spec.PodName)
	if m.Spec.RecoverFrom != "" {
		line("Recovers", "what migration %s has kept", m.Spec.RecoverFrom)
	}
	line("From", "%s", orNone(sourceNode(m)))
	line("To", "%s", describeTarget(m))
	if r := st.Replacement; r != nil && r.UID != "" {
		line("New pod", "%s", r.Name)
	}
	line("Phase", "%s", m.CurrentPhase())
	if st.Message != "" {
		line("Message", "%s", st.Message)
	}
	if m.Spec.Cancel && !st.Phase.IsFinished() {
		line("Cancel", "requested")
	}
	if h := st.Handover; h != nil {
		line("Handover", "%s, by method %s: %s", h.Order, h.Method, h.Reason)
	}
	describeMode(line, m)
	describeCheckpoint(line, m)
	if st.Downtime != nil {
		line("Downtime", "%s", downtimeOf(m))
	}
	line("Timeout", "%s from its start", time.Duration(m.Spec.TimeoutSeconds)*time.Second)
	table.Flush()
}

func describeTarget(m *v1alpha1.PodMigration) string {
	node := orNone(destinationNode(m))
	switch {
	case m.Spec.TargetNode != "":
		return node + " (requested)"
	case m.Spec.PlannedNode != "":
		return fmt.Sprintf("%s (planned: %s)", node, m.Spec.PlannedNode)
	case node == orNone(""):
		return "left to the scheduler"
	}
	return node + " (chosen by the scheduler)"
}

// describeMode says how state was to be carried, and what came of it.
func describeMode(line func(name, format string, args ...any), m *v1alpha1.PodMigration) {
	asked := m.Spec.Checkpoint
	if asked.Mode == v1alpha1.CheckpointProcess {
		line("Mode", "%s, fallback %s", asked.Mode, cmp.Or(asked.Fallback, v1alpha1.FallbackNone))
	} else {
		line("Mode", "%s", cmp.Or(asked.Mode, v1alpha1.CheckpointFrozen))
	}
	if text := restored(m); text != "" {
		line("Restored", "%s", text)
	}
}

func describeCheckpoint(line func(name, format string, args ...any), m *v1alpha1.PodMigration) {
	if m.Status.CheckpointClaim == "" {
		return
	}
	what := cmp.Or(carried(m), "nothing: the pod has no state on scratch volumes")
	line("Carried", "%s", what)
	if m.KeepsOnlyCopy() {
		line("Claim", "%s has the only copy: kubectl migrate recover %s starts the pod again with it", m.Status.CheckpointClaim, m.Name)
		return
	}
	line("Claim", "%s (%s)", m.Status.CheckpointClaim, cmp.Or(m.Spec.Checkpoint.ReclaimPolicy, v1alpha1.ClaimDelete))
}

func (c *cli) writePhases(w io.Writer, m *v1alpha1.PodMigration) {
	table := newTable(w)
	fmt.Fprintln(table, "PHASE\tBEGAN\tTOOK")
	for _, s := range m.PhaseSpans() {
		length := "-"
		switch {
		case !s.End.IsZero():
			length = elapsed(s.End.Sub(s.Start))
		case !s.Phase.IsFinished():
			length = elapsed(c.now().Sub(s.Start)) + " so far"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\n", s.Phase, s.Start.UTC().Format(time.RFC3339), length)
	}
	table.Flush()
}

func (c *cli) writeConditions(w io.Writer, m *v1alpha1.PodMigration) {
	table := newTable(w)
	fmt.Fprintln(table, "TYPE\tSTATUS\tREASON\tAGE\tMESSAGE")
	for _, condition := range m.Status.Conditions {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", condition.Type, condition.Status, condition.Reason, c.age(condition.LastTransitionTime.Time), condition.Message)
	}
	table.Flush()
}

// describeEvents shows the events of the migration itself. They live for an hour
// by default, so none is nothing unusual.
func (c *cli) describeEvents(ctx context.Context, s *session, m *v1alpha1.PodMigration) {
	list := &corev1.EventList{}
	err := s.client.List(ctx, list, client.InNamespace(m.Namespace), client.MatchingFields{"involvedObject.uid": string(m.UID)})
	switch {
	case err != nil:
		fmt.Fprintf(c.Out, "\nEvents: could not be read: %v\n", err)
	case len(list.Items) == 0:
		fmt.Fprintln(c.Out, "\nEvents: <none>")
	default:
		slices.SortStableFunc(list.Items, func(a, b corev1.Event) int { return eventTime(&a).Compare(eventTime(&b)) })
		c.section("Events", func(w io.Writer) { c.writeEvents(w, list.Items) })
	}
}

func (c *cli) writeEvents(w io.Writer, events []corev1.Event) {
	table := newTable(w)
	fmt.Fprintln(table, "TYPE\tREASON\tAGE\tMESSAGE")
	for i := range events {
		e := &events[i]
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", e.Type, e.Reason, c.age(eventTime(e)), e.Message)
	}
	table.Flush()
}

func eventTime(e *corev1.Event) time.Time {
	switch {
	case e.Series != nil:
		return e.Series.LastObservedTime.Time
	case !e.EventTime.IsZero():
		return e.EventTime.Time
	}
	return e.LastTimestamp.Time
}
