package admission

import (
	"context"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"sync/atomic"
	"time"

	"github.com/open-policy-agent/cert-controller/pkg/rotator"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Keys of the Secret.
const (
	authorityCertificate = "ca.crt"
	authorityKey         = "ca.key"
	serverCertificate    = corev1.TLSCertKey
	serverKey            = corev1.TLSPrivateKeyKey
)

const (
	authorityName     = "ai-storage-rebalancer-ca"
	authorityValidity = 10 * 365 * 24 * time.Hour
	serverValidity    = 365 * 24 * time.Hour
	// clockSkew is how far behind the clock of an API server may be.
	clockSkew = time.Hour
	// renewBefore is how long before its end a certificate is replaced.
	renewBefore = 90 * 24 * time.Hour
	// reloadPeriod is how soon a replica serves what another one has renewed.
	reloadPeriod = time.Minute
	// retryPeriod is how soon it tries again after a failure.
	retryPeriod = 5 * time.Second
)

// Certificates keeps the Secret with the certificate authority and the
// certificate of the webhook, and serves the latter. The certificates are created by
// cert-controller. Its own controller is not used: that reads all Secrets of the
// namespace and every webhook configuration, and needs the Secret as a mounted
// directory, which a rebalancer outside of a pod does not have.
type Certificates struct {
	live   client.Reader
	writer client.Writer
	secret types.NamespacedName
	names  []string
	now    func() time.Time
	serves atomic.Pointer[tls.Certificate]
}

// Start keeps the certificate fresh until the context ends.
func (c *Certificates) Start(ctx context.Context) error {
	var last string
	next := reloadPeriod
	// It ends with the context alone.
	_ = wait.DelayFunc(func() time.Duration { return next }).Until(ctx, true, true, func(ctx context.Context) (bool, error) {
		next = reloadPeriod
		if _, err := c.ensure(ctx); err != nil && ctx.Err() == nil {
			next = retryPeriod
			if err.Error() != last {
				ctrl.LoggerFrom(ctx).Error(err, "Failed to renew the certificate of the webhook, trying again", "secret", klog.KRef(c.secret.Namespace, c.secret.Name))
			}
			last = err.Error()
		}
		return false, nil
	})
	return nil
}

// NeedLeaderElection makes every replica serve.
func (c *Certificates) NeedLeaderElection() bool { return false }

// Get is asked at every TLS handshake.
func (c *Certificates) Get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if certificate := c.serves.Load(); certificate != nil {
		return certificate, nil
	}
	return nil, errors.New("the webhook has no certificate yet")
}

// ensure creates what is missing or about to expire, serves it, and returns the
// authority that the API server has to trust. When another replica was faster,
// its certificates count.
func (c *Certificates) ensure(ctx context.Context) (authority []byte, err error) {
	secret := &corev1.Secret{}
	err = c.live.Get(ctx, c.secret, secret)
	missing := apierrors.IsNotFound(err)
	if err != nil && !missing {
		return nil, fmt.Errorf("reading secret %s: %w", c.secret, err)
	}
	fresh, err := c.renewed(secret.Data)
	if err != nil {
		return nil, err
	}
	if fresh != nil {
		if secret, err = c.write(ctx, secret, fresh, missing); err != nil {
			return nil, err
		}
	}
	certificate, err := tls.X509KeyPair(secret.Data[serverCertificate], secret.Data[serverKey])
	if err != nil {
		return nil, fmt.Errorf("reading the certificate in secret %s: %w", c.secret, err)
	}
	c.serves.Store(&certificate)
	return secret.Data[authorityCertificate], nil
}

func (c *Certificates) write(ctx context.Context, secret *corev1.Secret, data map[string][]byte, missing bool) (*corev1.Secret, error) {
	written := secret.DeepCopy()
	if written.Data == nil {
		written.Data = map[string][]byte{}
	}
	maps.Copy(written.Data, data)
	var err error
	if missing {
		written.ObjectMeta = metav1.ObjectMeta{Namespace: c.secret.Namespace, Name: c.secret.Name}
		written.Type = corev1.SecretTypeOpaque
		err = c.writer.Create(ctx, written)
	} else {
		// The resourceVersion makes it fail when another replica was faster.
		err = c.writer.Update(ctx, written)
	}
	if err == nil {
		ctrl.LoggerFrom(ctx).Info("Renewed the certificate of the webhook", "secret", klog.KRef(c.secret.Namespace, c.secret.Name))
		return written, nil
	}
	if !apierrors.IsAlreadyExists(err) && !apierrors.IsConflict(err) {
		return nil, fmt.Errorf("writing secret %s: %w", c.secret, err)
	}
	if err := c.live.Get(ctx, c.secret, written); err != nil {
		return nil, fmt.Errorf("reading secret %s: %w", c.secret, err)
	}
	return written, nil
}

// renewed returns what the Secret should hold; nil when it does.
func (c *Certificates) renewed(data map[string][]byte) (map[string][]byte, error) {
	usages := []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	maker := rotator.CertRotator{
		CAName: authorityName, CAOrganization: "ai-storage", DNSName: c.names[0], ExtraDNSNames: c.names[1:], ExtKeyUsages: &usages,
	}
	begin, soon := c.now().Add(-clockSkew), c.now().Add(renewBefore)
	authority, fresh := readAuthority(data, soon), map[string][]byte{}
	if authority != nil && c.isValid(data, &usages, soon) {
		return nil, nil
	}
	if authority == nil {
		var err error
		if authority, err = maker.CreateCACert(begin, c.now().Add(authorityValidity)); err != nil {
			return nil, fmt.Errorf("creating a certificate authority: %w", err)
		}
		fresh = map[string][]byte{authorityCertificate: authority.CertPEM, authorityKey: authority.KeyPEM}
	}
	certificate, key, err := maker.CreateCertPEM(authority, begin, c.now().Add(serverValidity))
	if err != nil {
		return nil, fmt.Errorf("creating a certificate: %w", err)
	}
	fresh[serverCertificate], fresh[serverKey] = certificate, key
	return fresh, nil
}

// isValid reports whether the certificate is good for all names until a moment.
func (c *Certificates) isValid(data map[string][]byte, usages *[]x509.ExtKeyUsage, until time.Time) bool {
	for _, name := range c.names {
		if valid, err := rotator.ValidCert(data[authorityCertificate], data[serverCertificate], data[serverKey], name, usages, until); err != nil || !valid {
			return false
		}
	}
	return true
}

// readAuthority returns the authority in a Secret; nil when there is none that is
// good until the given moment.
func readAuthority(data map[string][]byte, until time.Time) *rotator.KeyPairArtifacts {
	certificate, key := data[authorityCertificate], data[authorityKey]
	if valid, err := rotator.ValidCert(certificate, certificate, key, authorityName, nil, until); err != nil || !valid {
		return nil
	}
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		return nil
	}
	signer, isRSA := pair.PrivateKey.(*rsa.PrivateKey)
	if !isRSA {
		return nil
	}
	return &rotator.KeyPairArtifacts{Cert: pair.Leaf, Key: signer, CertPEM: certificate, KeyPEM: key}
}
