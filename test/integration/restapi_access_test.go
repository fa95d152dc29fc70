package integration

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/pkg/controllers/rebalance"
	"github.com/ai-storage/orchestrator/pkg/scheduling/planner"
	"github.com/ai-storage/orchestrator/pkg/server/restapi"
)

// statusOf is a status that finds one node overutilized, a minute ago.
func statusOf(overutilized string) *rebalance.Status {
	nodes := []planner.NodeLoad{{Name: overutilized, CPU: 0.9, Overutilized: true}}
	return &rebalance.Status{Time: time.Now().Add(-time.Minute), Source: "Measured", Plan: &planner.Plan{
		Moves: []planner.Move{}, Before: planner.Summary{Nodes: nodes}, After: planner.Summary{Nodes: nodes},
	}, Skipped: []rebalance.SkippedNode{{Name: nodeB, Reason: "cordoned"}}, Cooldowns: nil}
}

// fault is a wrong request and what has to be said about it.
type fault struct {
	name, body    string
	code          int
	reason, field string
	words         string
}

func faults(namespace string) []fault {
	body := func(fields string) string { return "{" + fields + "}" }
	named := func(pod, source, target, more string) string {
		return fmt.Sprintf(`{"pod_name":%q,"pod_namespace":%q,"source_node":%q,"target_node":%q%s}`, pod, namespace, source, target, more)
	}
	move := func(more string) string { return named("train", nodeA, nodeB, more) }
	return []fault{
		{"no JSON", "pod", 400, "MalformedBody", "", "no JSON"},
		{"no object", "[]", 400, "MalformedBody", "", "one JSON object"},
		{"two values", move("") + "{}", 400, "MalformedBody", "", "no JSON"},
		{"nothing", "{}", 400, "MissingField", "pod_name", "pod_name is required"},
		{"no pod_name", body(`"pod_namespace":"a","source_node":"b","target_node":"c"`), 400, "MissingField", "pod_name", "required"},
		{"no pod_namespace", body(`"pod_name":"a","source_node":"b","target_node":"c"`), 400, "MissingField", "pod_namespace", "required"},
		{"no source_node", body(`"pod_name":"a","pod_namespace":"b","target_node":"c"`), 400, "MissingField", "source_node", "required"},
		{"no target_node", body(`"pod_name":"a","pod_namespace":"b","source_node":"c"`), 400, "MissingField", "target_node", "required"},
		{"unknown field", move(`,"priority":1`), 400, "UnknownField", "priority", "unknown field"},
		{"name in another case", move(`,"Timeout":1`), 400, "UnknownField", "Timeout", "unknown field"},
		{"field twice", move(`,"timeout":1,"timeout":2`), 400, "InvalidField", "timeout", "duplicate field"},
		{"requested_by is not to be set", move(`,"requested_by":"root"`), 400, "UnknownField", "requested_by", "unknown field"},
		{"pod_name a number", body(`"pod_name":7,"pod_namespace":"a","source_node":"b","target_node":"c"`), 400, "InvalidField", "pod_name", "has to be a string, not a number"},
		{"pod_namespace a list", body(`"pod_name":"a","pod_namespace":["a"],"source_node":"b","target_node":"c"`), 400, "InvalidField", "pod_namespace", "not a array"},
		{"preserve_pv a string", move(`,"preserve_pv":"yes"`), 400, "InvalidField", "preserve_pv", "has to be a boolean, not a string"},
		{"force_restart a number", move(`,"force_restart":1`), 400, "InvalidField", "force_restart", "has to be a boolean"},
		{"timeout a string", move(`,"timeout":"10m"`), 400, "InvalidField", "timeout", "has to be a whole number"},
		{"timeout with a fraction", move(`,"timeout":1.5`), 400, "InvalidField", "timeout", "has to be a whole number"},
		{"timeout negative", move(`,"timeout":-1`), 400, "InvalidField", "timeout", "from 0 to 86400"},
		{"timeout too long", move(`,"timeout":86401`), 400, "InvalidField", "timeout", "from 0 to 86400"},
		{"pod_name no name", named("Train_1", nodeA, nodeB, ""), 400, "InvalidField", "pod_name", "is no name"},
		{"pod_namespace no name", body(`"pod_name":"a","pod_namespace":"a.b","source_node":"b","target_node":"c"`), 400, "InvalidField", "pod_namespace", "is no name"},
		{"source_node no name", named("train", "node a", nodeB, ""), 400, "InvalidField", "source_node", "is no name"},
		{"target_node no name", named("train", nodeA, "-", ""), 400, "InvalidField", "target_node", "is no name"},
		{"target is the source", named("train", nodeA, nodeA, ""), 400, "InvalidField", "target_node", "differ"},
		{"unknown pod", named("ghost", nodeA, nodeB, ""), 404, "PodNotFound", "pod_name", "does not exist"},
		{"source is not where it runs", named("train", "elsewhere", nodeB, ""), 422, "SourceNodeMismatch", "source_node", `is on node "node-a"`},
		{"unknown target", named("train", nodeA, "ghost", ""), 422, "TargetNodeNotFound", "target_node", "node ghost does not exist"},
		{"not movable", named("daemon", nodeA, nodeB, ""), 422, "OwnedByDaemonSet", "pod_name", "DaemonSet agents"},
	}
}

