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
	b := newBroadcaster(NewMetrics(prometheus.NewRegistry()))
	slow, quick := b.subscribe(""), b.subscribe("")
	for i := range backlog + 1 {
		b.publish(event{name: "plan"})
		if i < backlog {
			<-quick.events
		}
	}
	select {
	case <-slow.dropped:
	default:
		t.Error("a subscriber with a full backlog was not dropped")
	}
	if len(quick.events) != 1 || len(b.all) != 1 || testutil.ToFloat64(b.metrics.dropped) != 1 {
		t.Errorf("%d events wait for the quick one, %d subscribers are left", len(quick.events), len(b.all))
	}
	b.unsubscribe(slow)
	b.unsubscribe(quick)
	if got := testutil.ToFloat64(b.metrics.subscribers); got != 0 {
		t.Errorf("%v subscribers are counted", got)
	}
}

func TestSubscribersAreBounded(t *testing.T) {
	s := newServer(t, interceptor.Funcs{}, nil)
	for range maxSubscribers {
		s.broadcaster.subscribe("ns")
	}
	if answer := s.send("GET", "/api/v1/watch", ""); answer.Code != 503 || !strings.Contains(answer.Body.String(), "too many clients") {
		t.Errorf("one too many is answered with %d %s", answer.Code, answer.Body)
	}
	if s.broadcaster.hasSubscribers() {
		t.Error("subscribers of one namespace count for the nodes")
	}
}

func TestWhatTheInformerSeesIsPublished(t *testing.T) {
	b := newBroadcaster(NewMetrics(prometheus.NewRegistry()))
	all, own, other := b.subscribe(""), b.subscribe("ns"), b.subscribe("other")
	m := &v1alpha1.PodMigration{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "m", UID: "1", ResourceVersion: "1"}}
	changed := m.DeepCopy()
	changed.ResourceVersion = "2"
	b.OnAdd(m, true)
	b.OnAdd(m, false)
	b.OnUpdate(m, m)
	b.OnUpdate(m, changed)
	b.OnDelete(cache.DeletedFinalStateUnknown{Obj: changed})
	for _, s := range []*subscriber{all, own} {
		var names []string
		for len(s.events) > 0 {
			names = append(names, (<-s.events).name)
		}
		if got := strings.Join(names, " "); got != "migration migration deleted" {
			t.Errorf("received %q", got)
		}
	}
	if len(other.events) != 0 {
		t.Error("another namespace received something")
	}
}
