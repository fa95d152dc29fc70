package kubectl

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/controllers/rebalance"
	"github.com/ai-storage/orchestrator/pkg/server/nodeview"
)

type topOptions struct {
	sortBy   string
	selector string
	output   string
}

// nodesView is what -o json shows, in the form of the API's GET /api/v1/nodes.
type nodesView struct {
	Source string          `json:"source"`
	Items  []nodeview.Node `json:"items"`
}

// orders in which top can sort: by name, or what is largest first.
var orders = map[string]func(n *nodeview.Node) float64{
	"cpu":                func(n *nodeview.Node) float64 { return shareOf(used(&n.CPU), n.CPU.Allocatable) },
	"memory":             func(n *nodeview.Node) float64 { return shareOf(used(&n.Memory), n.Memory.Allocatable) },
	"cpu-requested":      func(n *nodeview.Node) float64 { return shareOf(n.CPU.Requested, n.CPU.Allocatable) },
	"memory-requested":   func(n *nodeview.Node) float64 { return shareOf(n.Memory.Requested, n.Memory.Allocatable) },
	"cpu-reclaimable":    func(n *nodeview.Node) float64 { return float64(n.CPU.Reclaimable) },
	"memory-reclaimable": func(n *nodeview.Node) float64 { return float64(n.Memory.Reclaimable) },
	"pods":               func(n *nodeview.Node) float64 { return float64(n.Pods) },
}

const orderByName = "name"

func orderNames() []string {
	return append([]string{orderByName}, slices.Sorted(maps.Keys(orders))...)
}

func (c *cli) topCommand() *cobra.Command {
	o := &topOptions{}
	cmd := &cobra.Command{
		Use: "top [NODE...]", Short: "Show what is requested, measured and reclaimable on each node",
		Long: `Show what pods request on each node, what the node really uses (metrics.k8s.io), and what could be
given back: the requests of containers that have finished for good while their pod runs on.
Percentages are of what the node can allocate.`,
		RunE: func(cmd *cobra.Command, args []string) error { return c.top(cmd.Context(), o, args) },
	}
	cmd.Flags().StringVar(&o.sortBy, "sort-by", orderByName, "One of "+strings.Join(orderNames(), ", ")+"; the largest first")
	cmd.Flags().StringVarP(&o.selector, "selector", "l", "", "Label selector of nodes")
	addDataOutput(cmd, &o.output)
	cmd.ValidArgsFunction = c.completeMany(completeNodes)
	c.completeWords(cmd, "sort-by", orderNames())
	return cmd
}

func (c *cli) top(ctx context.Context, o *topOptions, names []string) error {
	key, known := orders[o.sortBy]
	if !known && o.sortBy != orderByName {
		return usage("--sort-by %s: must be one of %s", o.sortBy, strings.Join(orderNames(), ", "))
	}
	selector, err := labels.Parse(o.selector)
	if err != nil {
		return usage("--selector %q: %w", o.selector, err)
	}
	if err := validateDataOutput(o.output); err != nil {
		return err
	}
	s, err := c.connect()
	if err != nil {
		return err
	}
	views, err := c.viewNodes(ctx, s, selector, names)
	if err != nil {
		return err
	}
	if known {
		slices.SortStableFunc(views, func(a, b nodeview.Node) int { return cmp.Compare(key(&b), key(&a)) })
	}
	if o.output != "" {
		return writeData(c.Out, o.output, nodesView{nodeview.Source(views), views})
	}
	return writeNodes(c.Out, views)
}

func (c *cli) viewNodes(ctx context.Context, s *session, selector labels.Selector, names []string) ([]nodeview.Node, error) {
	nodes := &corev1.NodeList{}
	if err := s.client.List(ctx, nodes, client.MatchingLabelsSelector{Selector: selector}); err != nil {
		return nil, fmt.Errorf("listing nodes: %w", err)
	}
	if len(names) > 0 {
		nodes.Items = slices.DeleteFunc(nodes.Items, func(n corev1.Node) bool { return !slices.Contains(names, n.Name) })
	}
	for _, name := range names {
		if !slices.ContainsFunc(nodes.Items, func(n corev1.Node) bool { return n.Name == name }) {
			return nil, fmt.Errorf("there is no node %s", name)
		}
	}
	pods := &corev1.PodList{}
	if err := s.client.List(ctx, pods); err != nil {
		return nil, fmt.Errorf("listing the pods of all namespaces, by which requests are counted: %w", err)
	}
	usage := &metricsv1beta1.NodeMetricsList{}
	if err := s.client.List(ctx, usage); err != nil {
		fmt.Fprintf(c.ErrOut, "No measurements: metrics.k8s.io does not answer (%v). What nodes use is not shown.\n", err)
	}
	views := nodeview.Of(nodes.Items, pods.Items, usage.Items)
	c.judgeNodes(ctx, s, views)
	return views, nil
}

