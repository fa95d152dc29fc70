package controlplane

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/yaml"
)

// tokenLifetime is longer than any local cluster lives.
const tokenLifetime = 30 * 24 * time.Hour

//go:embed base.yaml
var baseManifest []byte

// ApplyBase installs what every cluster here has: a default StorageClass, and
// the rights and the registration of metrics-server.
func ApplyBase(ctx context.Context, applier *Applier, o Options) error {
	if _, err := applier.Apply(ctx, baseManifest); err != nil {
		return err
	}
	registration, err := metricsRegistration(o)
	if err != nil {
		return err
	}
	_, err = applier.Apply(ctx, registration)
	return err
}

// metricsRegistration makes the API server pass metrics.k8s.io on to
// metrics-server. The service of an API may be an ExternalName, which the
// aggregator dials as it stands (k8s.io/apiserver/pkg/util/proxy, ResolveCluster).
func metricsRegistration(o Options) ([]byte, error) {
	authority, err := os.ReadFile(o.certificate("ca"))
	if err != nil {
		return nil, fmt.Errorf("register metrics-server: %w", err)
	}
	service := map[string]any{
		"apiVersion": "v1", "kind": "Service",
		"metadata": map[string]any{"name": "metrics-server", "namespace": "kube-system"},
		"spec": map[string]any{
			"type": "ExternalName", "externalName": "localhost",
			"ports": []any{map[string]any{"name": "https", "port": o.Ports.MetricsServer}},
		},
	}
	api := map[string]any{
		"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
		"metadata": map[string]any{"name": "v1beta1.metrics.k8s.io"},
		"spec": map[string]any{
			"group": "metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 100, "versionPriority": 100,
			"caBundle": authority,
			"service":  map[string]any{"name": "metrics-server", "namespace": "kube-system", "port": o.Ports.MetricsServer},
		},
	}
	var manifest []byte
	for _, object := range []any{service, api} {
		encoded, err := yaml.Marshal(object)
		if err != nil {
			return nil, fmt.Errorf("register metrics-server: %w", err)
		}
		manifest = append(append(manifest, "---\n"...), encoded...)
	}
	return manifest, nil
}

// ServiceAccountToken asks for a token of a service account that the manifests
// made. apierrors.IsNotFound knows the error when there is none.
func ServiceAccountToken(ctx context.Context, client kubernetes.Interface, namespace, name string) (string, error) {
	seconds := int64(tokenLifetime / time.Second)
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds}}
	answer, err := client.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, name, request, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("token of service account %s/%s: %w", namespace, name, err)
	}
	return answer.Status.Token, nil
}

// AwaitNamespaces waits until a namespace can take pods: the controller
// manager makes its default service account some time after it.
func AwaitNamespaces(ctx context.Context, client kubernetes.Interface, namespaces ...string) error {
	for _, namespace := range namespaces {
		if err := wait.PollUntilContextTimeout(ctx, 100*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
			_, err := client.CoreV1().ServiceAccounts(namespace).Get(ctx, "default", metav1.GetOptions{})
			return err == nil, ignoreNotFound(err)
		}); err != nil {
			return fmt.Errorf("wait for the default service account of %s: %w", namespace, err)
		}
	}
	return nil
}

// AwaitNodes waits until that many nodes are Ready.
func AwaitNodes(ctx context.Context, client kubernetes.Interface, count int) error {
	ready := 0
	err := wait.PollUntilContextTimeout(ctx, 200*time.Millisecond, 2*time.Minute, true, func(ctx context.Context) (bool, error) {
		nodes, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
		if err != nil {
			return false, err
		}
		ready = 0
		for i := range nodes.Items {
			if isReady(&nodes.Items[i]) {
				ready++
			}
		}
		return ready >= count, nil
	})
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%d of %d nodes are Ready after two minutes: %w", ready, count, err)
	}
	return err
}

func isReady(node *corev1.Node) bool {
	for _, condition := range node.Status.Conditions {
		if condition.Type == corev1.NodeReady {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}

func ignoreNotFound(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
