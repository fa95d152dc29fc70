// Package tracing sends traces by OpenTelemetry's protocol (OTLP over gRPC), if
// somebody asks for it. It knows how a migration's trace is found again: its ID
// follows from the UID of the PodMigration, so that a controller that was started
// anew, and the agents of two nodes, add to the same one. It must not decide what
// is traced: the rooms do, through the global tracer provider.
package tracing
