package restapi

import (
	"sync"

	"k8s.io/client-go/tools/cache"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

const (
	// maxListeners bounds the streams of one replica.
	maxListeners = 200
	// backlog is how many events may wait for one listener before it is dropped.
	backlog = 512
)

// event is what a listener is told.
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

// hub tells every listener of every event that concerns it. It never waits for one.
type hub struct {
	metrics *Metrics
	mu      sync.Mutex
	all     map[*listener]bool
}

// listener is one stream.
type listener struct {
	// namespace limits it to one; "" listens to all.
	namespace string
	events    chan event
	// dropped is closed when the listener did not keep up.
	dropped chan struct{}
}

func newHub(metrics *Metrics) *hub {
	return &hub{metrics: metrics, all: map[*listener]bool{}}
}

// join adds a listener; nil when there are too many. Whoever joins must leave.
func (h *hub) join(namespace string) *listener {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.all) >= maxListeners {
		return nil
	}
	l := &listener{namespace: namespace, events: make(chan event, backlog), dropped: make(chan struct{})}
	h.all[l] = true
	h.metrics.listeners.Set(float64(len(h.all)))
	return l
}

func (h *hub) leave(l *listener) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.all, l)
	h.metrics.listeners.Set(float64(len(h.all)))
}

// hears reports whether anybody listens to all namespaces.
func (h *hub) hears() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for l := range h.all {
		if l.namespace == "" {
			return true
		}
	}
	return false
}

// tell never blocks: whose backlog is full is dropped, and can come again.
func (h *hub) tell(e event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for l := range h.all {
		if l.namespace != "" && l.namespace != e.namespace {
			continue
		}
		select {
		case l.events <- e:
		default:
			delete(h.all, l)
			close(l.dropped)
			h.metrics.dropped.Inc()
			h.metrics.listeners.Set(float64(len(h.all)))
		}
	}
}

// OnAdd, OnUpdate and OnDelete are called by the informer of PodMigrations.
func (h *hub) OnAdd(object any, initial bool) {
	if m, ok := object.(*v1alpha1.PodMigration); ok && !initial {
		h.tell(event{"migration", m.Namespace, viewOf(m)})
	}
}

// OnUpdate: see OnAdd. A resync changes nothing.
func (h *hub) OnUpdate(before, after any) {
	old, known := before.(*v1alpha1.PodMigration)
	m, ok := after.(*v1alpha1.PodMigration)
	if ok && (!known || old.ResourceVersion != m.ResourceVersion) {
		h.tell(event{"migration", m.Namespace, viewOf(m)})
	}
}

// OnDelete: see OnAdd.
func (h *hub) OnDelete(object any) {
	if unknown, ok := object.(cache.DeletedFinalStateUnknown); ok {
		object = unknown.Obj
	}
	if m, ok := object.(*v1alpha1.PodMigration); ok {
		h.tell(event{"deleted", m.Namespace, Deleted{ID: string(m.UID), Name: m.Name, Namespace: m.Namespace}})
	}
}
