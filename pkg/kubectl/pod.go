package kubectl

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// createdByKubectl is the value of the label v1alpha1.CreatedByLabel.
const createdByKubectl = "kubectl"

// requestFlags say how a pod moves; the commands pod and drain have them.
type requestFlags struct {
	timeout      time.Duration
	waitTimeout  time.Duration
	forceRestart bool
	keepClaim    bool
	mode         string
	claim        string
	fallback     string
	maxFreeze    time.Duration
	// checkpoint is what validate made of the flags.
	checkpoint v1alpha1.CheckpointSpec
	reason     string
	dryRun     dryRun
}

func (c *cli) addRequestFlags(cmd *cobra.Command, f *requestFlags, reason string) {
	flags := cmd.Flags()
	flags.DurationVar(&f.timeout, "timeout", 10*time.Minute, "Maximum time that one migration takes from its start; when it runs out, the migration is rolled back")
	flags.DurationVar(&f.waitTimeout, "wait-timeout", 0, "How long to wait; then the command ends with code 5 and the migration continues (0 waits as long as it takes)")
	flags.BoolVar(&f.forceRestart, "force-restart", false, "Stop the original before its replacement starts, even where both could run side by side")
	flags.BoolVar(&f.keepClaim, "keep-claim", false, "Keep the checkpoint claim when the replacement is gone")
	flags.StringVar(&f.mode, "checkpoint-mode", string(v1alpha1.CheckpointFrozen), "How state that is not on persistent volumes is carried, one of "+listed(v1alpha1.CheckpointModes)+"; Process takes the memory of the processes along")
	flags.StringVar(&f.claim, "checkpoint-claim", string(v1alpha1.ClaimWhenNeeded), "Whether a checkpoint claim is made, one of "+listed(v1alpha1.ClaimPolicies)+"; it is needed where the original stops first and state is carried")
	flags.StringVar(&f.fallback, "fallback", string(v1alpha1.FallbackNone), "When the processes cannot move: None refuses the migration, or rolls it back; FreshStart moves the volumes, and the containers start afresh")
	flags.DurationVar(&f.maxFreeze, "max-freeze", v1alpha1.DefaultMaxFreeze, "Maximum time the pod stays frozen until its replacement continues; a migration that takes longer is rolled back. Much memory needs more")
	flags.StringVar(&f.reason, "reason", reason, "Reason for the move; it is written on the migration and in its events")
	f.dryRun.add(cmd)
	c.completeWords(cmd, "checkpoint-mode", texts(v1alpha1.CheckpointModes))
	c.completeWords(cmd, "checkpoint-claim", texts(v1alpha1.ClaimPolicies))
	c.completeWords(cmd, "fallback", texts(v1alpha1.CheckpointFallbacks))
}

func (f *requestFlags) validate() error {
	var err error
	if f.checkpoint.Mode, err = oneOf("--checkpoint-mode", f.mode, v1alpha1.CheckpointModes); err != nil {
		return err
	}
	if f.checkpoint.Claim, err = oneOf("--checkpoint-claim", f.claim, v1alpha1.ClaimPolicies); err != nil {
		return err
	}
	if f.checkpoint.Fallback, err = oneOf("--fallback", f.fallback, v1alpha1.CheckpointFallbacks); err != nil {
		return err
	}
	if f.checkpoint.Fallback != v1alpha1.FallbackNone && f.checkpoint.Mode != v1alpha1.CheckpointProcess {
		return usage("--fallback %s goes with --checkpoint-mode %s only", f.fallback, v1alpha1.CheckpointProcess)
	}
	if f.maxFreeze < time.Second || f.maxFreeze > time.Hour || f.maxFreeze%time.Second != 0 {
		return usage("--max-freeze %s: give whole seconds from 1s to 1h", f.maxFreeze)
	}
	f.checkpoint.MaxFreezeSeconds = int32(f.maxFreeze / time.Second)
	if f.keepClaim && f.checkpoint.Claim == v1alpha1.ClaimNever {
		return usage("--keep-claim keeps a claim that --checkpoint-claim %s does not make: leave one of them out", v1alpha1.ClaimNever)
	}
	if f.keepClaim {
		f.checkpoint.ReclaimPolicy = v1alpha1.ClaimRetain
	}
	if f.timeout < time.Second || f.timeout > 24*time.Hour || f.timeout%time.Second != 0 {
		return usage("--timeout %s: give whole seconds from 1s to 24h", f.timeout)
	}
	if f.waitTimeout < 0 {
		return usage("--wait-timeout %s: must not be negative", f.waitTimeout)
	}
	return f.dryRun.validate()
}

// request is the migration of a pod.
func (f *requestFlags) request(pod client.ObjectKey, target string) *v1alpha1.PodMigration {
	return &v1alpha1.PodMigration{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: pod.Namespace, GenerateName: pod.Name + "-",
			Labels: map[string]string{v1alpha1.AppLabel: v1alpha1.AppLabelValue, v1alpha1.CreatedByLabel: createdByKubectl},
		},
		Spec: v1alpha1.PodMigrationSpec{
			PodName: pod.Name, TargetNode: target, ForceRestart: f.forceRestart,
			TimeoutSeconds: int32(f.timeout / time.Second), Reason: f.reason,
			Checkpoint: f.checkpoint,
		},
	}
}

