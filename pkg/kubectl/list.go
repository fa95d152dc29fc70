package kubectl

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/liggitt/tabwriter"
	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

type listOptions struct {
	all    bool
	watch  bool
	kept   bool
	phases []string
	print  *genericclioptions.PrintFlags
	// table knows the widths of the rows before.
	table *tabwriter.Writer
}

func (c *cli) listCommand() *cobra.Command {
	o := &listOptions{print: genericclioptions.NewPrintFlags("").WithTypeSetter(scheme)}
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls", "get"}, Short: "List migrations, oldest first",
		Example: `  # What is under way, in all namespaces?
  kubectl migrate list -A --phase Pending,Preparing,Placing,HandingOver

  # Which claims have the only copy of a pod's state?
  kubectl migrate list -A --kept -o wide

  # Keep showing changes
  kubectl migrate list --watch -o wide`,
		Args: none,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.list(cmd.Context(), o) },
	}
	cmd.Flags().BoolVarP(&o.all, "all-namespaces", "A", false, "List the migrations of all namespaces")
	cmd.Flags().BoolVarP(&o.watch, "watch", "w", false, "After listing, show every change until interrupted")
	cmd.Flags().StringSliceVar(&o.phases, "phase", nil, "Only migrations in these phases: "+listed(v1alpha1.Phases))
	o.print.AddFlags(cmd)
	cmd.Flags().Lookup("output").Usage = "Output format: wide, or " + strings.TrimPrefix(cmd.Flags().Lookup("output").Usage, "Output format. ")
	cmd.Flags().BoolVar(&o.kept, "kept", false, "Only migrations whose claim has the only copy of a pod's state: kubectl migrate recover starts the pod again")
	c.completeWords(cmd, "phase", texts(v1alpha1.Phases))
	return cmd
}

// wanted are the phases by their proper names; none means all.
func (o *listOptions) wanted() (map[v1alpha1.Phase]bool, error) {
	wanted := map[v1alpha1.Phase]bool{}
	for _, given := range o.phases {
		phase, err := oneOf("--phase", given, v1alpha1.Phases)
		if err != nil {
			return nil, err
		}
		wanted[phase] = true
	}
	return wanted, nil
}

func (o *listOptions) isTable() bool {
	return *o.print.OutputFormat == "" || *o.print.OutputFormat == "wide"
}

