//go:build e2e

package e2e

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// copyWatch records, for every change of a pod, which copies were ready.
type copyWatch struct {
	mu       sync.Mutex
	ready    map[string]bool
	history  []string
	gap      bool
	original string
}

func watchCopies(t testing.TB, namespace, original string) *copyWatch {
	t.Helper()
	c := &copyWatch{ready: map[string]bool{}, original: original}
	watchingPods(t, c.see, client.InNamespace(namespace))
	return c
}

func (c *copyWatch) see(event watch.EventType, pod *corev1.Pod) {
	if pod.Name != c.original && pod.Labels[v1alpha1.OriginalPodLabel] != c.original {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	// A pod that is being deleted may end at any moment.
	ready := event != watch.Deleted && pod.DeletionTimestamp == nil && pod.Status.Phase == corev1.PodRunning
	if pod.Name != c.original {
		ready = ready && isReady(pod)
	}
	if c.ready[pod.Name] != ready {
		c.history = append(c.history, fmt.Sprintf("%s ready: %t", pod.Name, ready))
	}
	c.ready[pod.Name] = ready
	c.gap = c.gap || (count(c.ready) == 0 && len(c.history) > 1)
}

func isReady(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// check wants the original to have gone only after the replacement was Ready.
func (c *copyWatch) check(t testing.TB, original, replacement *corev1.Pod) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	t.Logf("order of events: %v", c.history)
	if c.gap {
		t.Errorf("there was a moment at which no copy was ready")
	}
	if c.ready[original.Name] || !c.ready[replacement.Name] {
		t.Errorf("at the end the ready copies are %v", c.ready)
	}
}
