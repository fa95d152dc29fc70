package kubectl

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/ai-storage/orchestrator/pkg/controllers/rebalance"
)

// stalePlan is the age from which a plan is reported as old. The loop's longest
// sensible interval is below it.
const stalePlan = 5 * time.Minute

// planView is what -o json shows: the status as the loop has written it.
type planView struct {
	Status     json.RawMessage `json:"status"`
	Paused     rebalance.Pause `json:"paused"`
	AgeSeconds int64           `json:"ageSeconds"`
}

func (c *cli) planCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "plan", Short: "Show what the rebalancer saw and decided last: moves, predictions, and why nodes are skipped",
		Args: none,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.plan(cmd.Context(), output) },
	}
	addDataOutput(cmd, &output)
	return cmd
}

func (c *cli) statusStore(s *session) *rebalance.StatusStore {
	return &rebalance.StatusStore{Live: s.client, Writer: s.client, Namespace: c.systemNamespace}
}

func (c *cli) plan(ctx context.Context, output string) error {
	if err := validateDataOutput(output); err != nil {
		return err
	}
	s, err := c.connect()
	if err != nil {
		return err
	}
	store := c.statusStore(s)
	published, err := store.Published(ctx)
	switch {
	case apierrors.IsForbidden(err):
		return fmt.Errorf("%w. You need the right to get ConfigMap %s in namespace %s", err, rebalance.StatusName, c.systemNamespace)
	case err != nil:
		return err
	case published == nil:
		return fmt.Errorf("there is no plan yet: the rebalancer writes its first one to ConfigMap %s in namespace %s after its first cycle. Does it run there? (--system-namespace names another)", rebalance.StatusName, c.systemNamespace)
	}
	status, err := rebalance.ReadStatus(published)
	if err != nil {
		return fmt.Errorf("the plan in ConfigMap %s cannot be read, it may be of another version of the rebalancer: %w", rebalance.StatusName, err)
	}
	pause, err := store.Pause(ctx)
	if err != nil {
		fmt.Fprintf(c.ErrOut, "Whether the loop is paused is not known: %v\n", err)
	}
	age := c.now().Sub(status.Time)
	if output != "" {
		return writeData(c.Out, output, planView{published, pause, int64(age.Seconds())})
	}
	c.writePlanHead(status, pause, age)
	return rebalance.WriteStatus(c.Out, status)
}

func (c *cli) writePlanHead(status *rebalance.Status, pause rebalance.Pause, age time.Duration) {
	fmt.Fprintf(c.Out, "Plan of %s, %s ago.\n", status.Time.UTC().Format(time.RFC3339), elapsed(age))
	if age > stalePlan {
		fmt.Fprintln(c.Out, "This is old: the rebalancer may not run, or not reach the cluster.")
	}
	if pause.Paused {
		fmt.Fprintf(c.Out, "The loop is %s. It plans, and starts no migrations; kubectl migrate resume ends the pause.\n", pause)
	}
	if status.Trimmed != "" {
		fmt.Fprintf(c.Out, "The plan is large: %s.\n", status.Trimmed)
	}
	fmt.Fprintln(c.Out)
}
