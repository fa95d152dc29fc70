package checkpointvolume

import (
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
)

// attachKey is a volume on a node. A failure is remembered for one claim only:
// a broken volume must not put its nodes out of use for every other.
type attachKey struct {
	claim types.NamespacedName
	node  string
}

// failedNodes remembers where an attach failed. The scheduler does not: a pod
// that failed in PreBind is tried again with all nodes.
type failedNodes struct {
	clock    clock.WithDelayedExecution
	backoff  time.Duration
	activate func(map[string]*corev1.Pod)

	mu      sync.Mutex
	entries map[attachKey]*failure
}

type failure struct {
	// rejected are the pods that wait for the end of the backoff. No event of
	// the cluster marks it, so they have to be activated.
	rejected map[string]*corev1.Pod
}

func newFailedNodes(clock clock.WithDelayedExecution, backoff time.Duration, activate func(map[string]*corev1.Pod)) *failedNodes {
	return &failedNodes{clock: clock, backoff: backoff, activate: activate, entries: map[attachKey]*failure{}}
}

// remember keeps the node out for the backoff, from now on.
func (f *failedNodes) remember(key attachKey) {
	if f.backoff <= 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	entry := &failure{rejected: map[string]*corev1.Pod{}}
	if old, ok := f.entries[key]; ok {
		entry.rejected = old.rejected
	}
	f.entries[key] = entry
	f.clock.AfterFunc(f.backoff, func() { f.forget(key, entry) })
}

// isOut reports whether the node is out, and if so activates the pod later.
func (f *failedNodes) isOut(key attachKey, pod *corev1.Pod) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	entry, ok := f.entries[key]
	if ok {
		entry.rejected[podKey(pod)] = pod
	}
	return ok
}

func (f *failedNodes) forget(key attachKey, entry *failure) {
	f.mu.Lock()
	// After a second failure, the timer of the first has nothing to say.
	current := f.entries[key] == entry
	if current {
		delete(f.entries, key)
	}
	f.mu.Unlock()
	if current && len(entry.rejected) > 0 {
		f.activate(entry.rejected)
	}
}

func podKey(pod *corev1.Pod) string { return pod.Namespace + "/" + pod.Name }