func TestAPINamesTheFieldAtFault(t *testing.T) {
	t.Parallel()
	a, w := startAPI(t, nil, nil), newWorld(t)
	token := operator(t)
	w.createOriginal(threeContainers("train").Obj())
	w.createOriginal(fixture.MakePod("daemon").Node(nodeA).Controller("DaemonSet", "agents").Container("c", fixture.Running()).Obj())
	for _, test := range faults(w.namespace) {
		t.Run(test.name, func(t *testing.T) {
			a := *a
			a.t = t
			got := a.do(request{method: "POST", path: "/api/v1/migrations", body: test.body, token: token, wrong: test.code == 400})
			if e := got.refusal(t, test.code, test.reason, test.field); !strings.Contains(e.Message, test.words) {
				t.Errorf("message %q does not say %q", e.Message, test.words)
			}
		})
	}
	if e := a.do(request{method: "POST", path: "/api/v1/migrations", body: "{}", token: token, wrong: true}).refusal(t, 400, "MissingField", "pod_name"); len(e.Fields) != 4 {
		t.Errorf("all that is wrong: %+v", e.Fields)
	}
	a.do(request{method: "POST", path: "/api/v1/migrations", body: w.move(`,"x":"` + strings.Repeat("x", 1<<20) + `"`), token: token, wrong: true}).
		refusal(t, http.StatusRequestEntityTooLarge, "BodyTooLarge", "")
	a.do(request{method: "POST", path: "/api/v1/migrations", body: w.move(""), token: token, wrong: true, header: map[string]string{"Content-Type": "text/plain"}}).
		refusal(t, http.StatusUnsupportedMediaType, "UnsupportedMediaType", "Content-Type")
}

func TestAPINamesTheParameterAtFault(t *testing.T) {
	t.Parallel()
	a := startAPI(t, nil, nil)
	token := operator(t)
	for path, field := range map[string]string{
		"/api/v1/migrations?phase=Done":                              "phase",
		"/api/v1/migrations?limit=0":                                 "limit",
		"/api/v1/migrations?limit=501":                               "limit",
		"/api/v1/migrations?limit=many":                              "limit",
		"/api/v1/migrations?continue=here":                           "continue",
		"/api/v1/migrations?namespace=A":                             "namespace",
		"/api/v1/migrations?namespace=":                              "namespace",
		"/api/v1/migrations?pod=a&pod=b":                             "pod",
		"/api/v1/migrations?name=a":                                  "name",
		"/api/v1/nodes?namespace=a":                                  "namespace",
		"/api/v1/plan?x=1":                                           "x",
		"/api/v1/metrics?x=1":                                        "x",
		"/api/v1/watch?x=1":                                          "x",
		"/api/v1/migrations/7":                                       "id",
		"/api/v1/migrations/00000000-0000-4000-8000-000000000000?x=": "x",
	} {
		var body restapi.ErrorBody
		got := a.do(request{method: "GET", path: path, token: token, wrong: true})
		if got.into(t, http.StatusBadRequest, &body); body.Error.Field != field {
			t.Errorf("GET %s: %+v, want field %s", path, body.Error, field)
		}
	}
	a.do(request{method: "GET", path: "/api/v1/nothing", token: token, wrong: true}).refusal(t, http.StatusNotFound, "NotFound", "")
	if got := a.do(request{method: "PUT", path: "/api/v1/nodes", token: token, wrong: true}); got.header.Get("Allow") == "" {
		t.Errorf("PUT answered with %v", got.header)
	} else {
		got.refusal(t, http.StatusMethodNotAllowed, "MethodNotAllowed", "")
	}
}

