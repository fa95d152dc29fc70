package controlplane

import (
	"cmp"
	"context"
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/ai-storage/orchestrator/test/devcluster/process"
)

// Names of the processes.
const (
	Etcd              = "etcd"
	APIServer         = "kube-apiserver"
	ControllerManager = "kube-controller-manager"
	MetricsServer     = "metrics-server"
)

// healthTimeout bounds one look at a health endpoint.
const healthTimeout = 2 * time.Second

//go:embed audit-policy.yaml
var auditPolicy []byte

// noProxy is for those that talk to kubelets: a proxy that the machine uses
// cannot reach its own bridges.
var noProxy = []string{"NO_PROXY=*"}

// Options of a control plane.
type Options struct {
	// StateDir is an absolute path that holds everything, and BinDir the programs.
	StateDir string
	BinDir   string
	Ports    Ports
	// Address is where the API server listens; empty is loopback.
	Address string
	// Report tells a person about a finished step.
	Report func(format string, args ...any)
}

// AuditLogPath is where the API server writes its audit log, one JSON event a line.
func AuditLogPath(stateDir string) string { return filepath.Join(stateDir, "audit", "audit.log") }

// Start runs etcd, the API server and the controller manager, each once the
// one before is ready. Credentials must have been written.
func Start(ctx context.Context, o Options) error {
	if err := o.start(ctx, o.etcd(), loopbackURL("http", o.Ports.EtcdMetrics)+"/readyz"); err != nil {
		return err
	}
	if err := o.writeAuditPolicy(); err != nil {
		return err
	}
	if err := StartAPIServer(ctx, o); err != nil {
		return err
	}
	return o.start(ctx, o.controllerManager(), loopbackURL("https", o.Ports.ControllerManager)+"/healthz")
}

// StartAPIServer runs the API server alone: again, after it has ended.
func StartAPIServer(ctx context.Context, o Options) error {
	return o.start(ctx, o.apiServer(), o.Ports.server()+"/readyz")
}

func (o Options) start(ctx context.Context, spec process.Spec, ready string) error {
	if err := process.StartReady(ctx, o.StateDir, spec, process.AnswersOK(ready, healthTimeout)); err != nil {
		return err
	}
	o.Report("%s is ready", spec.Name)
	return nil
}

// StartMetricsServer runs metrics-server and returns when it is alive. It serves
// metrics once it has read those of a node twice.
func StartMetricsServer(ctx context.Context, o Options) error {
	ready := process.AnswersOK(loopbackURL("https", o.Ports.MetricsServer)+"/livez", healthTimeout)
	if err := process.StartReady(ctx, o.StateDir, o.metricsServer(), ready); err != nil {
		return err
	}
	o.Report("%s is running", MetricsServer)
	return nil
}

func (o Options) etcd() process.Spec {
	client, peer := loopbackURL("https", o.Ports.EtcdClient), loopbackURL("https", o.Ports.EtcdPeer)
	return process.Spec{Name: Etcd, Path: filepath.Join(o.BinDir, Etcd), Args: []string{
		"--name=devcluster",
		"--data-dir=" + filepath.Join(o.StateDir, Etcd),
		"--listen-client-urls=" + client,
		"--advertise-client-urls=" + client,
		"--cert-file=" + o.certificate("etcd"),
		"--key-file=" + o.key("etcd"),
		"--trusted-ca-file=" + o.certificate("etcd-ca"),
		"--client-cert-auth=true",
		// There is no peer, and no other user of the machine may be one.
		"--peer-cert-file=" + o.certificate("etcd"),
		"--peer-key-file=" + o.key("etcd"),
		"--peer-trusted-ca-file=" + o.certificate("etcd-ca"),
		"--peer-client-cert-auth=true",
		"--listen-peer-urls=" + peer,
		"--initial-advertise-peer-urls=" + peer,
		"--initial-cluster=devcluster=" + peer,
		"--listen-metrics-urls=" + loopbackURL("http", o.Ports.EtcdMetrics),
		// A crash of the machine ends the cluster anyway.
		"--unsafe-no-fsync=true",
		"--log-level=warn",
	}}
}

