package integration

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	coordinationv1 "k8s.io/api/coordination/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// served is one of our programs, and what its metrics must have.
type served struct {
	name string
	// withoutToken is the answer to a request that names nobody.
	withoutToken int
	// withBadToken is that to one with a token that nobody issued: the filter of
	// controller-runtime answers every failed TokenReview alike.
	withBadToken int
	// start runs it and returns the address of its metrics.
	start func(t *testing.T) string
	// families are some of its own, and of those that it has besides.
	families []string
}

var allServed = []served{
	{"scheduler", http.StatusForbidden, http.StatusUnauthorized, serveSchedulerMetrics, []string{
		"ai_storage_checkpoint_volume_attach_failures_total", "scheduler_pending_pods", "process_start_time_seconds"}},
	{"rebalancer", http.StatusUnauthorized, http.StatusInternalServerError, serveRebalancerMetrics, []string{
		"ai_storage_migration_in_flight", "ai_storage_migration_downtime_seconds", "ai_storage_rebalance_plan_duration_seconds",
		"ai_storage_reclaim_cpu_cores_total", "rest_client_requests_total", "go_goroutines"}},
	{"node-agent", http.StatusUnauthorized, http.StatusInternalServerError, serveAgentMetrics, []string{
		"ai_storage_node_agent_passes_total", "ai_storage_node_agent_freeze_duration_seconds", "ai_storage_node_agent_frozen_pods", "go_goroutines"}},
}

// Every program shows its metrics to those who may read them, with the rights that
// the manifests give to it, in the format that Prometheus reads.
func TestMetricsAreServed(t *testing.T) {
	applyManifest(t, "manifests/namespace.yaml")
	for _, file := range []string{"scheduler-rbac.yaml", "rebalancer-rbac.yaml", "node-agent-rbac.yaml", "roles.yaml"} {
		applyManifest(t, "manifests/base/"+file)
	}
	reader, stranger := metricsReader(t), ""
	stranger, _ = account(t, "stranger", "", "get")
	known := documentedMetrics(t)
	for _, program := range allServed {
		t.Run(program.name, func(t *testing.T) {
			url := "https://" + program.start(t) + "/metrics"
			eventually(t, time.Minute, func(context.Context) error {
				_, _, err := scrape(t, url, "")
				return err
			})
			for who, test := range map[string]struct {
				token string
				want  int
			}{
				"nobody": {"", program.withoutToken}, "a stranger": {stranger, http.StatusForbidden}, "a made-up token": {"made.up.token", program.withBadToken},
			} {
				if code, _, err := scrape(t, url, test.token); err != nil || code != test.want {
					t.Errorf("%s is answered with %d, %v, want %d", who, code, err, test.want)
				}
			}
			var families map[string]*dto.MetricFamily
			eventually(t, 20*time.Second, func(context.Context) error {
				code, body, err := scrape(t, url, reader)
				if err != nil || code != http.StatusOK {
					return fmt.Errorf("answered with %d: %w", code, err)
				}
				parser := expfmt.NewTextParser(model.UTF8Validation)
				families, err = parser.TextToMetricFamilies(strings.NewReader(body))
				return err
			})
			wantFamilies(t, families, program.families, known)
		})
	}
}

func wantFamilies(t *testing.T, families map[string]*dto.MetricFamily, want []string, known map[string]string) {
	t.Helper()
	for _, name := range want {
		if families[name] == nil {
			t.Errorf("no family %s among %d", name, len(families))
		}
	}
	ours := 0
	for name, family := range families {
		if !strings.HasPrefix(name, "ai_storage_") {
			continue
		}
		ours++
		if kind := strings.ToLower(family.GetType().String()); known[name] != kind {
			t.Errorf("%s is a %s, and docs/metrics.md says %q", name, kind, known[name])
		}
	}
	t.Logf("%d families, %d of them ours", len(families), ours)
}

// documentedMetrics are the types of the metrics in docs/metrics.md.
func documentedMetrics(t *testing.T) map[string]string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(repository, "docs", "metrics.md"))
	must(t, err)
	known := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| ([a-z]+) \\|").FindAllStringSubmatch(string(content), -1) {
		known[row[1]] = row[2]
	}
	return known
}

func metricsReader(t *testing.T) string {
	t.Helper()
	token, user := account(t, "prometheus", "", "get")
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "prometheus-"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "ai-storage-metrics-reader"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: user}},
	}
	must(t, k8s.Create(t.Context(), binding))
	t.Cleanup(func() { must(t, k8s.Delete(context.WithoutCancel(t.Context()), binding)) })
	return token
}

// scrape asks as Prometheus does; the certificate is signed by the program itself.
func scrape(t *testing.T, url, token string) (code int, body string, err error) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	must(t, err)
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}
	response, err := (&http.Client{Transport: transport, Timeout: 10 * time.Second}).Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	return response.StatusCode, string(content), err
}

func serveSchedulerMetrics(t *testing.T) string {
	port, kubeconfig := freePort(t), impersonatingKubeconfig(t, schedulerAccount)
	runProgram(t, buildScheduler(t), "--config="+schedulerConfiguration(t, "config/scheduler-configuration.yaml"), "--bind-address=127.0.0.1",
		"--secure-port="+port, "--authentication-kubeconfig="+kubeconfig, "--authorization-kubeconfig="+kubeconfig)
	return "127.0.0.1:" + port
}

// serveRebalancerMetrics runs one that never leads: it would carry out what other
// tests ask for.
func serveRebalancerMetrics(t *testing.T) string {
	lease := &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ai-storage-system", Name: "ai-storage-rebalancer"},
		Spec: coordinationv1.LeaseSpec{
			HolderIdentity: new("the test"), LeaseDurationSeconds: new(int32(3600)), RenewTime: new(metav1.NowMicro()), AcquireTime: new(metav1.NowMicro()),
		},
	}
	must(t, k8s.Create(t.Context(), lease))
	t.Cleanup(func() { must(t, k8s.Delete(context.WithoutCancel(t.Context()), lease)) })
	address := "127.0.0.1:" + freePort(t)
	runProgram(t, buildProgram(t, "rebalancer"), "--config="+filepath.Join(repository, "config/scheduler-configuration.yaml"),
		"--kubeconfig="+impersonatingKubeconfig(t, "system:serviceaccount:ai-storage-system:ai-storage-rebalancer"),
		"--metrics-bind-address="+address, "--health-probe-bind-address=0", "--api-bind-address=0", "--webhook-port=0")
	return address
}

func serveAgentMetrics(t *testing.T) string {
	port := freePort(t)
	runProgram(t, buildProgram(t, "node-agent"), "run", "--node-name=nowhere", "--state-dir="+t.TempDir(), "--kubelet-root="+t.TempDir(),
		"--kubeconfig="+impersonatingKubeconfig(t, "system:serviceaccount:ai-storage-node-agent:ai-storage-node-agent"),
		"--metrics-host=127.0.0.1", "--metrics-port="+port, "--transfer-host=127.0.0.1", "--transfer-port="+freePort(t))
	return "127.0.0.1:" + port
}