func TestAPIAsksWhoCalls(t *testing.T) {
	t.Parallel()
	a, w := startAPI(t, nil, nil), newWorld(t)
	w.createOriginal(threeContainers("train").Obj())
	m := w.request(newMigration(w.namespace, "m", "another"))
	nobody, _ := account(t, "nobody", "")
	local, _ := account(t, "local", w.namespace, "*")
	reader, _ := account(t, "reader", "", "get", "list")
	one := "/api/v1/migrations/" + string(m.UID)
	post := request{method: "POST", path: "/api/v1/migrations", body: w.move("")}
	requests := []request{
		post, {method: "DELETE", path: one}, {method: "GET", path: one}, {method: "GET", path: "/api/v1/migrations"},
		{method: "GET", path: "/api/v1/plan"}, {method: "GET", path: "/api/v1/nodes"}, {method: "GET", path: "/api/v1/metrics"}, {method: "GET", path: "/api/v1/watch"},
	}
	as := func(r request, token string) answer { r.token = token; return a.do(r) }
	for _, r := range requests {
		for _, token := range []string{"", "not-a-token"} {
			if got := as(r, token); got.header.Get("WWW-Authenticate") == "" {
				t.Errorf("%s %s: %v", r.method, r.path, got.header)
			} else {
				got.refusal(t, http.StatusUnauthorized, "Unauthorized", "Authorization")
			}
		}
		as(r, nobody).refusal(t, http.StatusForbidden, "Forbidden", "")
	}
	a.seesItsOwn(w, local, one, requests[3:])
	for _, r := range requests[:2] {
		as(r, reader).refusal(t, http.StatusForbidden, "Forbidden", "")
	}
	for _, r := range requests[2:7] {
		if got := as(r, reader); got.code != http.StatusOK {
			t.Errorf("a reader is answered on %s with %d %s", r.path, got.code, got.body)
		}
	}
	if got := as(post, local); got.code != http.StatusAccepted {
		t.Errorf("a POST in the own namespace: %d %s", got.code, got.body)
	}
	for _, path := range []string{"/health", "/readyz", "/openapi.json", "/api/v1/openapi.json"} {
		if got := a.get("", path); got.code != http.StatusOK {
			t.Errorf("%s without a token: %d %s", path, got.code, got.body)
		}
	}
	if n, err := testutil.GatherAndCount(prometheus.Gatherers{a.registry}, "ai_storage_api_requests_total"); err != nil || n == 0 {
		t.Errorf("%d series of ai_storage_api_requests_total: %v", n, err)
	}
}

// seesItsOwn checks what an account with rights in one namespace may look at.
func (a *api) seesItsOwn(w *world, token, one string, everything []request) {
	a.t.Helper()
	for _, r := range everything {
		a.get(token, r.path).refusal(a.t, http.StatusForbidden, "Forbidden", "")
	}
	for _, path := range []string{"/api/v1/migrations?namespace=" + w.namespace, "/api/v1/metrics?namespace=" + w.namespace, one} {
		if got := a.get(token, path); got.code != http.StatusOK {
			a.t.Errorf("%s in the own namespace: %d %s", path, got.code, got.body)
		}
	}
}

func TestAPILimitsEachCaller(t *testing.T) {
	t.Parallel()
	a := startAPI(t, nil, func(o *restapi.Options) { o.Rate, o.Burst = 0.1, 2 })
	first, second := operator(t), operator(t)
	for range 2 {
		if got := a.get(first, "/api/v1/metrics"); got.code != http.StatusOK {
			t.Errorf("within the limit: %d %s", got.code, got.body)
		}
	}
	limited := a.get(first, "/api/v1/metrics")
	limited.refusal(t, http.StatusTooManyRequests, "TooManyRequests", "")
	if after := limited.header.Get("Retry-After"); after != "10" {
		t.Errorf("Retry-After is %q, want 10", after)
	}
	if got := a.get(second, "/api/v1/metrics"); got.code != http.StatusOK {
		t.Errorf("another caller: %d %s", got.code, got.body)
	}
}
