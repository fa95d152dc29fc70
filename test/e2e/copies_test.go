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

// copyWatch records, for every change of a pod, which copies could work.
type copyWatch struct {
	mu       sync.Mutex
	ready    map[string]bool
	history  []string
	gap      bool
	original string
}

func watchCopies(t testing.TB, namespace, original string) *copyWatch {
	t.Helper()
	pods := &corev1.PodList{}
	w, err := env.client.Watch(t.Context(), pods, client.InNamespace(namespace))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Stop)
	c := &copyWatch{ready: map[string]bool{}, original: original}
	go func() {
		for event := range w.ResultChan() {
			if pod, isPod := event.Object.(*corev1.Pod); isPod {
				c.see(event.Type, pod)
			}
		}
	}()
	return c
}

func (c *copyWatch) see(event watch.EventType, pod *corev1.Pod) {
	if pod.Name != c.original && pod.Labels[v1alpha1.OriginalPodLabel] != c.original {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	// A pod that is asked to go may end at any moment.
	works := event != watch.Deleted && pod.DeletionTimestamp == nil && pod.Status.Phase == corev1.PodRunning
	if pod.Name != c.original {
		works = works && isReady(pod)
	}
	if c.ready[pod.Name] != works {
		c.history = append(c.history, fmt.Sprintf("%s works: %t", pod.Name, works))
	}
	c.ready[pod.Name] = works
	working := 0
	for _, w := range c.ready {
		if w {
			working++
		}
	}
	c.gap = c.gap || (working == 0 && len(c.history) > 1)
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
		t.Errorf("there was a moment at which no copy worked")
	}
	if c.ready[original.Name] || !c.ready[replacement.Name] {
		t.Errorf("at the end the working copies are %v", c.ready)
	}
}
