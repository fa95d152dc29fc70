package restapi

import (
	"sync"

	"k8s.io/client-go/tools/cache"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

const (
	// maxSubscribers bounds the streams of one replica.
	maxSubscribers = 200
	// backlog is how many events may wait for one subscriber before it is dropped.
	backlog = 512
)

// event is what a subscriber receives.
type event struct {
	name string
	// namespace of the migration; "" for what concerns all namespaces.
	namespace string
	data      any
}

// Deleted is the event for a migration whose record was removed.
type Deleted struct {
	ID        string `json:"id"`
	Name      string `json:"name"`
	Namespace string `json:"namespace"`
}

// broadcaster publishes every event to the subscribers that it concerns. It never waits
// for one.
type broadcaster struct {
	metrics *Metrics
	mu      sync.Mutex
	all     map[*subscriber]bool
}

// subscriber is one stream.
type subscriber struct {
	// namespace limits it to one; "" subscribes to all.
	namespace string
	events    chan event
	// dropped is closed when the subscriber reads too slowly.
	dropped chan struct{}
}

func newBroadcaster(metrics *Metrics) *broadcaster {
	return &broadcaster{metrics: metrics, all: map[*subscriber]bool{}}
}

// subscribe returns nil when there are too many. Every subscriber has to unsubscribe.
func (b *broadcaster) subscribe(namespace string) *subscriber {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.all) >= maxSubscribers {
		return nil
	}
	s := &subscriber{namespace: namespace, events: make(chan event, backlog), dropped: make(chan struct{})}
	b.all[s] = true
	b.metrics.subscribers.Set(float64(len(b.all)))
	return s
}

func (b *broadcaster) unsubscribe(s *subscriber) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.all, s)
	b.metrics.subscribers.Set(float64(len(b.all)))
}

// hasSubscribers reports whether anybody subscribes to all namespaces.
func (b *broadcaster) hasSubscribers() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for s := range b.all {
		if s.namespace == "" {
			return true
		}
	}
	return false
}

// publish never blocks: a subscriber whose backlog is full is dropped, and can
// reconnect.
func (b *broadcaster) publish(e event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for s := range b.all {
		if s.namespace != "" && s.namespace != e.namespace {
			continue
		}
		select {
		case s.events <- e:
		default:
			delete(b.all, s)
			close(s.dropped)
			b.metrics.dropped.Inc()
			b.metrics.subscribers.Set(float64(len(b.all)))
		}
	}
}

// OnAdd, OnUpdate and OnDelete are called by the informer of PodMigrations.
func (b *broadcaster) OnAdd(object any, initial bool) {
	if m, ok := object.(*v1alpha1.PodMigration); ok && !initial {
		b.publish(event{"migration", m.Namespace, viewOf(m)})
	}
}

// OnUpdate: see OnAdd. A resync changes nothing.
func (b *broadcaster) OnUpdate(before, after any) {
	old, known := before.(*v1alpha1.PodMigration)
	m, ok := after.(*v1alpha1.PodMigration)
	if ok && (!known || old.ResourceVersion != m.ResourceVersion) {
		b.publish(event{"migration", m.Namespace, viewOf(m)})
	}
}

// OnDelete: see OnAdd.
func (b *broadcaster) OnDelete(object any) {
	if unknown, ok := object.(cache.DeletedFinalStateUnknown); ok {
		object = unknown.Obj
	}
	if m, ok := object.(*v1alpha1.PodMigration); ok {
		b.publish(event{"deleted", m.Namespace, Deleted{ID: string(m.UID), Name: m.Name, Namespace: m.Namespace}})
	}
}
