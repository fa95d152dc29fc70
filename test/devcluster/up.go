package devcluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/ai-storage/orchestrator/test/devcluster/controlplane"
	"github.com/ai-storage/orchestrator/test/devcluster/pki"
	"github.com/ai-storage/orchestrator/test/devcluster/process"
	"github.com/ai-storage/orchestrator/test/devcluster/simnode"
)

// ErrRunning says that the state directory holds a running cluster.
var ErrRunning = errors.New("a cluster is running already")

// Up starts a cluster and returns when its nodes are Ready and metrics.k8s.io
// answers. What an earlier cluster left in the directory after a crash is removed
// first; a running one gives ErrRunning. When Up fails or ctx is cancelled,
// nothing keeps running, and the logs stay for a look.
func Up(ctx context.Context, o Options) (*Cluster, error) {
	o, err := o.complete()
	if err != nil {
		return nil, fmt.Errorf("cluster options: %w", err)
	}
	if err := o.checkPrerequisites(); err != nil {
		return nil, err
	}
	release, err := lock(o.StateDir)
	if err != nil {
		return nil, err
	}
	defer release()
	say := newReporter(o.Progress)
	if err := clearLeftovers(ctx, o.StateDir, say); err != nil {
		return nil, err
	}
	b := &bringUp{Options: o, say: say}
	cluster, err := b.run(ctx)
	if err != nil {
		say("failed; removing what was started")
		return nil, errors.Join(err, tearDown(context.WithoutCancel(ctx), o.StateDir, say, logDirectories...))
	}
	say("the cluster is up")
	return cluster, nil
}

// clearLeftovers makes room for a new cluster, unless one is running.
func clearLeftovers(ctx context.Context, stateDir string, say reporter) error {
	old, err := readState(stateDir)
	if err == nil && old.Complete && isRunning(stateDir) {
		return fmt.Errorf("%w in %s: `devcluster down` ends it", ErrRunning, stateDir)
	}
	if empty, err := isEmpty(stateDir); err != nil || !empty {
		say("removing what an earlier cluster left behind")
	}
	return tearDown(ctx, stateDir, say)
}

// isRunning tells whether the control plane is alive as a whole: without one
// of its processes the cluster is of no use.
func isRunning(stateDir string) bool {
	alive := map[string]bool{}
	records, err := process.List(stateDir)
	if err != nil {
		return false
	}
	for _, record := range records {
		alive[record.Name] = record.Alive()
	}
	return alive[controlplane.Etcd] && alive[controlplane.APIServer] && alive[controlplane.ControllerManager]
}

// bringUp holds what the steps of Up hand to each other.
type bringUp struct {
	Options
	say         reporter
	state       state
	credentials *controlplane.Credentials
	cluster     *Cluster
	client      kubernetes.Interface
}

func (b *bringUp) run(ctx context.Context) (*Cluster, error) {
	for _, step := range []func(context.Context) error{
		b.prepare,
		b.startControlPlane,
		b.install,
		b.buildCSIImage,
		b.startNodes,
		b.startServices,
		b.startCSI,
		b.serveMetrics,
		b.startComponents,
		b.startNodeAgents,
	} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	b.state.Complete = true
	return b.cluster, b.state.write(b.StateDir)
}

func (b *bringUp) prepare(context.Context) error {
	ports, err := controlplane.FreePorts()
	if err != nil {
		return err
	}
	b.state = state{BinDir: b.BinDir, ConfigFile: b.ConfigFile, Nodes: b.Nodes, Services: b.Services, Images: b.Images, Ports: ports}
	if err := os.MkdirAll(b.StateDir, 0o755); err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	if err := b.state.write(b.StateDir); err != nil {
		return err
	}
	b.credentials, err = controlplane.NewCredentials(b.StateDir, ports, time.Now)
	if err != nil {
		return err
	}
	b.cluster = &Cluster{stateDir: b.StateDir, state: b.state}
	b.say("certificates are made, state is in %s", b.StateDir)
	return nil
}

