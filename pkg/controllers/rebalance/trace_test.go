package rebalance

import (
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace/noop"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/ai-storage/orchestrator/pkg/tracing"
)

// Each cycle is a trace of its own: it observes, plans, and acts on each move.
func TestTheTraceOfACycle(t *testing.T) {
	recorder := tracetest.NewSpanRecorder()
	otel.SetTracerProvider(tracing.NewProvider("test", 1, recorder))
	t.Cleanup(func() { otel.SetTracerProvider(noop.NewTracerProvider()) })
	w := newWorld(t, 7)
	loop := newLoop(t, w, clocktesting.NewFakeClock(noon))
	must(t, loop.cycle(t.Context()))
	must(t, loop.cycle(t.Context()))

	traces := map[string][]sdktrace.ReadOnlySpan{}
	for _, span := range recorder.Ended() {
		id := span.SpanContext().TraceID().String()
		traces[id] = append(traces[id], span)
	}
	if len(traces) != 2 {
		t.Errorf("%d traces of two cycles", len(traces))
	}
	acts := 0
	for _, spans := range traces {
		root := spans[len(spans)-1]
		count := map[string]int{}
		for _, span := range spans {
			count[span.Name()]++
			if span != root && span.Parent().SpanID() != root.SpanContext().SpanID() {
				t.Errorf("%s is not below %s", span.Name(), root.Name())
			}
		}
		acts += count["Act"]
		delete(count, "Act")
		if diff := cmp.Diff([]string{"Observe", "Plan", "Rebalance"}, slices.Sorted(maps.Keys(count))); diff != "" || root.Name() != "Rebalance" {
			t.Errorf("spans below %s (-want +got):\n%s", root.Name(), diff)
		}
	}
	if acts != len(migrations(t, w)) || acts == 0 {
		t.Errorf("%d acts are traced, %d migrations were created", acts, len(migrations(t, w)))
	}
}