type podOptions struct {
	requestFlags
	target string
	wait   bool
	print  *genericclioptions.PrintFlags
}

func (c *cli) podCommand() *cobra.Command {
	o := &podOptions{print: genericclioptions.NewPrintFlags("created").WithTypeSetter(scheme)}
	cmd := &cobra.Command{
		Use:   "pod NAME [--to NODE]",
		Short: "Move a pod to another node",
		Long: `Move a pod to another node. The scheduler finds the place unless --to names it; nothing is
stopped before there is one. Containers that have finished stay behind.

A pod that cannot be moved is refused at once, with the reason, and no migration is created.
With --wait the phases are shown as they pass; Ctrl-C ends the waiting, not the migration.`,
		Example: `  # Move pod trainer away from its node, and watch
  kubectl migrate pod trainer --wait

  # To a node of your choice
  kubectl migrate pod trainer --to node-b --wait

  # With the memory of its processes, or at least with its volumes
  kubectl migrate pod trainer --checkpoint-mode Process --fallback FreshStart --wait

  # What would move, and what would stay behind?
  kubectl migrate pod trainer --dry-run`,
		Args: exactly(1, "the name of one pod"),
		RunE: func(cmd *cobra.Command, args []string) error { return c.movePod(cmd.Context(), o, args[0]) },
	}
	c.addRequestFlags(cmd, &o.requestFlags, "requested with kubectl migrate")
	cmd.Flags().StringVar(&o.target, "to", "", "The only node that the scheduler may choose; empty leaves it to the scheduler")
	cmd.Flags().BoolVar(&o.wait, "wait", false, "Wait until the migration has finished, and show its progress")
	o.print.AddFlags(cmd)
	cmd.ValidArgsFunction = c.completeOne(completePods)
	c.completeFlag(cmd, "to", completeNodes)
	return cmd
}

func (c *cli) movePod(ctx context.Context, o *podOptions, name string) error {
	if err := o.validate(); err != nil {
		return err
	}
	if _, err := o.print.ToPrinter(); err != nil {
		return usage("%w", err)
	}
	s, err := c.connect()
	if err != nil {
		return err
	}
	key, err := s.key(name, "pod", "pods", "po")
	if err != nil {
		return err
	}
	request := o.request(key, o.target)
	judged, err := s.judgeRequest(ctx, request)
	if err != nil {
		return err
	}
	request.Spec.PodUID, request.Spec.SourceNode = judged.pod.UID, judged.pod.Spec.NodeName
	words := o.words(c)
	if o.dryRun.on() {
		judged.write(words)
	}
	if judged.refusal != nil {
		return exitWith(ExitRefused, "pod %s cannot be moved (%s): %s", key.Name, judged.refusal.Reason, judged.refusal.Message)
	}
	if !o.dryRun.on() {
		judged.warn(c.ErrOut)
	}
	if err := s.client.Create(ctx, request, o.dryRun.create()...); err != nil {
		return fmt.Errorf("requesting the migration: %w", hint(err))
	}
	if o.dryRun.on() {
		fmt.Fprintln(words)
		return o.printObject(c, request)
	}
	if !o.wait {
		if judged.waits != "" {
			fmt.Fprintf(c.ErrOut, "The migration waits first: %s\n", judged.waits)
		}
		return o.printObject(c, request)
	}
	return c.waitForPod(ctx, s, o, request, words)
}

func (c *cli) waitForPod(ctx context.Context, s *session, o *podOptions, request *v1alpha1.PodMigration, words io.Writer) error {
	if !o.printsObject() {
		if err := o.printObject(c, request); err != nil {
			return err
		}
	}
	final, err := c.wait(ctx, s, request, o.waitTimeout, words)
	if err != nil {
		return err
	}
	writeOutcome(words, final)
	if o.printsObject() {
		if err := o.printObject(c, final); err != nil {
			return err
		}
	}
	return outcome(final)
}

// printsObject reports whether standard output is machine-readable.
func (o *podOptions) printsObject() bool { return *o.print.OutputFormat != "" }

// words is where the human-readable output goes.
func (o *podOptions) words(c *cli) io.Writer {
	if o.printsObject() {
		return c.ErrOut
	}
	return c.Out
}

func (o *podOptions) printObject(c *cli, m *v1alpha1.PodMigration) error {
	if o.dryRun.on() {
		if err := o.print.Complete("%s (server dry run)"); err != nil {
			return err
		}
	}
	return print(c.Out, o.print, m)
}

// hint says what right is missing.
func hint(err error) error {
	if apierrors.IsForbidden(err) {
		return fmt.Errorf("%w. You need the right to create podmigrations.%s in this namespace", err, v1alpha1.GroupName)
	}
	return err
}
