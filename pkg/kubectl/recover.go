package kubectl

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/cli-runtime/pkg/genericclioptions"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods/containers"
)

type recoverOptions struct {
	podOptions
	pod        string
	keepsClaim *bool
}

func (c *cli) recoverCommand() *cobra.Command {
	o := &recoverOptions{podOptions: podOptions{print: genericclioptions.NewPrintFlags("created").WithTypeSetter(scheme)}}
	cmd := &cobra.Command{
		Use:   "recover NAME [--pod POD]",
		Short: "Start the pod of a failed migration again, with the state that its claim has kept",
		Long: `Start the pod of a failed migration again. NAME is a migration that failed after its original
had gone, and whose claim has the only copy of the pod's state: kubectl migrate list --kept
shows them. The pod is created as it was, its volumes are restored and verified, and then its
containers start. Whatever ends the recovery before the pod is Ready, the claim is kept, and
the recovery that ended is what the pod can be recovered from.

A bare pod comes back under its name. A pod that belonged to a Deployment, Job or StatefulSet
was replaced by its owner without that state: --pod gives the recovered one a name. It is
started beside the owner's pods, without their labels and without an owner.`,
		Example: `  # Which claims have the only copy of something?
  kubectl migrate list -A --kept

  # Start the pod again, and watch
  kubectl migrate recover trainer-x7k2p --wait

  # Beside the pod that its StatefulSet has created again
  kubectl migrate recover db-0-x7k2p --pod db-0-recovered`,
		Args: exactly(1, "the name of a migration: kubectl migrate list --kept shows them"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("keep-claim") {
				o.keepsClaim = &o.keepClaim
			}
			return c.recoverPod(cmd.Context(), o, args[0])
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.pod, "pod", "", "Name of the recovered pod; empty is that of the original")
	flags.StringVar(&o.target, "to", "", "The only node that the scheduler may choose; empty leaves it to the scheduler")
	flags.StringVar(&o.fallback, "fallback", string(v1alpha1.FallbackNone), "When the memory of processes was carried too, which cannot be restored any more: None refuses the recovery; FreshStart restores the volumes, and the containers start afresh")
	flags.BoolVar(&o.keepClaim, "keep-claim", false, "Keep the checkpoint claim when the recovered pod is gone (default: as the failed migration was asked to)")
	flags.DurationVar(&o.timeout, "timeout", 10*time.Minute, "Maximum time until the state is restored; when it runs out, the pod is deleted and the claim is kept")
	flags.BoolVar(&o.wait, "wait", false, "Wait until the recovery has finished, and show its progress")
	flags.DurationVar(&o.waitTimeout, "wait-timeout", 0, "How long to wait; then the command ends with code 5 and the recovery continues (0 waits as long as it takes)")
	flags.StringVar(&o.reason, "reason", "requested with kubectl migrate recover", "Reason for the recovery; it is written on the migration and in its events")
	o.dryRun.add(cmd)
	o.print.AddFlags(cmd)
	cmd.ValidArgsFunction = c.completeOne(completeKept)
	c.completeWords(cmd, "fallback", texts(v1alpha1.CheckpointFallbacks))
	c.completeFlag(cmd, "to", completeNodes)
	return cmd
}

func (o *recoverOptions) validate() error {
	o.mode, o.claim, o.maxFreeze = string(v1alpha1.CheckpointFrozen), string(v1alpha1.ClaimWhenNeeded), v1alpha1.DefaultMaxFreeze
	fallback, err := oneOf("--fallback", o.fallback, v1alpha1.CheckpointFallbacks)
	if err != nil {
		return err
	}
	// The others are those of a request to move a pod, where it goes with another mode.
	o.fallback = string(v1alpha1.FallbackNone)
	if err := o.requestFlags.validate(); err != nil {
		return err
	}
	o.checkpoint.Fallback = fallback
	if _, err := o.print.ToPrinter(); err != nil {
		return usage("%w", err)
	}
	return nil
}

// recovery is the migration that starts the pod of a failed one again.
func (o *recoverOptions) recovery(failed *v1alpha1.PodMigration) *v1alpha1.PodMigration {
	m := failed.Recovery(o.pod, o.keepsClaim)
	m.Labels = map[string]string{v1alpha1.AppLabel: v1alpha1.AppLabelValue, v1alpha1.CreatedByLabel: createdByKubectl}
	m.Spec.TargetNode, m.Spec.TimeoutSeconds, m.Spec.Reason = o.target, int32(o.timeout/time.Second), o.reason
	m.Spec.Checkpoint.Fallback = o.checkpoint.Fallback
	return m
}

func (c *cli) recoverPod(ctx context.Context, o *recoverOptions, name string) error {
	if err := o.validate(); err != nil {
		return err
	}
	s, err := c.connect()
	if err != nil {
		return err
	}
	failed, err := s.migration(ctx, name)
	if err != nil {
		return err
	}
	request, words := o.recovery(failed), o.words(c)
	refusal, err := s.judgeRecovery(ctx, request, c.ErrOut)
	if err != nil {
		return err
	}
	if refusal != nil {
		return exitWith(ExitRefused, "the pod of migration %s cannot be recovered (%s): %s", failed.Name, refusal.Reason, refusal.Message)
	}
	if err := s.client.Create(ctx, request, o.dryRun.create()...); err != nil {
		return fmt.Errorf("requesting the recovery: %w", hint(err))
	}
	switch {
	case o.dryRun.on():
		fmt.Fprintf(words, "Pod %s/%s can be recovered from claim %s.\n", request.Namespace, request.Spec.PodName, failed.Status.CheckpointClaim)
		return o.printObject(c, request)
	case !o.wait:
		return o.printObject(c, request)
	}
	return c.waitForPod(ctx, s, &o.podOptions, request, words)
}

// judgeRecovery looks at a request as the controller will, as far as the caller may.
func (s *session) judgeRecovery(ctx context.Context, request *v1alpha1.PodMigration, warnings io.Writer) (*containers.Refusal, error) {
	result, err := s.judge.Check(ctx, request)
	if apierrors.IsForbidden(err) {
		fmt.Fprintf(warnings, "Not everything could be checked beforehand: %v\n", err)
		return nil, nil
	}
	return result.Refusal, err
}

func completeKept(ctx context.Context, s *session) []string {
	return migrationsThat(ctx, s, (*v1alpha1.PodMigration).KeepsOnlyCopy)
}
