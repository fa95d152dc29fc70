// Package alerts tries the alerts, the dashboard and the runbook with Prometheus'
// own rule engine and parser. It is a module of its own: nothing that is shipped
// needs Prometheus.
package alerts
