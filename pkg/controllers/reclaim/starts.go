package reclaim

import (
	"context"
	"maps"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	eventsclient "k8s.io/client-go/kubernetes/typed/core/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/event"
)

// startedReason is that of the event that a kubelet sends when it has started a
// container (k8s.io/kubernetes/pkg/kubelet/events.StartedContainer).
const startedReason = "Started"

// sameStart is by how much the event of a start may be later than the end of a
// container that ended at once: times of events are whole seconds.
const sameStart = 2 * time.Second

// starts hears of containers that start again after they had finished for good,
// such as when the runtime has lost its record of them: the kubelet takes such a
// container for one that has never run. It may not report so in the pod's
// status, and its event is all that tells. Nothing but such pods is kept.
type starts struct {
	lister    corelisters.PodLister
	events    eventsclient.EventsGetter
	namespace string
	pods      chan event.GenericEvent

	mu   sync.Mutex
	seen map[types.UID]map[string]bool
}

func newStarts(lister corelisters.PodLister, events eventsclient.EventsGetter, namespace string) *starts {
	return &starts{
		lister: lister, events: events, namespace: namespace,
		pods: make(chan event.GenericEvent), seen: map[types.UID]map[string]bool{},
	}
}

// Start listens until ctx ends.
func (s *starts) Start(ctx context.Context) error {
	only := fields.AndSelectors(
		fields.OneTermEqualSelector("involvedObject.kind", "Pod"), fields.OneTermEqualSelector("reason", startedReason)).String()
	listAndWatch := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.FieldSelector = only
			return s.events.Events(s.namespace).List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.FieldSelector = only
			return s.events.Events(s.namespace).Watch(ctx, o)
		},
	}
	reflector := cache.NewReflectorWithOptions(listAndWatch, &corev1.Event{}, &sink{starts: s, ctx: ctx}, cache.ReflectorOptions{Name: "container starts"})
	reflector.RunWithContext(ctx)
	return nil
}

// NeedLeaderElection: only the leader acts on what is heard.
func (s *starts) NeedLeaderElection() bool { return true }

// hear looks at the event of one start.
func (s *starts) hear(ctx context.Context, e *corev1.Event) {
	name, isContainer := strings.CutPrefix(strings.TrimSuffix(e.InvolvedObject.FieldPath, "}"), "spec.containers{")
	if !isContainer || e.Reason != startedReason {
		return
	}
	pod, err := s.lister.Pods(e.InvolvedObject.Namespace).Get(e.InvolvedObject.Name)
	if err != nil || pod.UID != e.InvolvedObject.UID || !startedAfterItsEnd(pod, name, e) {
		return
	}
	s.mu.Lock()
	s.forgetGone()
	if s.seen[pod.UID] == nil {
		s.seen[pod.UID] = map[string]bool{}
	}
	s.seen[pod.UID][name] = true
	s.mu.Unlock()
	select {
	case s.pods <- event.GenericEvent{Object: pod}:
	case <-ctx.Done():
	}
}

// forgetGone drops pods that are there no more. It is called as seldom as a
// container starts against its policy.
func (s *starts) forgetGone() {
	pods, err := s.lister.List(labels.Everything())
	if err != nil {
		return
	}
	there := make(map[types.UID]bool, len(pods))
	for _, pod := range pods {
		there[pod.UID] = true
	}
	maps.DeleteFunc(s.seen, func(uid types.UID, _ map[string]bool) bool { return !there[uid] })
}

// startedAfterItsEnd reports whether a container that ended with 0 was started
// later. The first start that is heard of may be the one that came to this end.
func startedAfterItsEnd(pod *corev1.Pod, name string, e *corev1.Event) bool {
	margin := sameStart
	if e.Count > 1 || e.Series != nil && e.Series.Count > 1 {
		margin = 0
	}
	for i := range pod.Status.ContainerStatuses {
		status := &pod.Status.ContainerStatuses[i]
		if end := status.State.Terminated; status.Name == name && end != nil {
			return end.ExitCode == 0 && startOf(e).After(end.FinishedAt.Add(margin))
		}
	}
	return false
}

func startOf(e *corev1.Event) time.Time {
	latest := e.LastTimestamp.Time
	if e.EventTime.After(latest) {
		latest = e.EventTime.Time
	}
	if e.Series != nil && e.Series.LastObservedTime.After(latest) {
		latest = e.Series.LastObservedTime.Time
	}
	return latest
}

// again returns which containers of a pod started again.
func (s *starts) again(pod *corev1.Pod) map[string]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.seen[pod.UID])
}

// sink takes the place of a reflector's store, and stores nothing.
type sink struct {
	starts *starts
	ctx    context.Context
}

func (s *sink) Add(object any) error {
	if e, is := object.(*corev1.Event); is {
		s.starts.hear(s.ctx, e)
	}
	return nil
}

func (s *sink) Update(object any) error { return s.Add(object) }
func (s *sink) Delete(any) error        { return nil }
func (s *sink) Resync() error           { return nil }

func (s *sink) Replace(list []any, _ string) error {
	for _, object := range list {
		_ = s.Add(object)
	}
	return nil
}
