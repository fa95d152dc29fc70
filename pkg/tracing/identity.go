package tracing

import (
	"context"
	"crypto/rand"
	"crypto/sha256"

	"go.opentelemetry.io/otel/trace"
	"k8s.io/apimachinery/pkg/types"
)

// rootKey is where a context carries the migration whose root span is begun.
type rootKey struct{}

// Root makes the next span that is begun in the context the root of a migration's
// trace, when it is begun with trace.WithNewRoot.
func Root(ctx context.Context, migration types.UID) context.Context {
	return context.WithValue(ctx, rootKey{}, migration)
}

// Below makes the spans that are begun in the context children of the root of a
// migration's trace, whoever sends that.
func Below(ctx context.Context, migration types.UID) context.Context {
	traceID, spanID := identityOf(migration)
	return trace.ContextWithRemoteSpanContext(ctx, trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: traceID, SpanID: spanID, TraceFlags: trace.FlagsSampled, Remote: true,
	}))
}

// TraceID of a migration.
func TraceID(migration types.UID) trace.TraceID {
	id, _ := identityOf(migration)
	return id
}

// identityOf hashes: sampling looks at bits that a UUID does not choose freely.
func identityOf(migration types.UID) (traceID trace.TraceID, spanID trace.SpanID) {
	sum := sha256.Sum256([]byte(migration))
	copy(traceID[:], sum[:16])
	copy(spanID[:], sum[16:24])
	return traceID, spanID
}

// identities gives the roots of migrations their own IDs, and others any.
type identities struct{}

// NewIDs implements sdktrace.IDGenerator, for a root span.
func (i identities) NewIDs(ctx context.Context) (trace.TraceID, trace.SpanID) {
	if migration, ok := ctx.Value(rootKey{}).(types.UID); ok {
		return identityOf(migration)
	}
	var traceID trace.TraceID
	_, _ = rand.Read(traceID[:]) // never fails
	return traceID, i.NewSpanID(ctx, traceID)
}

// NewSpanID implements sdktrace.IDGenerator.
func (identities) NewSpanID(context.Context, trace.TraceID) (id trace.SpanID) {
	_, _ = rand.Read(id[:]) // never fails
	return id
}
