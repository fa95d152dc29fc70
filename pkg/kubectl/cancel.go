package kubectl

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

type cancelOptions struct {
	wait        bool
	waitTimeout time.Duration
	dryRun      dryRun
}

func (c *cli) cancelCommand() *cobra.Command {
	o := &cancelOptions{}
	cmd := &cobra.Command{
		Use: "cancel NAME...", Short: "Cancel migrations and roll them back",
		Long: `Cancel migrations. Until a migration is committed it is rolled back: the original continues,
and what the migration created is removed. Once it is committed it can only be completed, and the
command refuses with the reason (exit code 3).`,
		Args: atLeastOne("the name of a migration: kubectl migrate list shows them"),
		RunE: func(cmd *cobra.Command, args []string) error { return c.cancel(cmd.Context(), o, args) },
	}
	cmd.Flags().BoolVar(&o.wait, "wait", false, "Wait until everything is rolled back")
	cmd.Flags().DurationVar(&o.waitTimeout, "wait-timeout", 0, "How long to wait (0 waits as long as it takes)")
	o.dryRun.add(cmd)
	cmd.ValidArgsFunction = c.completeMany(completeUnfinished)
	return cmd
}

func (c *cli) cancel(ctx context.Context, o *cancelOptions, names []string) error {
	if err := o.dryRun.validate(); err != nil {
		return err
	}
	if o.waitTimeout < 0 {
		return usage("--wait-timeout %s: must not be negative", o.waitTimeout)
	}
	s, err := c.connect()
	if err != nil {
		return err
	}
	// All are cancelled before any is waited for.
	var failures []error
	var cancelled []*v1alpha1.PodMigration
	for _, name := range names {
		m, err := c.cancelOne(ctx, s, o, name)
		if err != nil {
			failures = append(failures, err)
		} else {
			cancelled = append(cancelled, m)
		}
	}
	for _, m := range cancelled {
		if o.wait && !o.dryRun.on() {
			failures = append(failures, c.waitForCancel(ctx, s, o, m))
		}
	}
	return errors.Join(failures...)
}

func (c *cli) cancelOne(ctx context.Context, s *session, o *cancelOptions, name string) (*v1alpha1.PodMigration, error) {
	m, err := s.migration(ctx, name)
	if err != nil {
		return nil, err
	}
	if reason := tooLate(m); reason != "" {
		return nil, exitWith(ExitRefused, "migration %s cannot be cancelled: %s", m.Name, reason)
	}
	patch := client.RawPatch(types.MergePatchType, []byte(`{"spec":{"cancel":true}}`))
	if err := s.client.Patch(ctx, m, patch, o.dryRun.patch()...); err != nil {
		return nil, fmt.Errorf("cancelling migration %s: %w", m.Name, err)
	}
	fmt.Fprintf(c.Out, "podmigration.%s/%s cancelled%s\n", v1alpha1.GroupName, m.Name, o.dryRun.suffix())
	return m, nil
}

func (c *cli) waitForCancel(ctx context.Context, s *session, o *cancelOptions, m *v1alpha1.PodMigration) error {
	final, err := c.wait(ctx, s, m, o.waitTimeout, c.Out)
	switch {
	case err != nil:
		return err
	case final.Status.Phase == v1alpha1.PhaseCancelled:
		return nil
	case final.Status.Phase == v1alpha1.PhaseSucceeded:
		return exitWith(ExitRefused, "migration %s was committed already: %s", m.Name, final.Status.Message)
	}
	return outcome(final)
}

// tooLate says why a migration cannot be cancelled any more; "" while it can.
func tooLate(m *v1alpha1.PodMigration) string {
	if m.Status.Phase.IsFinished() {
		return fmt.Sprintf("it has ended: %s", m.Status.Phase)
	}
	if c := meta.FindStatusCondition(m.Status.Conditions, v1alpha1.ConditionCommitted); c != nil && c.Status == metav1.ConditionTrue {
		return "it is committed: " + c.Message
	}
	return ""
}
