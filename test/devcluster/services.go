package devcluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ai-storage/orchestrator/test/devcluster/pki"
	"github.com/ai-storage/orchestrator/test/devcluster/process"
)

const (
	kubeProxy = "kube-proxy"
	// kubeProxyUser is the one whose rights Kubernetes itself sets up.
	kubeProxyUser = "system:kube-proxy"
)

// checkServices names what is missing for Services.
func (o Options) checkServices() error {
	if !o.Services {
		return nil
	}
	if o.Nodes.Kind != Real {
		return errors.New("services need real nodes: simulated pods answer nobody")
	}
	var missing []error
	if path := filepath.Join(o.BinDir, kubeProxy); !isProgram(path) {
		missing = append(missing, fmt.Errorf("%s is missing: run `make bin/%s`", path, kubeProxy))
	}
	return errors.Join(missing...)
}

// startServices makes Services work as on other clusters: the addresses of Services
// lead to their pods, for pods and for the API server, and the Service kubernetes
// to the API server.
//
// All real nodes share the machine's network namespace, so one kube-proxy serves
// them all, and only one cluster of the machine can have Services.
func (b *bringUp) startServices(ctx context.Context) error {
	if !b.Services {
		return nil
	}
	// Ours of an earlier time are gone: Up begins with a tear-down.
	if exec.CommandContext(ctx, "iptables", "-w", "-t", "nat", "-S", "KUBE-SERVICES").Run() == nil {
		return fmt.Errorf("another kube-proxy works on this machine: end its cluster, or run `%s --cleanup` when it is gone", filepath.Join(b.BinDir, kubeProxy))
	}
	if err := b.publishAPIServer(ctx); err != nil {
		return err
	}
	kubeconfig, err := b.credentials.UserKubeconfig(kubeProxy, pki.Subject{CommonName: kubeProxyUser})
	if err != nil {
		return err
	}
	health := loopback(b.state.Ports.ServiceProxy)
	spec := process.Spec{Name: kubeProxy, Path: filepath.Join(b.BinDir, kubeProxy), Env: []string{"NO_PROXY=*"}, Args: []string{
		"--kubeconfig=" + kubeconfig,
		"--hostname-override=" + b.Nodes.Names()[0],
		"--proxy-mode=iptables",
		"--healthz-bind-address=" + health,
		"--metrics-bind-address=" + loopback(b.state.Ports.ServiceProxyMetrics),
		// The machine's own settings stay as they are.
		"--conntrack-max-per-core=0",
		"--conntrack-tcp-timeout-established=0s",
		"--conntrack-tcp-timeout-close-wait=0s",
		"--iptables-localhost-nodeports=false",
	}}
	if err := process.StartReady(ctx, b.StateDir, spec, process.AnswersOK("http://"+health+"/healthz", 2*time.Second)); err != nil {
		return err
	}
	b.say("%s is ready: Services work", kubeProxy)
	return nil
}

// publishAPIServer gives the Service kubernetes its endpoint: the API server at the
// address of the first node, since an endpoint on loopback is refused.
func (b *bringUp) publishAPIServer(ctx context.Context) error {
	node, err := b.client.CoreV1().Nodes().Get(ctx, b.Nodes.Names()[0], metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("publish the API server: %w", err)
	}
	i := slices.IndexFunc(node.Status.Addresses, func(a corev1.NodeAddress) bool { return a.Type == corev1.NodeInternalIP })
	if i < 0 {
		return fmt.Errorf("publish the API server: node %s has no address", node.Name)
	}
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: metav1.NamespaceDefault, Name: "kubernetes",
			Labels: map[string]string{discoveryv1.LabelServiceName: "kubernetes"},
		},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{node.Status.Addresses[i].Address}}},
		Ports:       []discoveryv1.EndpointPort{{Name: new("https"), Port: new(int32(b.state.Ports.APIServer)), Protocol: new(corev1.ProtocolTCP)}},
	}
	_, err = b.client.DiscoveryV1().EndpointSlices(slice.Namespace).Create(ctx, slice, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("publish the API server: %w", err)
	}
	return nil
}

// withdrawServices removes the rules that kube-proxy left in the machine's kernel.
func withdrawServices(ctx context.Context, stateDir string, say reporter) error {
	old, err := readState(stateDir)
	if err != nil || !old.Services {
		return nil // nothing is known of any; startServices says what to do about others
	}
	output, err := exec.CommandContext(ctx, filepath.Join(old.BinDir, kubeProxy), "--cleanup").CombinedOutput()
	if err != nil {
		return fmt.Errorf("remove the rules of %s: %w: %s", kubeProxy, err, output)
	}
	say("the rules of %s are removed", kubeProxy)
	return nil
}

// apiServerAddress is where the API server listens: pods do not reach loopback.
func apiServerAddress(services bool) string {
	if services {
		return net.IPv4zero.String()
	}
	return "127.0.0.1"
}
