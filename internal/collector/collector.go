// Package collector receives traces as an OpenTelemetry collector does, by OTLP
// over gRPC, and keeps them for a test to look at.
package collector

import (
	"context"
	"net"
	"slices"
	"sync"
	"testing"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
)

// Collector has received spans.
type Collector struct {
	collectorpb.UnimplementedTraceServiceServer
	// Address is host:port on loopback.
	Address string

	mu    sync.Mutex
	spans []*tracepb.Span
}

// Start listens until the test ends.
func Start(t testing.TB) *Collector {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &Collector{Address: listener.Addr().String()}
	server := grpc.NewServer()
	collectorpb.RegisterTraceServiceServer(server, c)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	return c
}

// Export implements the service.
func (c *Collector) Export(_ context.Context, request *collectorpb.ExportTraceServiceRequest) (*collectorpb.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, resource := range request.ResourceSpans {
		for _, scope := range resource.ScopeSpans {
			c.spans = append(c.spans, scope.Spans...)
		}
	}
	return &collectorpb.ExportTraceServiceResponse{}, nil
}

// Spans received so far.
func (c *Collector) Spans() []*tracepb.Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.spans)
}

// Trace returns the spans of one trace by name.
func (c *Collector) Trace(id trace.TraceID) map[string]*tracepb.Span {
	named := map[string]*tracepb.Span{}
	for _, span := range c.Spans() {
		if trace.TraceID(span.TraceId) == id {
			named[span.Name] = span
		}
	}
	return named
}

// Nowhere is a span processor that drops all.
type Nowhere struct{}

func (Nowhere) OnStart(context.Context, sdktrace.ReadWriteSpan) {}
func (Nowhere) OnEnd(sdktrace.ReadOnlySpan)                     {}
func (Nowhere) Shutdown(context.Context) error                  { return nil }
func (Nowhere) ForceFlush(context.Context) error                { return nil }
