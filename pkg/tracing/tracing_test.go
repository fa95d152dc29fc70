package tracing_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/trace"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ai-storage/orchestrator/internal/collector"
	"github.com/ai-storage/orchestrator/pkg/tracing"
)

func file(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tracing.yaml")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const head = "apiVersion: apiserver.config.k8s.io/v1\nkind: TracingConfiguration\n"

func TestLoad(t *testing.T) {
	c, err := tracing.Load(file(t, head+"endpoint: collector:4317\nsamplingRatePerMillion: 100\n"))
	if err != nil || *c.Endpoint != "collector:4317" || *c.SamplingRatePerMillion != 100 {
		t.Errorf("%+v, %v", c, err)
	}
	for name, test := range map[string]struct{ content, want string }{
		"unknown field": {head + "endpoints: a:1\n", "endpoints"},
		"rate":          {head + "samplingRatePerMillion: 1000001\n", "samplingRatePerMillion"},
		"endpoint":      {head + "endpoint: https://collector:4317\n", "endpoint"},
		"another kind":  {"apiVersion: apiserver.config.k8s.io/v1\nkind: EgressSelectorConfiguration\n", "want a TracingConfiguration"},
		"no version":    {"kind: TracingConfiguration\n", "want a TracingConfiguration"},
	} {
		if _, err := tracing.Load(file(t, test.content)); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want an error about %q", name, err, test.want)
		}
	}
}

func TestWithoutAFileThereAreNoTraces(t *testing.T) {
	stop, err := tracing.Start(t.Context(), "", "test")
	if err != nil {
		t.Fatal(err)
	}
	if _, span := otel.Tracer("test").Start(t.Context(), "x"); span.IsRecording() {
		t.Error("a span is recorded")
	}
	if err := stop(t.Context()); err != nil {
		t.Error(err)
	}
}

// Two processes add to one trace: the second knows only the UID.
func TestOneTraceOfTwoProcesses(t *testing.T) {
	received := collector.Start(t)
	path := file(t, head+"endpoint: "+received.Address+"\nsamplingRatePerMillion: 1000000\n")
	for _, phase := range []string{"Preparing", "Placing"} {
		stop, err := tracing.Start(t.Context(), path, "rebalancer")
		if err != nil {
			t.Fatal(err)
		}
		_, span := otel.Tracer("test").Start(tracing.Below(t.Context(), "uid"), phase)
		span.End()
		if phase == "Placing" {
			_, root := otel.Tracer("test").Start(tracing.Root(t.Context(), "uid"), "PodMigration", trace.WithNewRoot())
			root.End()
			_, other := otel.Tracer("test").Start(t.Context(), "Rebalance")
			other.End()
		}
		if err := stop(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	spans := received.Trace(tracing.TraceID("uid"))
	root := spans["PodMigration"]
	if root == nil || len(root.ParentSpanId) != 0 || len(spans) != 3 {
		t.Fatalf("spans %v, want a root and two phases", spans)
	}
	for _, phase := range []string{"Preparing", "Placing"} {
		if string(spans[phase].ParentSpanId) != string(root.SpanId) {
			t.Errorf("%s is not below the root", phase)
		}
	}
	if all := received.Spans(); len(all) != 4 {
		t.Errorf("%d spans, want that of the cycle too, in a trace of its own", len(all))
	}
}

// All who add to a trace agree on whether it is kept.
func TestSamplingIsByTheTrace(t *testing.T) {
	kept := 0
	provider := tracing.NewProvider("test", 0.5, collector.Nowhere{})
	for i := range 200 {
		uid := types.UID(fmt.Sprintf("uid-%d", i))
		_, root := provider.Tracer("test").Start(tracing.Root(t.Context(), uid), "root", trace.WithNewRoot())
		_, phase := provider.Tracer("test").Start(tracing.Below(t.Context(), uid), "phase")
		if root.IsRecording() != phase.IsRecording() {
			t.Fatalf("%s: root is kept: %t, phase: %t", uid, root.IsRecording(), phase.IsRecording())
		}
		if root.IsRecording() {
			kept++
		}
	}
	if kept < 60 || kept > 140 {
		t.Errorf("%d of 200 traces kept, want about half", kept)
	}
}

// A collector that is away costs nothing but the traces.
func TestACollectorThatIsAway(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	listener.Close()
	started := time.Now()
	if _, err := tracing.Start(t.Context(), file(t, head+"endpoint: "+address+"\nsamplingRatePerMillion: 1000000\n"), "test"); err != nil {
		t.Fatal(err)
	}
	_, span := otel.Tracer("test").Start(t.Context(), "x")
	span.End()
	if took := time.Since(started); took > 2*time.Second {
		t.Errorf("it took %v", took)
	}
}
