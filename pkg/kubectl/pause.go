package kubectl

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/controllers/rebalance"
)

func (c *cli) pauseCommand() *cobra.Command {
	var reason string
	var dry dryRun
	cmd := &cobra.Command{
		Use: "pause", Short: "Pause automatic rebalancing",
		Long: `Pause the rebalancing loop. It continues to plan, so that kubectl migrate plan shows what it
would do, and starts no migrations. Migrations in flight continue, and so do those that users request.`,
		Args: none,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.setPause(cmd.Context(), true, reason, dry) },
	}
	cmd.Flags().StringVar(&reason, "reason", "", "Reason for the pause; the plan shows it")
	dry.add(cmd)
	return cmd
}

func (c *cli) resumeCommand() *cobra.Command {
	var dry dryRun
	cmd := &cobra.Command{
		Use: "resume", Short: "Resume automatic rebalancing",
		Args: none,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.setPause(cmd.Context(), false, "", dry) },
	}
	dry.add(cmd)
	return cmd
}

func (c *cli) setPause(ctx context.Context, paused bool, reason string, dry dryRun) error {
	if err := dry.validate(); err != nil {
		return err
	}
	s, err := c.connect()
	if err != nil {
		return err
	}
	was, err := c.statusStore(s).Pause(ctx)
	if err != nil {
		return err
	}
	switch {
	case paused && was.Paused && reason == "":
		fmt.Fprintf(c.Out, "rebalancing is already %s\n", was)
		return nil
	case !paused && !was.Paused:
		fmt.Fprintln(c.Out, "rebalancing was not paused")
		return nil
	}
	data := map[string]string{"paused": fmt.Sprint(paused), "reason": reason, "by": s.user(ctx), "since": c.now().UTC().Format(time.RFC3339)}
	err = retry.RetryOnConflict(retry.DefaultRetry, func() error { return c.writeControl(ctx, s, data, dry) })
	if apierrors.IsForbidden(err) {
		return fmt.Errorf("%w. You need the rights to get, create and update ConfigMap %s in namespace %s", err, rebalance.ControlName, c.systemNamespace)
	}
	if err != nil {
		return fmt.Errorf("writing ConfigMap %s: %w", rebalance.ControlName, err)
	}
	if paused {
		fmt.Fprintf(c.Out, "rebalancing paused%s\nFrom its next cycle on the loop starts no migrations. Those in flight continue.\n", dry.suffix())
	} else {
		fmt.Fprintf(c.Out, "rebalancing resumed%s\nIt was %s.\n", dry.suffix(), was)
	}
	return nil
}

func (c *cli) writeControl(ctx context.Context, s *session, data map[string]string, dry dryRun) error {
	control := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: c.systemNamespace, Name: rebalance.ControlName}}
	err := s.client.Get(ctx, client.ObjectKeyFromObject(control), control)
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	control.Data = data
	if apierrors.IsNotFound(err) {
		return s.client.Create(ctx, control, dry.create()...)
	}
	return s.client.Update(ctx, control, dry.update()...)
}

// user is who the cluster takes the caller for; clusters that do not report it
// leave it open.
func (s *session) user(ctx context.Context) string {
	review := &authenticationv1.SelfSubjectReview{}
	if err := s.client.Create(ctx, review); err != nil || review.Status.UserInfo.Username == "" {
		return "a user of kubectl migrate"
	}
	return review.Status.UserInfo.Username
}
