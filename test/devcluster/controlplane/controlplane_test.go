package controlplane

import (
	"bytes"
	"crypto/x509"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/apiserver/pkg/apis/audit"
	"k8s.io/apiserver/pkg/audit/policy"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/client-go/tools/clientcmd"
	certutil "k8s.io/client-go/util/cert"
)

func TestPortsDifferAndAreNotForOutgoingConnections(t *testing.T) {
	ports, err := FreePorts()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[int64]string{}
	for field, value := range reflect.ValueOf(ports).Fields() {
		port := value.Int()
		if port < firstPort || port >= firstPort+portCount {
			t.Errorf("%s is %d, want a port from %d to %d", field.Name, port, firstPort, firstPort+portCount-1)
		}
		if other, twice := seen[port]; twice {
			t.Errorf("%s and %s are both %d", field.Name, other, port)
		}
		seen[port] = field.Name
	}
}

func TestCredentials(t *testing.T) {
	stateDir := t.TempDir()
	credentials, err := NewCredentials(stateDir, Ports{APIServer: 6443}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	path, err := credentials.NodeKubeconfig("real-1")
	if err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		t.Fatal(err)
	}
	if config.Host != "https://127.0.0.1:6443" {
		t.Errorf("server %s", config.Host)
	}
	certificates, err := certutil.ParseCertsPEM(config.CertData)
	if err != nil {
		t.Fatal(err)
	}
	subject := certificates[0].Subject
	if diff := cmp.Diff([]string{"system:node:real-1", "system:nodes"}, []string{subject.CommonName, subject.Organization[0]}); diff != "" {
		t.Errorf("identity (-want +got):\n%s", diff)
	}
	// A client of the cluster is nobody for etcd and for the front proxy.
	for name, valid := range map[string]bool{"ca": true, "etcd-ca": false, "front-proxy-ca": false} {
		pool, err := certutil.NewPool(CertificatePath(stateDir, name))
		if err != nil {
			t.Fatal(err)
		}
		_, err = certificates[0].Verify(x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
		if (err == nil) != valid {
			t.Errorf("signed by %s: %v; want %v", name, err, valid)
		}
	}
	for _, name := range []string{"ca", "service-account", "kube-apiserver"} {
		info, err := os.Stat(KeyPath(stateDir, name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("key %s has mode %v", name, info.Mode())
		}
	}
}

// What the log must hold for tests to prove how a pod came to its node, and which
// rights our programs use.
func TestAuditPolicy(t *testing.T) {
	const ours = "system:serviceaccount:ai-storage-system:ai-storage-rebalancer"
	parsed, err := policy.LoadPolicyFromBytes(auditPolicy)
	if err != nil {
		t.Fatal(err)
	}
	evaluator := policy.NewPolicyRuleEvaluator(parsed)
	for _, test := range []struct {
		verb, group, resource, subresource string
		user                               string
		want                               audit.Level
	}{
		{"create", "", "pods", "", "jane", audit.LevelRequestResponse},
		{"create", "", "pods", "binding", "jane", audit.LevelRequestResponse},
		{"create", "", "pods", "eviction", "jane", audit.LevelRequestResponse},
		{"create", "migration.ai-storage", "podmigrations", "", "jane", audit.LevelRequestResponse},
		{"patch", "migration.ai-storage", "podmigrations", "status", "jane", audit.LevelRequestResponse},
		{"create", "", "persistentvolumes", "", "jane", audit.LevelRequestResponse},
		{"delete", "", "pods", "", "jane", audit.LevelMetadata},
		{"get", "", "pods", "", "jane", audit.LevelNone},
		{"patch", "", "pods", "status", "jane", audit.LevelNone},
		{"update", "coordination.k8s.io", "leases", "", "jane", audit.LevelNone},
		{"update", "coordination.k8s.io", "leases", "", ours, audit.LevelMetadata},
		{"watch", "", "nodes", "", ours, audit.LevelMetadata},
		{"create", "", "pods", "eviction", ours, audit.LevelRequestResponse},
	} {
		got := evaluator.EvaluatePolicyRule(authorizer.AttributesRecord{
			User: &user.DefaultInfo{Name: test.user}, Verb: test.verb, APIGroup: test.group,
			Resource: test.resource, Subresource: test.subresource, ResourceRequest: true,
		})
		if got.Level != test.want {
			t.Errorf("%s %s/%s/%s: level %s, want %s", test.verb, test.group, test.resource, test.subresource, got.Level, test.want)
		}
	}
}

func TestManifestOrder(t *testing.T) {
	directory := t.TempDir()
	for _, file := range []string{"namespace.yaml", "crd/b.yaml", "crd/a.yaml", "base/rebalancer-rbac.yaml", "base/rebalancer.yaml", "other/x.yaml", "crd/notes.txt"} {
		path := filepath.Join(directory, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for _, part := range manifestOrder {
		files, err := manifestFiles(filepath.Join(directory, part))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			relative, err := filepath.Rel(directory, file)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, relative)
		}
	}
	want := []string{"namespace.yaml", "crd/a.yaml", "crd/b.yaml", "base/rebalancer-rbac.yaml"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

func TestMetricsRegistration(t *testing.T) {
	stateDir := t.TempDir()
	ports := Ports{MetricsServer: 4443}
	if _, err := NewCredentials(stateDir, ports, time.Now); err != nil {
		t.Fatal(err)
	}
	manifest, err := metricsRegistration(Options{StateDir: stateDir, Ports: ports})
	if err != nil {
		t.Fatal(err)
	}
	var kinds []string
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(manifest), 4096)
	for {
		object := &unstructured.Unstructured{}
		if err := decoder.Decode(&object.Object); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if len(object.Object) == 0 {
			continue
		}
		kinds = append(kinds, object.GetKind()+" "+object.GetName())
		if bundle, _, _ := unstructured.NestedString(object.Object, "spec", "caBundle"); object.GetKind() == "APIService" && bundle == "" {
			t.Error("the registration has no authority to check metrics-server with")
		}
	}
	if diff := cmp.Diff([]string{"Service metrics-server", "APIService v1beta1.metrics.k8s.io"}, kinds); diff != "" {
		t.Errorf("objects (-want +got):\n%s", diff)
	}
}
