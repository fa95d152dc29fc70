package controlplane

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/ai-storage/orchestrator/test/devcluster/pki"
)

// Users of the cluster that are not service accounts. The RBAC for those that
// Kubernetes does not know is in manifests/.
const (
	kubeletClientUser = "devcluster:kube-apiserver-kubelet-client"
	metricsServerUser = "devcluster:metrics-server"
	frontProxyUser    = "front-proxy-client"
)

// metricsServerName is the name under which the API server reaches metrics-server.
const metricsServerName = "metrics-server.kube-system.svc"

// APICertificate is what the rebalancer serves its HTTP API with.
const APICertificate = "rebalancer-api"

// Credentials are the keys of one cluster. The files lie in <StateDir>/pki and
// <StateDir>/kubeconfig.
type Credentials struct {
	stateDir string
	server   string
	cluster  *pki.Authority
}

// NewCredentials makes new keys and certificates and writes them.
func NewCredentials(stateDir string, ports Ports, now func() time.Time) (*Credentials, error) {
	authorities := map[string]*pki.Authority{}
	// Three authorities: a client certificate of the cluster must open neither
	// etcd nor the front proxy's right to speak for anybody.
	for _, name := range []string{"ca", "etcd-ca", "front-proxy-ca"} {
		authority, err := pki.NewAuthority("devcluster-"+name, now)
		if err != nil {
			return nil, err
		}
		authorities[name] = authority
	}
	c := &Credentials{stateDir: stateDir, server: ports.server(), cluster: authorities["ca"]}
	for _, directory := range []string{"pki", "kubeconfig"} {
		if err := os.MkdirAll(filepath.Join(stateDir, directory), 0o700); err != nil {
			return nil, fmt.Errorf("write credentials: %w", err)
		}
	}
	for name, authority := range authorities {
		if err := c.writePair(name, authority.Pair); err != nil {
			return nil, err
		}
	}
	if err := c.issueCertificates(authorities); err != nil {
		return nil, err
	}
	_, key, err := pki.NewKey()
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(c.path("service-account.key"), key, 0o600); err != nil {
		return nil, fmt.Errorf("write credentials: %w", err)
	}
	return c, c.writeUsers()
}

func (c *Credentials) issueCertificates(authorities map[string]*pki.Authority) error {
	loopback := []net.IP{net.IPv4(127, 0, 0, 1)}
	for _, certificate := range []struct {
		name, authority string
		subject         pki.Subject
	}{
		{"etcd", "etcd-ca", pki.Subject{CommonName: "etcd", Names: []string{"localhost"}, Addresses: loopback}},
		{"etcd-client", "etcd-ca", pki.Subject{CommonName: "kube-apiserver-etcd-client"}},
		{"kube-apiserver", "ca", pki.Subject{
			CommonName: "kube-apiserver",
			Names:      []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"},
			Addresses:  append([]net.IP{net.ParseIP(firstServiceAddress)}, loopback...),
		}},
		{"kubelet-client", "ca", pki.Subject{CommonName: kubeletClientUser}},
		{"front-proxy-client", "front-proxy-ca", pki.Subject{CommonName: frontProxyUser}},
		{"kube-controller-manager", "ca", pki.Subject{CommonName: "kube-controller-manager", Names: []string{"localhost"}, Addresses: loopback}},
		{"metrics-server", "ca", pki.Subject{CommonName: "metrics-server", Names: []string{"localhost", metricsServerName}, Addresses: loopback}},
		{APICertificate, "ca", pki.Subject{CommonName: "ai-storage-rebalancer", Names: []string{"localhost"}, Addresses: loopback}},
		{"simulated-kubelet", "ca", pki.Subject{CommonName: "simulated-kubelet", Names: []string{"localhost"}, Addresses: loopback}},
	} {
		pair, err := authorities[certificate.authority].Issue(certificate.subject)
		if err != nil {
			return err
		}
		if err := c.writePair(certificate.name, pair); err != nil {
			return err
		}
	}
	return nil
}

func (c *Credentials) writeUsers() error {
	for _, user := range []struct {
		name    string
		subject pki.Subject
	}{
		{"admin", pki.Subject{CommonName: "devcluster:admin", Groups: []string{"system:masters"}}},
		{"kube-controller-manager", pki.Subject{CommonName: "system:kube-controller-manager"}},
		{"metrics-server", pki.Subject{CommonName: metricsServerUser}},
	} {
		if _, err := c.UserKubeconfig(user.name, user.subject); err != nil {
			return err
		}
	}
	return nil
}

// UserKubeconfig writes a kubeconfig with a client certificate for the subject
// and returns its path.
func (c *Credentials) UserKubeconfig(name string, subject pki.Subject) (string, error) {
	pair, err := c.cluster.Issue(subject)
	if err != nil {
		return "", err
	}
	return c.writeKubeconfig(name, clientcmdapi.AuthInfo{
		ClientCertificateData: pair.Certificate,
		ClientKeyData:         pair.Key,
	})
}

// NodeKubeconfig writes the credentials of a kubelet, which the Node
// authorizer knows by name and group, and returns their path.
func (c *Credentials) NodeKubeconfig(node string) (string, error) {
	return c.UserKubeconfig(nodeCredential(node), pki.Subject{CommonName: "system:node:" + node, Groups: []string{"system:nodes"}})
}

// NodeKubeconfigPath is where NodeKubeconfig writes.
func NodeKubeconfigPath(stateDir, node string) string {
	return KubeconfigPath(stateDir, nodeCredential(node))
}

func nodeCredential(node string) string { return "node-" + node }

// TokenKubeconfig writes a kubeconfig with a bearer token and returns its path.
func (c *Credentials) TokenKubeconfig(name, token string) (string, error) {
	return c.writeKubeconfig(name, clientcmdapi.AuthInfo{Token: token})
}

func (c *Credentials) writeKubeconfig(name string, user clientcmdapi.AuthInfo) (string, error) {
	config := clientcmdapi.NewConfig()
	config.Clusters["devcluster"] = &clientcmdapi.Cluster{Server: c.server, CertificateAuthorityData: c.cluster.Certificate}
	config.AuthInfos[name] = &user
	config.Contexts["devcluster"] = &clientcmdapi.Context{Cluster: "devcluster", AuthInfo: name}
	config.CurrentContext = "devcluster"
	path := KubeconfigPath(c.stateDir, name)
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		return "", fmt.Errorf("write kubeconfig of %s: %w", name, err)
	}
	return path, nil
}

// KubeconfigPath is where the kubeconfig of a user of the cluster lies.
func KubeconfigPath(stateDir, name string) string {
	return filepath.Join(stateDir, "kubeconfig", name+".kubeconfig")
}

// CertificatePath and KeyPath are where a certificate and its key lie; the
// authority of the cluster is "ca".
func CertificatePath(stateDir, name string) string {
	return filepath.Join(stateDir, "pki", name+".crt")
}

// KeyPath: see CertificatePath.
func KeyPath(stateDir, name string) string { return filepath.Join(stateDir, "pki", name+".key") }

func (c *Credentials) path(file string) string { return filepath.Join(c.stateDir, "pki", file) }

func (c *Credentials) writePair(name string, pair pki.Pair) error {
	if err := os.WriteFile(CertificatePath(c.stateDir, name), pair.Certificate, 0o644); err != nil {
		return fmt.Errorf("write credentials: %w", err)
	}
	if err := os.WriteFile(KeyPath(c.stateDir, name), pair.Key, 0o600); err != nil {
		return fmt.Errorf("write credentials: %w", err)
	}
	return nil
}
