package alerts

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
)

const root = "../.."

func read(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// shipped are the alerts of the chart, as Prometheus reads them.
func shipped(t *testing.T) []rulefmt.Rule {
	t.Helper()
	groups, errs := rulefmt.Parse([]byte(read(t, "manifests/chart/ai-storage-orchestrator/files/alerts.yaml")), false)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	var rules []rulefmt.Rule
	for _, group := range groups.Groups {
		rules = append(rules, group.Rules...)
	}
	if len(rules) < 10 {
		t.Fatalf("%d alerts", len(rules))
	}
	return rules
}

// documented are the names of all metrics that our programs register, each with
// its type: docs/metrics.md is generated from them.
func documented(t *testing.T) map[string]string {
	t.Helper()
	row := regexp.MustCompile("(?m)^\\| `(ai_storage_[a-z_]+)` \\| (counter|gauge|histogram) \\|")
	known := map[string]string{"up": "gauge"}
	for _, match := range row.FindAllStringSubmatch(read(t, "docs/metrics.md"), -1) {
		known[match[1]] = match[2]
	}
	if len(known) < 20 {
		t.Fatalf("docs/metrics.md lists %d metrics", len(known))
	}
	return known
}

// wantRegistered parses a query, and finds every metric in it.
func wantRegistered(t *testing.T, where, query string, known map[string]string) {
	t.Helper()
	expr, err := parser.ParseExpr(strings.ReplaceAll(query, "$__rate_interval", "5m"))
	if err != nil {
		t.Errorf("%s: %v", where, err)
		return
	}
	selectors := parser.ExtractSelectors(expr)
	if len(selectors) == 0 {
		t.Errorf("%s reads no metric: %s", where, query)
	}
	for _, matchers := range selectors {
		for _, matcher := range matchers {
			if matcher.Name == labels.MetricName && !isRegistered(matcher.Value, known) {
				t.Errorf("%s: no program registers %s", where, matcher.Value)
			}
		}
	}
}

func isRegistered(name string, known map[string]string) bool {
	for _, suffix := range []string{"_bucket", "_sum", "_count"} {
		if base, found := strings.CutSuffix(name, suffix); found && known[base] == "histogram" {
			return true
		}
	}
	return known[name] != "" && known[name] != "histogram"
}

func TestAlertsReadRegisteredMetrics(t *testing.T) {
	known := documented(t)
	for _, rule := range shipped(t) {
		wantRegistered(t, rule.Alert, rule.Expr, known)
	}
	for _, wrong := range []string{"ai_storage_made_up_total", "ai_storage_migration_downtime_seconds", "ai_storage_migration_finished_total_sum"} {
		if isRegistered(wrong, known) {
			t.Errorf("%s is taken for a registered metric", wrong)
		}
	}
}

func TestTheDashboardReadsRegisteredMetrics(t *testing.T) {
	var dashboard struct {
		Panels []struct {
			ID      int
			Title   string
			Targets []struct{ Expr string }
			GridPos struct{ X, Y, W, H int }
		}
	}
	if err := json.Unmarshal([]byte(read(t, "manifests/chart/ai-storage-orchestrator/files/dashboard.json")), &dashboard); err != nil {
		t.Fatal(err)
	}
	known, ids, places := documented(t), map[int]bool{}, map[[2]int]string{}
	for _, panel := range dashboard.Panels {
		place := [2]int{panel.GridPos.X, panel.GridPos.Y}
		if ids[panel.ID] || places[place] != "" || panel.GridPos.X+panel.GridPos.W > 24 || len(panel.Targets) == 0 {
			t.Errorf("panel %q: its id or place is not its own, or it shows nothing", panel.Title)
		}
		ids[panel.ID], places[place] = true, panel.Title
		for _, target := range panel.Targets {
			wantRegistered(t, "panel "+panel.Title, target.Expr, known)
		}
	}
	if len(ids) == 0 {
		t.Error("no panels")
	}
}

// Every alert says what it means, and leads to its own section of the runbook,
// which tells where to look and what to do; and there is no section without one.
func TestEveryAlertHasItsSection(t *testing.T) {
	sections := map[string]string{}
	for _, part := range strings.Split(read(t, "docs/runbook.md"), "\n## ")[1:] {
		title, text, _ := strings.Cut(part, "\n")
		sections[title] = text
	}
	for _, rule := range shipped(t) {
		for _, annotation := range []string{"summary", "description", "runbook_url"} {
			if rule.Annotations[annotation] == "" {
				t.Errorf("%s has no %s", rule.Alert, annotation)
			}
		}
		if want := "/docs/runbook.md#" + strings.ToLower(rule.Alert); !strings.HasSuffix(rule.Annotations["runbook_url"], want) {
			t.Errorf("%s leads to %s, want …%s", rule.Alert, rule.Annotations["runbook_url"], want)
		}
		if severity := rule.Labels["severity"]; severity != "info" && severity != "warning" && severity != "critical" {
			t.Errorf("%s is of severity %q", rule.Alert, severity)
		}
		text, found := sections[rule.Alert]
		delete(sections, rule.Alert)
		for _, part := range []string{"**Meaning.**", "**Diagnosis.**", "**Mitigation.**", "\n    kubectl "} {
			if !found || !strings.Contains(text, part) {
				t.Errorf("docs/runbook.md: the section %s lacks %q", rule.Alert, part)
			}
		}
	}
	delete(sections, "Before")
	for title := range sections {
		t.Errorf("docs/runbook.md has a section %q of no alert", title)
	}
}
