package migration

import (
	"context"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/tracing"
)

const tracerName = "github.com/ai-storage/orchestrator/pkg/controllers/migration"

// traceChange makes the span of a phase that was left and, at the end, that of the
// whole migration. Both come from the times that were written down, so nothing has
// to be remembered: a controller that was restarted continues the trace.
func traceChange(ctx context.Context, before, after *v1alpha1.PodMigration) {
	from, to := before.CurrentPhase(), after.CurrentPhase()
	if from == to {
		return
	}
	tracer := otel.Tracer(tracerName)
	if entered, left := before.PhaseSince(), after.PhaseSince(); !entered.IsZero() && !left.IsZero() {
		_, span := tracer.Start(tracing.Below(ctx, after.UID), string(from), trace.WithTimestamp(entered), trace.WithAttributes(attributesOf(after)...))
		span.End(trace.WithTimestamp(latest(entered, left)))
	}
	if !to.IsFinished() {
		return
	}
	created := after.CreationTimestamp.Time
	_, span := tracer.Start(tracing.Root(ctx, after.UID), "PodMigration", trace.WithNewRoot(),
		trace.WithTimestamp(created), trace.WithAttributes(attributesOf(after)...))
	span.SetAttributes(attribute.String("migration.result", string(to)), attribute.String("migration.reason", finalReason(after)))
	if after.Status.Downtime != nil {
		span.SetAttributes(attribute.Float64("migration.downtime_seconds", after.Status.Downtime.Seconds()))
	}
	if to == v1alpha1.PhaseFailed {
		span.SetStatus(codes.Error, after.Status.Message)
	}
	addSteps(span, after.Status.Times)
	span.End(trace.WithTimestamp(latest(created, after.PhaseSince())))
}

// addSteps marks the moments that are no phases.
func addSteps(span trace.Span, t v1alpha1.StepTimes) {
	for _, step := range []struct {
		name string
		at   *metav1.MicroTime
	}{
		{"Copied", t.Copied}, {"Placed", t.Placed}, {"Stopped", t.Stopped}, {"Sealed", t.Sealed},
		{"Released", t.Released}, {"ReplacementReady", t.ReplacementReady}, {"OriginalGone", t.OriginalGone},
	} {
		if step.at != nil {
			span.AddEvent(step.name, trace.WithTimestamp(step.at.Time))
		}
	}
}

func attributesOf(m *v1alpha1.PodMigration) []attribute.KeyValue {
	attributes := []attribute.KeyValue{
		attribute.String("k8s.namespace.name", m.Namespace),
		attribute.String("k8s.pod.name", m.Spec.PodName),
		attribute.String("migration.name", m.Name),
		attribute.String("migration.uid", string(m.UID)),
	}
	if original := m.Status.Original; original != nil {
		attributes = append(attributes, attribute.String("migration.source_node", original.NodeName))
	}
	if replacement := m.Status.Replacement; replacement != nil && replacement.NodeName != "" {
		attributes = append(attributes, attribute.String("migration.destination_node", replacement.NodeName))
	}
	return attributes
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