func (o Options) apiServer() process.Spec {
	return process.Spec{Name: APIServer, Path: filepath.Join(o.BinDir, APIServer), Env: noProxy, Args: []string{
		"--bind-address=" + cmp.Or(o.Address, "127.0.0.1"),
		fmt.Sprintf("--secure-port=%d", o.Ports.APIServer),
		"--tls-cert-file=" + o.certificate("kube-apiserver"),
		"--tls-private-key-file=" + o.key("kube-apiserver"),
		"--client-ca-file=" + o.certificate("ca"),
		"--etcd-servers=" + loopbackURL("https", o.Ports.EtcdClient),
		"--etcd-cafile=" + o.certificate("etcd-ca"),
		"--etcd-certfile=" + o.certificate("etcd-client"),
		"--etcd-keyfile=" + o.key("etcd-client"),
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction",
		"--allow-privileged=true",
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + o.key("service-account"),
		"--service-account-signing-key-file=" + o.key("service-account"),
		"--service-cluster-ip-range=" + serviceAddresses,
		// An endpoint on loopback is refused. Where Services work, devcluster makes one.
		"--endpoint-reconciler-type=none",
		"--requestheader-client-ca-file=" + o.certificate("front-proxy-ca"),
		"--requestheader-allowed-names=" + frontProxyUser,
		"--requestheader-username-headers=X-Remote-User",
		"--requestheader-uid-headers=X-Remote-Uid",
		"--requestheader-group-headers=X-Remote-Group",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--proxy-client-cert-file=" + o.certificate("front-proxy-client"),
		"--proxy-client-key-file=" + o.key("front-proxy-client"),
		"--kubelet-client-certificate=" + o.certificate("kubelet-client"),
		"--kubelet-client-key=" + o.key("kubelet-client"),
		"--kubelet-preferred-address-types=InternalIP,Hostname",
		"--audit-policy-file=" + o.auditPolicyPath(),
		"--audit-log-path=" + AuditLogPath(o.StateDir),
		// A process that ends must not take events along that tests look for.
		"--audit-log-mode=blocking",
		"--profiling=false",
	}}
}

func (o Options) controllerManager() process.Spec {
	kubeconfig := KubeconfigPath(o.StateDir, ControllerManager)
	return process.Spec{Name: ControllerManager, Path: filepath.Join(o.BinDir, ControllerManager), Args: []string{
		"--bind-address=127.0.0.1",
		fmt.Sprintf("--secure-port=%d", o.Ports.ControllerManager),
		"--tls-cert-file=" + o.certificate(ControllerManager),
		"--tls-private-key-file=" + o.key(ControllerManager),
		"--kubeconfig=" + kubeconfig,
		"--authentication-kubeconfig=" + kubeconfig,
		"--authorization-kubeconfig=" + kubeconfig,
		"--use-service-account-credentials=true",
		"--service-account-private-key-file=" + o.key("service-account"),
		"--root-ca-file=" + o.certificate("ca"),
		"--cluster-signing-cert-file=" + o.certificate("ca"),
		"--cluster-signing-key-file=" + o.key("ca"),
		"--enable-hostpath-provisioner=true",
		"--leader-elect=false",
		"--profiling=false",
	}}
}

func (o Options) metricsServer() process.Spec {
	kubeconfig := KubeconfigPath(o.StateDir, MetricsServer)
	return process.Spec{Name: MetricsServer, Path: filepath.Join(o.BinDir, MetricsServer), Env: noProxy, Args: []string{
		"--bind-address=127.0.0.1",
		fmt.Sprintf("--secure-port=%d", o.Ports.MetricsServer),
		"--tls-cert-file=" + o.certificate(MetricsServer),
		"--tls-private-key-file=" + o.key(MetricsServer),
		"--kubeconfig=" + kubeconfig,
		"--authentication-kubeconfig=" + kubeconfig,
		"--authorization-kubeconfig=" + kubeconfig,
		"--metric-resolution=10s",
		"--kubelet-request-timeout=5s",
		"--kubelet-use-node-status-port",
		"--kubelet-preferred-address-types=InternalIP",
		// Kubelets make their own serving certificates.
		"--kubelet-insecure-tls",
	}}
}

func (o Options) certificate(name string) string { return CertificatePath(o.StateDir, name) }
func (o Options) key(name string) string         { return KeyPath(o.StateDir, name) }

func (o Options) auditPolicyPath() string {
	return filepath.Join(filepath.Dir(AuditLogPath(o.StateDir)), "policy.yaml")
}

func (o Options) writeAuditPolicy() error {
	if err := os.MkdirAll(filepath.Dir(o.auditPolicyPath()), 0o755); err != nil {
		return fmt.Errorf("write audit policy: %w", err)
	}
	if err := os.WriteFile(o.auditPolicyPath(), auditPolicy, 0o644); err != nil {
		return fmt.Errorf("write audit policy: %w", err)
	}
	return nil
}