func (c *cli) list(ctx context.Context, o *listOptions) error {
	wanted, err := o.wanted()
	if err != nil {
		return err
	}
	if _, err := o.print.ToPrinter(); err != nil && !o.isTable() {
		return usage("%w", err)
	}
	s, err := c.connect()
	if err != nil {
		return err
	}
	var options []client.ListOption
	if !o.all {
		options = append(options, client.InNamespace(s.namespace))
	}
	found := &v1alpha1.PodMigrationList{}
	if err := s.client.List(ctx, found, options...); err != nil {
		return err
	}
	found.Items = slices.DeleteFunc(found.Items, func(m v1alpha1.PodMigration) bool { return !o.isWanted(wanted, &m) })
	slices.SortStableFunc(found.Items, func(a, b v1alpha1.PodMigration) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	o.table = newTable(c.Out)
	if err := c.writeList(o, s, found); err != nil || !o.watch {
		return err
	}
	return c.watchList(ctx, o, s, wanted, found.ResourceVersion, options)
}

func (o *listOptions) isWanted(wanted map[v1alpha1.Phase]bool, m *v1alpha1.PodMigration) bool {
	return (len(wanted) == 0 || wanted[m.CurrentPhase()]) && (!o.kept || m.KeepsOnlyCopy())
}

func (c *cli) writeList(o *listOptions, s *session, found *v1alpha1.PodMigrationList) error {
	switch {
	case !o.isTable():
		return c.printList(o, found)
	case len(found.Items) == 0 && o.all:
		fmt.Fprintln(c.ErrOut, "No migrations found.")
	case len(found.Items) == 0:
		fmt.Fprintf(c.ErrOut, "No migrations found in namespace %s.\n", s.namespace)
	default:
		o.writeHeader(o.table)
		for i := range found.Items {
			c.writeRow(o.table, o, &found.Items[i])
		}
		return o.table.Flush()
	}
	return nil
}

// printList is machine-readable. Names come one by one, as kubectl prints them.
func (c *cli) printList(o *listOptions, found *v1alpha1.PodMigrationList) error {
	found.SetGroupVersionKind(v1alpha1.SchemeGroupVersion.WithKind("PodMigrationList"))
	for i := range found.Items {
		m := &found.Items[i]
		m.SetGroupVersionKind(v1alpha1.SchemeGroupVersion.WithKind("PodMigration"))
		if *o.print.OutputFormat == "name" {
			if err := print(c.Out, o.print, m); err != nil {
				return err
			}
		}
	}
	if *o.print.OutputFormat == "name" {
		return nil
	}
	return print(c.Out, o.print, found)
}

func (o *listOptions) writeHeader(w io.Writer) {
	if o.all {
		fmt.Fprint(w, "NAMESPACE\t")
	}
	fmt.Fprint(w, "NAME\tPOD\tFROM\tTO\tPHASE\tAGE")
	if *o.print.OutputFormat == "wide" {
		fmt.Fprint(w, "\tNEW POD\tORDER\tDOWNTIME\tBY\tMESSAGE")
	}
	fmt.Fprintln(w)
}

func (c *cli) writeRow(w io.Writer, o *listOptions, m *v1alpha1.PodMigration) {
	if o.all {
		fmt.Fprintf(w, "%s\t", m.Namespace)
	}
	fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s", m.Name, m.Spec.PodName, orNone(sourceNode(m)), orNone(destinationNode(m)),
		m.CurrentPhase(), c.age(m.CreationTimestamp.Time))
	if *o.print.OutputFormat == "wide" {
		order, downtime, replacement := "", "", ""
		if h := m.Status.Handover; h != nil {
			order = string(h.Order)
		}
		if d := m.Status.Downtime; d != nil {
			downtime = elapsed(d.Duration)
		}
		if r := m.Status.Replacement; r != nil && r.UID != "" {
			replacement = r.Name
		}
		fmt.Fprintf(w, "\t%s\t%s\t%s\t%s\t%s", orNone(replacement), orNone(order), orNone(downtime), orNone(createdBy(m)), m.Status.Message)
	}
	fmt.Fprintln(w)
}

// watchList shows changes until ctx ends, which is how a user ends it.
func (c *cli) watchList(ctx context.Context, o *listOptions, s *session, wanted map[v1alpha1.Phase]bool, version string, options []client.ListOption) error {
	for {
		events, stop, err := s.watch(ctx, version, options...)
		if err != nil {
			return fmt.Errorf("watching migrations: %w", err)
		}
		for event := range events {
			m, is := event.Object.(*v1alpha1.PodMigration)
			if !is || event.Type == watch.Deleted || !o.isWanted(wanted, m) {
				continue
			}
			if err := c.writeChange(o, m); err != nil {
				stop()
				return err
			}
		}
		stop()
		if !sleep(ctx, c.poll) {
			return nil
		}
		// The watch cannot be resumed: begin at what is there now.
		now := &v1alpha1.PodMigrationList{}
		if err := s.client.List(ctx, now, append(options, client.Limit(1))...); err == nil {
			version = now.ResourceVersion
		}
	}
}

func (c *cli) writeChange(o *listOptions, m *v1alpha1.PodMigration) error {
	if !o.isTable() {
		m.SetGroupVersionKind(v1alpha1.SchemeGroupVersion.WithKind("PodMigration"))
		return print(c.Out, o.print, m)
	}
	c.writeRow(o.table, o, m)
	return o.table.Flush()
}

// sourceNode is where the pod was found, or is said to be.
func sourceNode(m *v1alpha1.PodMigration) string {
	if o := m.Status.Original; o != nil && o.NodeName != "" {
		return o.NodeName
	}
	return m.Spec.SourceNode
}

// destinationNode is where the replacement is, where its place is held, or the
// node that was requested.
func destinationNode(m *v1alpha1.PodMigration) string {
	for _, p := range []*v1alpha1.PodReference{m.Status.Replacement, m.Status.Placeholder} {
		if p != nil && p.NodeName != "" {
			return p.NodeName
		}
	}
	return m.Spec.TargetNode
}

// createdBy names the rebalancer, kubectl, or the user who requested it; it is empty for
// a PodMigration that was applied as it is.
func createdBy(m *v1alpha1.PodMigration) string {
	return cmp.Or(m.Annotations[v1alpha1.RequestedByAnnotation], m.Labels[v1alpha1.CreatedByLabel])
}
