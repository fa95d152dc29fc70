package tracing

import (
	"context"
	"fmt"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"k8s.io/klog/v2"
)

// Start sends the traces of a service from now on, as the file says; without a
// file none are sent. The connection is not encrypted, as those of Kubernetes' own
// traces are not: the collector is meant to be near. stop sends what is left, and ends
// it. The error says what is wrong in the file.
func Start(ctx context.Context, path, service string) (stop func(context.Context) error, err error) {
	if path == "" {
		return func(context.Context) error { return nil }, nil
	}
	c, err := Load(path)
	if err != nil {
		return nil, err
	}
	options := []otlptracegrpc.Option{otlptracegrpc.WithInsecure()}
	if c.Endpoint != nil {
		options = append(options, otlptracegrpc.WithEndpoint(*c.Endpoint))
	}
	// It connects in the background: a collector that is away stops nothing.
	exporter, err := otlptracegrpc.New(ctx, options...)
	if err != nil {
		return nil, fmt.Errorf("setting up traces: %w", err)
	}
	ratio := 0.0
	if c.SamplingRatePerMillion != nil {
		ratio = float64(*c.SamplingRatePerMillion) / 1e6
	}
	provider := NewProvider(service, ratio, sdktrace.NewBatchSpanProcessor(exporter))
	logger := klog.FromContext(ctx).WithName("tracing")
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { logger.Error(err, "Traces are lost") }))
	otel.SetTracerProvider(provider)
	return provider.Shutdown, nil
}

// NewProvider creates spans of a service and hands them to a processor. ratio is
// the share of traces that are kept, 0 to 1: by the ID of the trace, so that all
// who add to one agree.
func NewProvider(service string, ratio float64, processor sdktrace.SpanProcessor) *sdktrace.TracerProvider {
	return sdktrace.NewTracerProvider(
		sdktrace.WithSampler(sdktrace.TraceIDRatioBased(ratio)),
		sdktrace.WithIDGenerator(identities{}),
		sdktrace.WithResource(resource.NewSchemaless(attribute.String("service.name", service))),
		sdktrace.WithSpanProcessor(processor),
	)
}
