// Command metricsdoc prints docs/metrics.md: every metric that our programs
// register themselves, by program. `make generate` writes it.
package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/component-base/metrics"

	"github.com/ai-storage/orchestrator/pkg/controllers/migration"
	"github.com/ai-storage/orchestrator/pkg/controllers/rebalance"
	"github.com/ai-storage/orchestrator/pkg/controllers/reclaim"
	"github.com/ai-storage/orchestrator/pkg/node/agent"
	"github.com/ai-storage/orchestrator/pkg/scheduling/plugins/checkpointvolume"
	"github.com/ai-storage/orchestrator/pkg/server/admission"
	"github.com/ai-storage/orchestrator/pkg/server/restapi"
)

const preamble = `# Metrics

Written by ` + "`make generate`" + ` from what the programs register. Each serves ` + "`/metrics`" + ` over HTTPS, to those who may ` + "`get`" + ` the non-resource URL
` + "`/metrics`" + `: bind Prometheus' service account to the ClusterRole ` + "`ai-storage-metrics-reader`" + `.

    kubectl create clusterrolebinding prometheus-reads-ai-storage --clusterrole=ai-storage-metrics-reader --serviceaccount=monitoring:prometheus-k8s

The chart's values ` + "`serviceMonitor.enabled`, `prometheusRule.enabled` and `dashboard.enabled`" + `, or ` + "`manifests/components/monitoring` and `manifests/components/dashboard`" + `
of kustomize, bring the scraping, the alerts ([runbook](runbook.md)) and a Grafana dashboard. [Traces](tracing.md) are apart.

All units are base units: seconds, bytes, cores. Counters count since their process started, and each replica counts what it did: take sums of
` + "`rate`" + ` or ` + "`increase`" + `. Only the leader reports the gauges of the loop, the other replicas report 0: aggregate them with ` + "`max`" + `.
`

// program is what one of our binaries registers.
type program struct {
	title, about string
	register     func(*recorder)
}

var programs = []program{
	{"Rebalancer", "Port `metrics` (8080) of the Service `ai-storage-rebalancer`; besides, controller-runtime's and Go's own.", func(r *recorder) {
		migration.NewMetrics(r, nil)
		rebalance.NewMetrics(r)
		reclaim.NewMetrics(r)
		admission.NewMetrics(r)
		restapi.NewMetrics(r)
	}},
	{"Scheduler", "Port `metrics` (10259) of the Service `ai-storage-scheduler`; besides, all those of kube-scheduler.", func(r *recorder) {
		registry := metrics.NewKubeRegistry()
		registry.MustRegister(checkpointvolume.Metrics...)
		for _, metric := range checkpointvolume.Metrics {
			r.MustRegister(metric)
		}
	}},
	{"Node agent", "Port 10270 of each node; besides, controller-runtime's and Go's own.", func(r *recorder) {
		none := func() float64 { return 0 }
		agent.NewMetrics(r, none, none)
	}},
}

func main() {
	if err := write(os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "metricsdoc:", err)
		os.Exit(1)
	}
}

func write(w io.Writer) error {
	var out strings.Builder
	out.WriteString(preamble)
	for _, p := range programs {
		r := &recorder{families: map[string]*family{}}
		p.register(r)
		if r.err != nil {
			return fmt.Errorf("metrics of the %s: %w", p.title, r.err)
		}
		fmt.Fprintf(&out, "\n## %s\n\n%s\n\n| name | type | labels | meaning |\n|---|---|---|---|\n", p.title, p.about)
		for _, f := range r.sorted() {
			labels := "–"
			if len(f.labels) > 0 {
				labels = "`" + strings.Join(f.labels, "`, `") + "`"
			}
			fmt.Fprintf(&out, "| `%s` | %s | %s | %s |\n", f.name, f.kind, labels, strings.ReplaceAll(f.help, "|", "\\|"))
		}
	}
	_, err := io.WriteString(w, out.String())
	return err
}

var _ prometheus.Registerer = (*recorder)(nil)

func (r *recorder) sorted() []*family {
	var all []*family
	for _, f := range r.families {
		all = append(all, f)
	}
	slices.SortFunc(all, func(a, b *family) int { return strings.Compare(a.name, b.name) })
	return all
}
