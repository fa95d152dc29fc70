package devcluster

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/yaml"

	"github.com/ai-storage/orchestrator/test/devcluster/controlplane"
	"github.com/ai-storage/orchestrator/test/devcluster/image"
	"github.com/ai-storage/orchestrator/test/devcluster/pki"
	"github.com/ai-storage/orchestrator/test/devcluster/process"
)

// componentNamespace is where manifests/ puts our service accounts.
const componentNamespace = "ai-storage-system"

// Names of our components.
const (
	Scheduler  = "scheduler"
	Rebalancer = "rebalancer"
	// DefaultScheduler places the pods that do not ask for our scheduler. It is
	// our program too, which without a configuration is just kube-scheduler.
	DefaultScheduler = "default-scheduler"
)

// defaultSchedulerUser is the one whose rights Kubernetes itself sets up.
const defaultSchedulerUser = "system:kube-scheduler"

// component is one of our programs.
type component struct {
	name    string
	program string
	// serviceAccount is empty for what is no part of the product.
	serviceAccount string
	port           func(controlplane.Ports) int
	args           func(c *Cluster) []string
}

var components = []component{
	{
		name: Scheduler, program: "scheduler", serviceAccount: "ai-storage-scheduler",
		port: func(p controlplane.Ports) int { return p.Scheduler },
		args: func(c *Cluster) []string {
			return []string{
				"--config=" + c.configPath(Scheduler),
				"--authentication-kubeconfig=" + c.ComponentKubeconfig(Scheduler),
				"--authorization-kubeconfig=" + c.ComponentKubeconfig(Scheduler),
				"--bind-address=127.0.0.1",
				"--secure-port=" + strconv.Itoa(c.state.Ports.Scheduler),
			}
		},
	},
	{
		name: Rebalancer, program: "rebalancer", serviceAccount: "ai-storage-rebalancer",
		port: func(p controlplane.Ports) int { return p.RebalancerHealth },
		args: func(c *Cluster) []string {
			args := []string{
				"--config=" + c.configPath(Rebalancer),
				"--kubeconfig=" + c.ComponentKubeconfig(Rebalancer),
				"--metrics-bind-address=" + loopback(c.state.Ports.RebalancerMetrics),
				"--health-probe-bind-address=" + loopback(c.state.Ports.RebalancerHealth),
				"--api-bind-address=" + loopback(c.state.Ports.RebalancerAPI),
				"--tls-cert-file=" + controlplane.CertificatePath(c.stateDir, controlplane.APICertificate),
				"--tls-private-key-file=" + controlplane.KeyPath(c.stateDir, controlplane.APICertificate),
				"--webhook-host=127.0.0.1",
				"--webhook-port=" + strconv.Itoa(c.state.Ports.RebalancerWebhook),
				"--webhook-url=https://" + net.JoinHostPort("localhost", strconv.Itoa(c.state.Ports.RebalancerWebhook)),
			}
			if c.state.Nodes.Kind == Real {
				args = append(args, "--node-agent-image="+image.NodeAgentReference)
			}
			return args
		},
	},
	{
		name: DefaultScheduler, program: "scheduler",
		port: func(p controlplane.Ports) int { return p.DefaultScheduler },
		args: func(c *Cluster) []string {
			kubeconfig := c.ComponentKubeconfig(DefaultScheduler)
			return []string{
				"--kubeconfig=" + kubeconfig,
				"--authentication-kubeconfig=" + kubeconfig,
				"--authorization-kubeconfig=" + kubeconfig,
				"--leader-elect=false",
				"--bind-address=127.0.0.1",
				"--secure-port=" + strconv.Itoa(c.state.Ports.DefaultScheduler),
			}
		},
	},
}

// ComponentNames are the names that StartComponent knows.
func ComponentNames() []string {
	names := make([]string, len(components))
	for i, component := range components {
		names[i] = component.name
	}
	return names
}

// WebhookPort is where the rebalancer serves its admission webhook on loopback.
func (c *Cluster) WebhookPort() int { return c.state.Ports.RebalancerWebhook }

// APIURL is where the rebalancer serves its HTTP API, with a certificate of
// Authority.
func (c *Cluster) APIURL() string {
	return "https://" + net.JoinHostPort("localhost", strconv.Itoa(c.state.Ports.RebalancerAPI))
}

// MetricsURL is where the scheduler or the rebalancer serves its metrics, with a
// certificate that it signs itself, to those who may read them.
func (c *Cluster) MetricsURL(component string) string {
	port := map[string]int{Scheduler: c.state.Ports.Scheduler, Rebalancer: c.state.Ports.RebalancerMetrics}[component]
	return "https://" + loopback(port) + "/metrics"
}

// Authority is the path of the certificate that everything in the cluster is
// trusted by.
func (c *Cluster) Authority() string { return controlplane.CertificatePath(c.stateDir, "ca") }

// AdminAccount is a service account with every right, in namespace kube-system:
// the HTTP API knows callers by their tokens.
const AdminAccount = "devcluster-admin"