func (b *bringUp) plane() controlplane.Options {
	return controlplane.Options{
		StateDir: b.StateDir, BinDir: b.BinDir, Ports: b.state.Ports, Address: apiServerAddress(b.Services), Report: b.say,
	}
}

func (b *bringUp) startControlPlane(ctx context.Context) error {
	if err := controlplane.Start(ctx, b.plane()); err != nil {
		return err
	}
	config, err := b.cluster.AdminConfig()
	if err != nil {
		return err
	}
	b.client, err = kubernetes.NewForConfig(config)
	return err
}

func (b *bringUp) install(ctx context.Context) error {
	config, err := b.cluster.AdminConfig()
	if err != nil {
		return err
	}
	applier, err := controlplane.NewApplier(config)
	if err != nil {
		return err
	}
	if err := controlplane.ApplyBase(ctx, applier, b.plane()); err != nil {
		return fmt.Errorf("install the base: %w", err)
	}
	namespaces := []string{metav1.NamespaceDefault}
	if b.ManifestsDir != "" {
		count, err := applier.ApplyDirectory(ctx, b.ManifestsDir)
		if err != nil {
			return err
		}
		b.say("%d objects of %s are applied", count, b.ManifestsDir)
		namespaces = append(namespaces, componentNamespace, nodeAgentNamespace)
	}
	if err := controlplane.AwaitNamespaces(ctx, b.client, namespaces...); err != nil {
		return err
	}
	if err := b.writeComponentKubeconfigs(ctx); err != nil {
		return err
	}
	if b.Nodes.Kind != Simulated {
		return nil
	}
	_, err = applier.Apply(ctx, simnode.RBAC)
	return err
}

func (b *bringUp) startNodes(ctx context.Context) error {
	start := b.startSimulatedNodes
	if b.Nodes.Kind == Real {
		start = b.startRealNodes
	}
	if err := start(ctx); err != nil {
		return err
	}
	if err := controlplane.AwaitNodes(ctx, b.client, b.Nodes.Count); err != nil {
		return err
	}
	b.say("%d %s nodes are Ready", b.Nodes.Count, b.Nodes.Kind)
	return nil
}

func (b *bringUp) startSimulatedNodes(ctx context.Context) error {
	kubeconfig, err := b.credentials.UserKubeconfig("kwok", pki.Subject{CommonName: simnode.User})
	if err != nil {
		return err
	}
	if err := simnode.Start(simnode.Options{
		StateDir:        b.StateDir,
		BinDir:          b.BinDir,
		Kubeconfig:      kubeconfig,
		Port:            b.state.Ports.SimulatedKubelet,
		CertificateFile: controlplane.CertificatePath(b.StateDir, "simulated-kubelet"),
		KeyFile:         controlplane.KeyPath(b.StateDir, "simulated-kubelet"),
	}); err != nil {
		return err
	}
	return simnode.CreateNodes(ctx, b.client, b.Nodes.Names())
}

func (b *bringUp) serveMetrics(ctx context.Context) error {
	if err := controlplane.StartMetricsServer(ctx, b.plane()); err != nil {
		return err
	}
	if err := b.cluster.awaitMetrics(ctx, b.Nodes.Count); err != nil {
		return err
	}
	b.say("metrics.k8s.io serves %d nodes", b.Nodes.Count)
	return nil
}

func (b *bringUp) startComponents(ctx context.Context) error {
	for _, name := range b.Components {
		if err := b.cluster.StartComponent(name); err != nil {
			return err
		}
		if err := b.cluster.AwaitComponent(ctx, name); err != nil {
			return err
		}
		b.say("%s is running", name)
	}
	return nil
}

// reporter tells a person about a finished step.
type reporter func(format string, args ...any)

func newReporter(out io.Writer) reporter {
	begin := time.Now()
	return func(format string, args ...any) {
		fmt.Fprintf(out, "%6.1fs  %s\n", time.Since(begin).Seconds(), fmt.Sprintf(format, args...))
	}
}
