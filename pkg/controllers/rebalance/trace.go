package rebalance

import (
	"context"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// startSpan begins a part of a cycle, whose trace each cycle begins anew.
func startSpan(ctx context.Context, name string) (context.Context, trace.Span) {
	return otel.Tracer("github.com/ai-storage/orchestrator/pkg/controllers/rebalance").Start(ctx, name)
}

func endSpan(span trace.Span, err error) {
	if err != nil {
		span.SetStatus(codes.Error, err.Error())
	}
	span.End()
}

// attributesOf are those of a cycle that a user compares.
func attributesOf(status *Status) []attribute.KeyValue {
	return []attribute.KeyValue{
		attribute.Int("plan.moves", status.Moves),
		attribute.Int("plan.allowed_moves", status.allowed),
		attribute.String("plan.held", status.Held),
		attribute.String("plan.source", status.Source),
		attribute.Float64("plan.objective.before", status.Before.Objective),
		attribute.Float64("plan.objective.predicted", status.After.Objective),
	}
}
