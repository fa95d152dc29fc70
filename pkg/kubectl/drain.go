package kubectl

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

type drainOptions struct {
	requestFlags
	cordonFirst bool
}

func (c *cli) drainCommand() *cobra.Command {
	o := &drainOptions{}
	cmd := &cobra.Command{
		Use: "drain NODE", Short: "Migrate the pods that kubectl drain would evict, then cordon the node",
		Long: `Migrate the pods of a node that kubectl drain would evict, and cordon the node when they are gone.

One migration is created for each pod, at most one of a workload at a time, and they queue for the
rebalancer's budgets. Pods of DaemonSets, static pods and pods that have finished are skipped.

The node is cordoned at the end, not first: until all its pods have found another place it stays
in service, so a drain for which there is no capacity changes nothing. Pods that arrive meanwhile are
moved, too. On a busy node that can take long: with --cordon-first nothing new arrives, as with
kubectl drain, and the node stays cordoned whatever happens.

Pods that cannot be moved are listed with their reasons and stay; the node is cordoned all the same,
and the exit code is 3. When a migration fails the exit code is 4, and a node that was not cordoned
first stays in service.`,
		Example: `  # What would happen?
  kubectl migrate drain node-a --dry-run

  # Free the node for maintenance, then let kubectl drain finish what cannot move
  kubectl migrate drain node-a --cordon-first && kubectl drain node-a --ignore-daemonsets`,
		Args: exactly(1, "the name of one node"),
		RunE: func(cmd *cobra.Command, args []string) error { return c.drain(cmd.Context(), o, args[0]) },
	}
	c.addRequestFlags(cmd, &o.requestFlags, "its node is drained with kubectl migrate")
	cmd.Flags().BoolVar(&o.cordonFirst, "cordon-first", false, "Cordon the node before anything moves, and leave it cordoned whatever happens")
	cmd.ValidArgsFunction = c.completeOne(completeNodes)
	return cmd
}

func (c *cli) drain(ctx context.Context, o *drainOptions, name string) error {
	if err := o.validate(); err != nil {
		return err
	}
	s, err := c.connect()
	if err != nil {
		return err
	}
	node := &corev1.Node{}
	if err := s.client.Get(ctx, client.ObjectKey{Name: name}, node); err != nil {
		return err
	}
	d := &drain{
		cli: c, session: s, options: o, node: node, cordoned: node.Spec.Unschedulable,
		shown: map[types.UID]bool{}, tried: map[types.UID]*attempt{}, began: c.now(),
	}
	if o.waitTimeout > 0 {
		d.deadline = d.began.Add(o.waitTimeout)
	}
	if o.dryRun.on() {
		return d.rehearse(ctx)
	}
	return d.run(ctx)
}

// drain empties one node.
type drain struct {
	*cli
	*session
	options *drainOptions
	node    *corev1.Node
	// cordoned reports whether no pod can arrive any more.
	cordoned bool
	// shown are the pods whose judgement was written.
	shown map[types.UID]bool
	// tried are the pods that a migration was requested for, by UID.
	tried    map[types.UID]*attempt
	began    time.Time
	deadline time.Time
}

// run moves pods in passes until none is left that can move.
func (d *drain) run(ctx context.Context) error {
	if d.options.cordonFirst {
		if err := d.cordon(ctx); err != nil {
			return err
		}
	}
	for {
		found, err := d.look(ctx)
		if err != nil {
			return err
		}
		d.show(found)
		switch {
		case len(found.moving) > 0:
			if err := d.moveAll(ctx, found.moving); err != nil {
				return err
			}
		case !d.cordoned && len(found.failed) == 0:
			// Pods that have arrived since are found by the next look.
			if err := d.cordon(ctx); err != nil {
				return err
			}
		default:
			return d.report(found)
		}
	}
}

// rehearse shows what would happen, and lets the cluster check what would be written.
func (d *drain) rehearse(ctx context.Context) error {
	found, err := d.look(ctx)
	if err != nil {
		return err
	}
	d.show(found)
	for _, p := range found.moving {
		if p.underWay != nil {
			continue
		}
		request := d.request(p)
		if err := d.client.Create(ctx, request, client.DryRunAll); err != nil {
			return fmt.Errorf("requesting the migration of pod %s: %w", p.key, hint(err))
		}
		fmt.Fprintf(d.Out, "podmigration for pod %s created%s\n", p.key, d.options.dryRun.suffix())
	}
	if err := d.cordon(ctx); err != nil {
		return err
	}
	return d.report(found)
}

func (d *drain) cordon(ctx context.Context) error {
	if d.cordoned {
		fmt.Fprintf(d.Out, "node/%s is cordoned already\n", d.node.Name)
		return nil
	}
	patch := client.RawPatch(types.MergePatchType, []byte(`{"spec":{"unschedulable":true}}`))
	if err := d.client.Patch(ctx, d.node, patch, d.options.dryRun.patch()...); err != nil {
		return fmt.Errorf("cordoning node %s: %w", d.node.Name, err)
	}
	d.cordoned = true
	fmt.Fprintf(d.Out, "node/%s cordoned%s\n", d.node.Name, d.options.dryRun.suffix())
	return nil
}

// report ends a drain: what has moved, what is left, and the exit code for it.
func (d *drain) report(found *pods) error {
	moved := 0
	for _, a := range d.tried {
		if a.succeeded {
			moved++
		}
	}
	if !d.options.dryRun.on() {
		fmt.Fprintf(d.Out, "%s moved off node %s in %s, %d left that cannot move, %d skipped.\n",
			plural(moved, "pod"), d.node.Name, elapsed(d.now().Sub(d.began)), len(found.staying), len(found.skipped))
	}
	switch {
	case len(found.failed) > 0:
		state := "it stays in service"
		if d.cordoned {
			state = "it is cordoned"
		}
		return exitWith(ExitFailed, "%s of node %s could not be moved, see above; %s", plural(len(found.failed), "pod"), d.node.Name, state)
	case len(found.staying) > 0:
		return exitWith(ExitRefused, "%s of node %s cannot be moved, see above", plural(len(found.staying), "pod"), d.node.Name)
	}
	return nil
}
