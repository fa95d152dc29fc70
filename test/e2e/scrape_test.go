//go:build e2e

package e2e

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/test/devcluster"
)

// agentMetricsPort is the default of the node agent.
const agentMetricsPort = "10270"

// metricsReader makes an account with the rights that Prometheus is given, and
// returns its token.
func metricsReader(t *testing.T, namespace string) string {
	t.Helper()
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "prometheus"}}
	create(t, account)
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: namespace + "-prometheus"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "ai-storage-metrics-reader"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: "prometheus"}},
	}
	create(t, binding)
	t.Cleanup(func() {
		if err := env.client.Delete(context.WithoutCancel(t.Context()), binding); err != nil {
			t.Error(err)
		}
	})
	request := &authenticationv1.TokenRequest{}
	if err := env.client.SubResource("token").Create(t.Context(), account, request); err != nil {
		t.Fatal(err)
	}
	return request.Status.Token
}

// sample is a series of a program; histograms are their _count and _sum.
type sample struct {
	name   string
	labels map[string]string
	value  float64
}

// scrapeAll reads the metrics of the scheduler, the rebalancer, and of the agents,
// which are called as their nodes.
func scrapeAll(t *testing.T, token string) map[string][]sample {
	t.Helper()
	urls := map[string]string{
		"scheduler":  env.cluster.MetricsURL(devcluster.Scheduler),
		"rebalancer": env.cluster.MetricsURL(devcluster.Rebalancer),
	}
	for _, name := range env.nodes {
		node := &corev1.Node{}
		if err := env.client.Get(t.Context(), client.ObjectKey{Name: name}, node); err != nil {
			t.Fatal(err)
		}
		for _, address := range node.Status.Addresses {
			if address.Type == corev1.NodeInternalIP {
				urls[name] = "https://" + net.JoinHostPort(address.Address, agentMetricsPort) + "/metrics"
			}
		}
	}
	all := map[string][]sample{}
	for program, url := range urls {
		samples, err := scrape(t, url, token)
		if err != nil {
			t.Fatalf("metrics of %s: %v", program, err)
		}
		all[program] = samples
	}
	return all
}

func scrape(t *testing.T, url, token string) ([]sample, error) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+token)
	// Each program signs its certificate itself, as the ServiceMonitors know.
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}
	response, err := (&http.Client{Transport: transport, Timeout: 10 * time.Second}).Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s", url, response.Status)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(response.Body)
	if err != nil {
		return nil, err
	}
	var samples []sample
	for name, family := range families {
		if !strings.HasPrefix(name, "ai_storage_") {
			continue
		}
		for _, metric := range family.Metric {
			labels := map[string]string{}
			for _, pair := range metric.Label {
				labels[pair.GetName()] = pair.GetValue()
			}
			if h := metric.Histogram; h != nil {
				samples = append(samples, sample{name + "_count", labels, float64(h.GetSampleCount())}, sample{name + "_sum", labels, h.GetSampleSum()})
				continue
			}
			samples = append(samples, sample{name, labels, metric.GetCounter().GetValue() + metric.GetGauge().GetValue()})
		}
	}
	return samples, nil
}

// change is what two scrapes tell.
type change struct{ before, after map[string][]sample }

// by is how much the series of a program with these labels have moved, together.
func (c change) by(program, name string, labels map[string]string) float64 {
	return sum(c.after[program], name, labels) - sum(c.before[program], name, labels)
}

func sum(samples []sample, name string, labels map[string]string) (total float64) {
	for _, s := range samples {
		fits := s.name == name
		for key, value := range labels {
			fits = fits && s.labels[key] == value
		}
		if fits {
			total += s.value
		}
	}
	return total
}
