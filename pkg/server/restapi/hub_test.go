package restapi

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

func TestWhoDoesNotKeepUpIsDropped(t *testing.T) {
	h := newHub(NewMetrics(prometheus.NewRegistry()))
	slow, quick := h.join(""), h.join("")
	for i := range backlog + 1 {
		h.tell(event{name: "plan"})
		if i < backlog {
			<-quick.events
		}
	}
	select {
	case <-slow.dropped:
	default:
		t.Error("a listener with a full backlog was not dropped")
	}
	if len(quick.events) != 1 || len(h.all) != 1 || testutil.ToFloat64(h.metrics.dropped) != 1 {
		t.Errorf("%d events wait for the quick one, %d listeners are left", len(quick.events), len(h.all))
	}
	h.leave(slow)
	h.leave(quick)
	if got := testutil.ToFloat64(h.metrics.listeners); got != 0 {
		t.Errorf("%v listeners are counted", got)
	}
}

func TestListenersAreBounded(t *testing.T) {
	s := newServer(t, interceptor.Funcs{}, nil)
	for range maxListeners {
		s.hub.join("ns")
	}
	if answer := s.send("GET", "/api/v1/watch", ""); answer.Code != 503 || !strings.Contains(answer.Body.String(), "too many clients") {
		t.Errorf("one too many is answered with %d %s", answer.Code, answer.Body)
	}
	if s.hub.hears() {
		t.Error("listeners of one namespace are told of the nodes")
	}
}

func TestWhatTheInformerSeesIsTold(t *testing.T) {
	h := newHub(NewMetrics(prometheus.NewRegistry()))
	all, own, other := h.join(""), h.join("ns"), h.join("other")
	m := &v1alpha1.PodMigration{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "m", UID: "1", ResourceVersion: "1"}}
	changed := m.DeepCopy()
	changed.ResourceVersion = "2"
	h.OnAdd(m, true)
	h.OnAdd(m, false)
	h.OnUpdate(m, m)
	h.OnUpdate(m, changed)
	h.OnDelete(cache.DeletedFinalStateUnknown{Obj: changed})
	for _, l := range []*listener{all, own} {
		var names []string
		for len(l.events) > 0 {
			names = append(names, (<-l.events).name)
		}
		if got := strings.Join(names, " "); got != "migration migration deleted" {
			t.Errorf("told of %q", got)
		}
	}
	if len(other.events) != 0 {
		t.Error("another namespace was told")
	}
}
