// Package tracing sends traces by OpenTelemetry's protocol (OTLP over gRPC), if
// they are turned on. It knows how a migration's trace is found again: its ID
// follows from the UID of the PodMigration, so that a controller that was
// restarted, and the agents of two nodes, add to the same one. It must not decide what
// is traced: other packages do, through the global tracer provider.
package tracing