// judgeNodes adds what the rebalancer said of the nodes, where it can be read.
func (c *cli) judgeNodes(ctx context.Context, s *session, views []nodeview.Node) {
	published, err := c.statusStore(s).Published(ctx)
	if err != nil || published == nil {
		return
	}
	status, err := rebalance.ReadStatus(published)
	if err != nil {
		return
	}
	skipped, overutilized := map[string]string{}, map[string]bool{}
	for _, n := range status.Skipped {
		skipped[n.Name] = n.Reason
	}
	for _, n := range status.Plan.Before.Nodes {
		overutilized[n.Name] = n.Overutilized
	}
	nodeview.Judge(views, skipped, overutilized)
}

func writeNodes(w io.Writer, views []nodeview.Node) error {
	devices := devicesOf(views)
	table := newTable(w)
	fmt.Fprint(table, "NODE\tSTATUS\tPODS\tCPU REQUESTED\tUSED\tRECLAIMABLE\tMEMORY REQUESTED\tUSED\tRECLAIMABLE")
	for _, device := range devices {
		fmt.Fprintf(table, "\t%s", strings.ToUpper(string(device)))
	}
	fmt.Fprintln(table, "\tREBALANCER")
	for i := range views {
		n := &views[i]
		fmt.Fprintf(table, "%s\t%s\t%d\t%s\t%s", n.Name, nodeStatus(n), n.Pods, resourceColumns(&n.CPU, millicores), resourceColumns(&n.Memory, bytesOf))
		for _, device := range devices {
			fmt.Fprintf(table, "\t%s", deviceColumn(n, device))
		}
		fmt.Fprintf(table, "\t%s\n", saidOf(n))
	}
	return table.Flush()
}

func devicesOf(views []nodeview.Node) []corev1.ResourceName {
	names := map[corev1.ResourceName]bool{}
	for _, n := range views {
		for name := range n.Extended {
			names[name] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

func resourceColumns(r *nodeview.Resource, write func(int64) string) string {
	column := func(amount int64) string {
		return fmt.Sprintf("%s (%s)", write(amount), percentOf(amount, r.Allocatable))
	}
	measured := "-"
	if r.Used != nil {
		measured = column(*r.Used)
	}
	reclaimable := "-"
	if r.Reclaimable > 0 {
		reclaimable = column(r.Reclaimable)
	}
	return column(r.Requested) + "\t" + measured + "\t" + reclaimable
}

// deviceColumn is requested/allocatable, and what is held by finished containers.
func deviceColumn(n *nodeview.Node, name corev1.ResourceName) string {
	d, has := n.Extended[name]
	switch {
	case !has:
		return "-"
	case d.Reclaimable > 0:
		return fmt.Sprintf("%d/%d (%d reclaimable)", d.Requested, d.Allocatable, d.Reclaimable)
	}
	return fmt.Sprintf("%d/%d", d.Requested, d.Allocatable)
}

func nodeStatus(n *nodeview.Node) string {
	switch {
	case !n.Ready:
		return "NotReady"
	case !n.Schedulable:
		return "Ready,Cordoned"
	}
	return "Ready"
}

// saidOf is what the rebalancer said of a node.
func saidOf(n *nodeview.Node) string {
	switch {
	case n.Overutilized && n.Skipped != "":
		return "overutilized; skipped: " + n.Skipped
	case n.Overutilized:
		return "overutilized"
	case n.Skipped != "":
		return "skipped: " + n.Skipped
	}
	return "-"
}

// used is -1 where nothing was measured, so that such nodes come last.
func used(r *nodeview.Resource) int64 {
	if r.Used == nil {
		return -1
	}
	return *r.Used
}

func shareOf(part, whole int64) float64 {
	if whole == 0 {
		return 0
	}
	return float64(part) / float64(whole)
}
