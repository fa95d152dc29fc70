package integration

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/controllers/rebalance"
	"github.com/ai-storage/orchestrator/pkg/server/restapi"
)

// sent is one server-sent event.
type sent struct{ name, data string }

// listen opens a stream. The channel is closed when the stream ends.
func (a *api) listen(token, path string) <-chan sent {
	a.t.Helper()
	made, err := http.NewRequestWithContext(a.t.Context(), http.MethodGet, a.url+path, nil)
	must(a.t, err)
	made.Header.Set("Authorization", "Bearer "+token)
	response, err := a.client.Do(made)
	must(a.t, err)
	if response.StatusCode != http.StatusOK || response.Header.Get("Content-Type") != "text/event-stream" {
		a.t.Fatalf("GET %s: %s %v", path, response.Status, response.Header)
	}
	events := make(chan sent, 1000)
	go func() {
		defer close(events)
		defer response.Body.Close()
		var e sent
		for lines := bufio.NewScanner(response.Body); lines.Scan(); {
			switch line := lines.Text(); {
			case strings.HasPrefix(line, "event: "):
				e.name = strings.TrimPrefix(line, "event: ")
			case strings.HasPrefix(line, "data: "):
				e.data = strings.TrimPrefix(line, "data: ")
			case line == "" && e.name != "":
				events <- e
				e = sent{}
			}
		}
	}()
	return events
}

// next waits for an event of a name whose data has these words.
func next(t *testing.T, events <-chan sent, name, words string) string {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		select {
		case e, open := <-events:
			if !open {
				t.Fatalf("the stream ended before event %s with %q", name, words)
			}
			if e.name == name && strings.Contains(e.data, words) {
				return e.data
			}
		case <-deadline:
			t.Fatalf("no event %s with %q", name, words)
		}
	}
}

func TestAPITellsOfChanges(t *testing.T) {
	var store *rebalance.StatusStore
	a, w := startAPI(t, nil, func(o *restapi.Options) { store = o.StatusStore }), newWorld(t)
	local, _ := account(t, "local", w.namespace, "*")
	before := w.request(newMigration(w.namespace, "before", "a"))
	all := a.listen(operator(t), "/api/v1/watch")
	own := a.listen(local, "/api/v1/watch?namespace="+w.namespace)
	elsewhere := w.request(newMigration(newNamespace(t), "elsewhere", "b"))
	m := w.request(newMigration(w.namespace, "m", "c"))
	m.Status.Phase, m.Status.Message = v1alpha1.PhaseFailed, "pod c does not exist"
	must(t, asRebalancer(t).Status().Update(t.Context(), m))
	for _, events := range []<-chan sent{all, own} {
		next(t, events, "migration", string(before.UID))
		if events != own {
			next(t, events, "migration", string(elsewhere.UID))
		}
		var shown restapi.Migration
		must(t, json.Unmarshal([]byte(next(t, events, "migration", `"phase":"Failed"`)), &shown))
		if shown.ID != string(m.UID) || shown.Message != "pod c does not exist" {
			t.Errorf("sent %+v", shown)
		}
	}
	must(t, k8s.Delete(t.Context(), m))
	next(t, all, "deleted", string(m.UID))
	must(t, store.Publish(t.Context(), statusOf(nodeA)))
	next(t, all, "plan", `"time"`)
	next(t, all, "nodes", `"name":"node-a"`)
	a.stop()
	for _, events := range []<-chan sent{all, own} {
		for e := range events {
			if strings.Contains(e.data, string(elsewhere.UID)) || events == own && e.name != "migration" && e.name != "deleted" {
				t.Errorf("the stream of one namespace sent %+v", e)
			}
		}
	}
}

// A stream is asked again whether its caller may still listen: without the right it
// ends within the half minute of the check and the ten seconds that an answer counts.
func TestAStreamEndsWithTheRight(t *testing.T) {
	t.Parallel()
	a, w := startAPI(t, nil, nil), newWorld(t)
	token, user := account(t, "leaver", w.namespace, "list")
	events := a.listen(token, "/api/v1/watch?namespace="+w.namespace)
	must(t, k8s.DeleteAllOf(t.Context(), &rbacv1.RoleBinding{}, client.InNamespace(w.namespace)))
	deadline := time.After(60 * time.Second)
	for {
		select {
		case e, open := <-events:
			if !open {
				return
			}
			t.Logf("still sent %s", e.name)
		case <-deadline:
			t.Fatalf("%s still listens a minute after the right was withdrawn", user)
		}
	}
}

// slowly stores, and takes its time.
type slowly struct {
	client.Writer
	begun chan struct{}
	after chan struct{}
}

func (s slowly) Create(ctx context.Context, object client.Object, options ...client.CreateOption) error {
	close(s.begun)
	<-s.after
	return s.Writer.Create(ctx, object, options...)
}

// What was begun is answered, and what was answered with 202 is stored.
func TestAPIEndsGracefully(t *testing.T) {
	t.Parallel()
	slow := slowly{begun: make(chan struct{}), after: make(chan struct{})}
	a, w := startAPI(t, nil, func(o *restapi.Options) { slow.Writer, o.Writer = o.Writer, &slow }), newWorld(t)
	token := operator(t)
	w.createOriginal(threeContainers("train").Obj())
	answered := make(chan answer, 1)
	go func() { answered <- a.post(token, w.move("")) }()
	<-slow.begun
	ended := make(chan struct{})
	go func() { a.stop(); close(ended) }()
	select {
	case <-ended:
		t.Error("the server did not wait for a request in flight")
	case <-time.After(500 * time.Millisecond):
	}
	close(slow.after)
	var m restapi.Migration
	(<-answered).into(t, http.StatusAccepted, &m)
	<-ended
	stored := &v1alpha1.PodMigration{}
	must(t, k8s.Get(t.Context(), client.ObjectKey{Namespace: w.namespace, Name: m.Name}, stored))
	if string(stored.UID) != m.ID {
		t.Errorf("stored %s, answered with %s", stored.UID, m.ID)
	}
	if _, err := a.client.Get(a.url + "/health"); err == nil {
		t.Error("the server still answers")
	}
}
