package observe

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ai-storage/orchestrator/pkg/scheduling/cluster"
)

// server answers range queries like Prometheus: query to the figure at each
// moment, by labels.
type server struct {
	t       *testing.T
	answers map[string]func(at time.Time) map[string]float64
	down    bool
	spans   [][2]time.Time
	token   string
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.down {
		http.Error(w, "down", http.StatusBadGateway)
		return
	}
	s.token = r.Header.Get("Authorization")
	moment := func(name string) time.Time {
		seconds, err := strconv.ParseFloat(r.FormValue(name), 64)
		if err != nil {
			s.t.Errorf("%s is %q", name, r.FormValue(name))
		}
		return time.Unix(int64(seconds), 0)
	}
	step, _ := strconv.ParseFloat(r.FormValue("step"), 64)
	start, end := moment("start"), moment("end")
	s.spans = append(s.spans, [2]time.Time{start, end})
	answer, known := s.answers[r.FormValue("query")]
	if !known {
		s.t.Errorf("unknown query %s", r.FormValue("query"))
		http.Error(w, "unknown query", http.StatusBadRequest)
		return
	}
	series := map[string][]any{}
	for at := start; !at.After(end); at = at.Add(time.Duration(step) * time.Second) {
		for labels, figure := range answer(at) {
			series[labels] = append(series[labels], []any{at.Unix(), fmt.Sprint(figure)})
		}
	}
	result := []any{}
	for labels, values := range series {
		result = append(result, map[string]any{"metric": json.RawMessage(labels), "values": values})
	}
	if err := json.NewEncoder(w).Encode(map[string]any{"status": "success", "data": map[string]any{"resultType": "matrix", "result": result}}); err != nil {
		s.t.Error(err)
	}
}

func newTestPrometheus(t *testing.T, tokenFile string) (*Prometheus, *server) {
	t.Helper()
	const node, pod = `{"node":"n1"}`, `{"namespace":"ns","pod":"p"}`
	figure := func(labels string, figure float64) func(time.Time) map[string]float64 {
		return func(time.Time) map[string]float64 { return map[string]float64{labels: figure} }
	}
	s := &server{t: t, answers: map[string]func(time.Time) map[string]float64{
		"node-cpu[2m]": func(at time.Time) map[string]float64 {
			return map[string]float64{node: float64(at.Unix()-now.Unix()) / 1000, `{"node":"half"}`: 1, `{"node":"odd"}`: math.NaN()}
		},
		"node-memory": func(time.Time) map[string]float64 { return map[string]float64{node: 4096, `{"node":"odd"}`: 1} },
		"pod-cpu[2m]": figure(pod, 0.25),
		"pod-memory":  figure(pod, 1024),
	}}
	http := httptest.NewServer(s)
	t.Cleanup(http.Close)
	prometheus, err := NewPrometheus(PrometheusOptions{URL: http.URL, BearerTokenFile: tokenFile, NodeCPU: "node-cpu[$range]", NodeMemory: "node-memory",
		PodCPU: "pod-cpu[$range]", PodMemory: "pod-memory", Range: 2 * time.Minute, Window: 5 * time.Minute, Step: 30 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	return prometheus, s
}

func TestPrometheusRefillsAndThenGoesOn(t *testing.T) {
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	prometheus, s := newTestPrometheus(t, token)
	for _, tt := range []struct {
		at      time.Duration
		down    bool
		samples int
	}{
		{10*time.Minute + 7*time.Second, false, 11}, // the whole window
		{10*time.Minute + 37*time.Second, false, 1},
		{10*time.Minute + 50*time.Second, false, 0}, // nothing new
		{11 * time.Minute, true, 0},
		{11*time.Minute + 30*time.Second, false, 2}, // and what was missed
	} {
		s.down = tt.down
		observation := &Observation{At: now.Add(tt.at)}
		prometheus.Read(t.Context(), observation)
		if len(observation.NodeMetrics) != tt.samples || len(observation.PodMetrics) != tt.samples {
			t.Errorf("at %s: %d samples of the node and %d of the pod, want %d", tt.at, len(observation.NodeMetrics), len(observation.PodMetrics), tt.samples)
		}
		for _, m := range observation.NodeMetrics {
			if want := m.Timestamp.Sub(now).Milliseconds() / 1000; m.Name != "n1" || m.Usage.Cpu().MilliValue() != want || m.Usage.Memory().Value() != 4096 || m.Window.Duration != 2*time.Minute {
				t.Errorf("node %s at %s: %v over %s", m.Name, m.Timestamp, m.Usage, m.Window.Duration)
			}
		}
		for _, m := range observation.PodMetrics {
			if m.Namespace != "ns" || m.Name != "p" || m.Containers[0].Usage.Cpu().MilliValue() != 250 {
				t.Errorf("pod %s/%s: %v", m.Namespace, m.Name, m.Containers)
			}
		}
		if observation.Source == cluster.SourceRequests {
			t.Error("requests are to stand in, though there is a Prometheus")
		}
	}
	if s.token != "Bearer secret" {
		t.Errorf("the token sent along is %q", s.token)
	}
	for _, span := range s.spans {
		if span[0].Unix()%30 != 0 || span[1].Unix()%30 != 0 {
			t.Errorf("a query asks from %s to %s: two rebalancers would not ask for the same moments", span[0], span[1])
		}
	}
}

func TestPrometheusRefusesAnswersWithoutLabels(t *testing.T) {
	prometheus, s := newTestPrometheus(t, "")
	s.answers["node-cpu[2m]"] = func(time.Time) map[string]float64 { return map[string]float64{`{"instance":"n1:10250"}`: 1} }
	observation := &Observation{At: now}
	if prometheus.Read(t.Context(), observation); len(observation.NodeMetrics)+len(observation.PodMetrics) != 0 {
		t.Errorf("measurements of nobody knows what: %v", observation.NodeMetrics)
	}
}

func TestNewPrometheusNamesTheField(t *testing.T) {
	for field, options := range map[string]PrometheusOptions{
		"bearerTokenFile": {URL: "http://p", BearerTokenFile: filepath.Join(t.TempDir(), "none")},
		"url":             {URL: "http://p\x00"},
	} {
		if _, err := NewPrometheus(options); err == nil || !strings.Contains(err.Error(), "signals.prometheus."+field) {
			t.Errorf("error %v, want one that names %s", err, field)
		}
	}
}
