package migration

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/tracing"
)

// One trace for a migration, whose spans last as long as its phases did. Each
// change is traced by itself, as controllers that took over from each other would.
func TestTheTraceOfAMigration(t *testing.T) {
	recorder := tracetest.NewSpanRecorder()
	otel.SetTracerProvider(tracing.NewProvider("test", 1, recorder))
	t.Cleanup(func() { otel.SetTracerProvider(noop.NewTracerProvider()) })

	failed := in(v1alpha1.PhaseHandingOver)
	failed.Status.Phase, failed.Status.Message, failed.Status.Times.Finished = v1alpha1.PhaseFailed, "no luck", ago(0)
	scenes := []*v1alpha1.PodMigration{
		in(""), in(v1alpha1.PhasePending), in(v1alpha1.PhasePreparing),
		in(v1alpha1.PhasePlacing), in(v1alpha1.PhasePlacing), in(v1alpha1.PhaseHandingOver), failed,
	}
	for i := range scenes[1:] {
		traceChange(t.Context(), scenes[i], scenes[i+1])
	}
	got := map[string]time.Duration{}
	for _, span := range recorder.Ended() {
		got[span.Name()] = span.EndTime().Sub(span.StartTime())
		if span.SpanContext().TraceID() != tracing.TraceID(failed.UID) {
			t.Errorf("%s is in another trace", span.Name())
		}
	}
	want := map[string]time.Duration{
		"Pending": 10 * time.Second, "Preparing": 10 * time.Second, "Placing": 20 * time.Second, "HandingOver": 20 * time.Second, "PodMigration": time.Minute,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("spans (-want +got):\n%s", diff)
	}
	root := recorder.Ended()[len(recorder.Ended())-1]
	if root.Parent().IsValid() || root.Status().Description != "no luck" {
		t.Errorf("the root has parent %v and status %+v", root.Parent(), root.Status())
	}
	wantBelow(t, recorder.Ended(), root)
}

func wantBelow(t *testing.T, spans []sdktrace.ReadOnlySpan, root sdktrace.ReadOnlySpan) {
	t.Helper()
	if len(spans) != 5 {
		t.Errorf("%d spans, want each once", len(spans))
	}
	for _, span := range spans {
		if span != root && span.Parent().SpanID() != root.SpanContext().SpanID() {
			t.Errorf("%s is not below the root", span.Name())
		}
	}
}