func componentNamed(name string) (component, error) {
	for _, component := range components {
		if component.name == name {
			return component, nil
		}
	}
	return component{}, fmt.Errorf("unknown component %q: there are %s", name, strings.Join(ComponentNames(), ", "))
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// ComponentKubeconfig is the path of the kubeconfig of a component, with the
// token of its service account and so with the rights in manifests/.
func (c *Cluster) ComponentKubeconfig(name string) string {
	return controlplane.KubeconfigPath(c.stateDir, name)
}

// StartComponent starts one of our programs under its service account, with
// the cluster's configuration file. The args come last, so they can override
// flags. It does not wait until the program is ready.
func (c *Cluster) StartComponent(name string, args ...string) error {
	component, err := componentNamed(name)
	if err != nil {
		return err
	}
	if err := c.renderConfig(component); err != nil {
		return err
	}
	spec := c.specOf(component)
	spec.Args = append(spec.Args, args...)
	_, err = process.Start(c.stateDir, spec)
	return err
}

func (c *Cluster) specOf(component component) process.Spec {
	return process.Spec{
		Name: component.name,
		Path: filepath.Join(c.state.BinDir, component.program),
		Args: component.args(c),
	}
}

// StopComponent ends a component as a kubelet would, with SIGTERM first.
func (c *Cluster) StopComponent(ctx context.Context, name string) error {
	return process.Stop(ctx, c.stateDir, name)
}

// KillComponent ends a component with SIGKILL, as a crash would.
func (c *Cluster) KillComponent(name string) error { return process.Kill(c.stateDir, name) }

// AwaitComponent waits until the component serves its health port.
func (c *Cluster) AwaitComponent(ctx context.Context, name string) error {
	component, err := componentNamed(name)
	if err != nil {
		return err
	}
	address := loopback(component.port(c.state.Ports))
	err = wait.PollUntilContextTimeout(ctx, 100*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
		connection, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", address)
		if err == nil {
			connection.Close()
			return true, nil
		}
		if !c.isAlive(name) {
			return false, fmt.Errorf("it ended; its log:\n%s", c.LogTail(name, 15))
		}
		return false, nil
	})
	if err != nil {
		return fmt.Errorf("wait for %s on %s: %w", name, address, err)
	}
	return nil
}

func (c *Cluster) isAlive(name string) bool {
	statuses, err := c.Processes()
	if err != nil {
		return false
	}
	for _, status := range statuses {
		if status.Name == name {
			return status.Alive
		}
	}
	return false
}

// renderConfig writes the cluster's configuration file with the kubeconfig of
// the component in it: kube-scheduler ignores --kubeconfig beside --config.
func (c *Cluster) renderConfig(component component) error {
	if component.serviceAccount == "" {
		return nil
	}
	content, err := os.ReadFile(c.state.ConfigFile)
	if err != nil {
		return fmt.Errorf("configuration of %s: %w", component.name, err)
	}
	rendered, err := withKubeconfig(content, c.ComponentKubeconfig(component.name))
	if err != nil {
		return fmt.Errorf("configuration of %s: %s: %w", component.name, c.state.ConfigFile, err)
	}
	path := c.configPath(component.name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("configuration of %s: %w", component.name, err)
	}
	if err := os.WriteFile(path, rendered, 0o644); err != nil {
		return fmt.Errorf("configuration of %s: %w", component.name, err)
	}
	return nil
}

func (c *Cluster) configPath(component string) string {
	return filepath.Join(c.stateDir, "config", component+".yaml")
}

// withKubeconfig sets clientConnection.kubeconfig and keeps all else, so
// that the components still judge the rest strictly.
func withKubeconfig(configuration []byte, kubeconfig string) ([]byte, error) {
	fields := map[string]any{}
	if err := yaml.UnmarshalStrict(configuration, &fields); err != nil {
		return nil, err
	}
	connection, ok := fields["clientConnection"].(map[string]any)
	if !ok {
		connection = map[string]any{}
	}
	connection["kubeconfig"] = kubeconfig
	fields["clientConnection"] = connection
	return yaml.Marshal(fields)
}

func (b *bringUp) writeComponentKubeconfigs(ctx context.Context) error {
	for _, component := range components {
		if component.serviceAccount == "" {
			subject := pki.Subject{CommonName: defaultSchedulerUser}
			if _, err := b.credentials.UserKubeconfig(component.name, subject); err != nil {
				return err
			}
			continue
		}
		if b.ManifestsDir == "" {
			continue
		}
		token, err := controlplane.ServiceAccountToken(ctx, b.client, componentNamespace, component.serviceAccount)
		if apierrors.IsNotFound(err) {
			b.say("%s make no service account %s, so %s cannot run", b.ManifestsDir, component.serviceAccount, component.name)
			continue
		}
		if err != nil {
			return err
		}
		if _, err := b.credentials.TokenKubeconfig(component.name, token); err != nil {
			return err
		}
	}
	return nil
}
