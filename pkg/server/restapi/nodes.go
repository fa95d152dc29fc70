package restapi

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/klog/v2"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"github.com/ai-storage/orchestrator/pkg/server/nodeview"
	"github.com/ai-storage/orchestrator/pkg/server/restapi/auth"
)

// usageFresh is how long a reading of the metrics API is used again: it measures
// every 15 s at most.
const usageFresh = 5 * time.Second

// Nodes are all nodes at one moment.
type Nodes struct {
	// Source names where used comes from: metrics.k8s.io, or Unavailable.
	Source string          `json:"source"`
	Items  []nodeview.Node `json:"items"`
}

func (s *Server) nodes(w http.ResponseWriter, r *http.Request, caller user.Info) error {
	if err := noParameters(r); err != nil {
		return err
	}
	if err := s.o.Authorizer.Allow(r.Context(), caller, auth.Access{Verb: "list"}); err != nil {
		return err
	}
	answer, err := s.nodesNow(r.Context())
	if err != nil {
		return err
	}
	writeJSON(r.Context(), w, http.StatusOK, answer)
	return nil
}

// nodesNow looks at all nodes, with what the loop says of them.
func (s *Server) nodesNow(ctx context.Context) (*Nodes, error) {
	nodes, err := s.o.Nodes.List(labels.Everything())
	if err != nil {
		return nil, fmt.Errorf("listing nodes: %w", err)
	}
	pods, err := s.o.Pods.List(labels.Everything())
	if err != nil {
		return nil, fmt.Errorf("listing pods: %w", err)
	}
	views := nodeview.Of(values(nodes), values(pods), s.usage.read(ctx, s))
	status, err := s.loopStatus(ctx)
	if err != nil {
		return nil, err
	}
	skipped, overutilized := map[string]string{}, map[string]bool{}
	if status != nil {
		for _, node := range status.Skipped {
			skipped[node.Name] = node.Reason
		}
		for _, node := range status.Plan.Before.Nodes {
			overutilized[node.Name] = node.Overutilized
		}
	}
	nodeview.Judge(views, skipped, overutilized)
	return &Nodes{Source: nodeview.Source(views), Items: views}, nil
}

func values[T any](pointers []*T) []T {
	list := make([]T, len(pointers))
	for i, pointer := range pointers {
		list[i] = *pointer
	}
	return list
}

// usageCache asks the metrics API once for all who ask at the same time.
type usageCache struct {
	mu   sync.Mutex
	at   time.Time
	last []metricsv1beta1.NodeMetrics
}

// read returns the last measurements; none when there is no metrics API or it does
// not answer, which the answer then says.
func (c *usageCache) read(ctx context.Context, s *Server) []metricsv1beta1.NodeMetrics {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := s.now(); now.Sub(c.at) >= usageFresh {
		list, err := s.o.Metrics.NodeMetricses().List(ctx, metav1.ListOptions{})
		if err != nil {
			klog.FromContext(ctx).V(2).Info("The metrics API does not answer", "err", err)
			list = &metricsv1beta1.NodeMetricsList{}
		}
		c.at, c.last = now, list.Items
	}
	return c.last
}
