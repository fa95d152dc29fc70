package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"time"

	certutil "k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/keyutil"
)

// validity is how long a certificate holds: longer than any local cluster lives.
const validity = 365 * 24 * time.Hour

// clockSkew is how far the start of validity lies in the past, for processes
// on machines whose clock is set back after a restart.
const clockSkew = time.Hour

// Pair is a certificate and its private key, PEM encoded.
type Pair struct {
	Certificate []byte
	Key         []byte
}

// Authority signs certificates.
type Authority struct {
	Pair
	certificate *x509.Certificate
	key         crypto.Signer
	now         func() time.Time
}

// NewAuthority makes a self-signed authority.
func NewAuthority(commonName string, now func() time.Time) (*Authority, error) {
	key, keyPEM, err := NewKey()
	if err != nil {
		return nil, fmt.Errorf("authority %s: %w", commonName, err)
	}
	config := certutil.Config{CommonName: commonName, NotBefore: now().Add(-clockSkew).UTC()}
	certificate, err := certutil.NewSelfSignedCACert(config, key)
	if err != nil {
		return nil, fmt.Errorf("authority %s: %w", commonName, err)
	}
	return &Authority{
		Pair:        Pair{Certificate: encode(certificate.Raw), Key: keyPEM},
		certificate: certificate,
		key:         key,
		now:         now,
	}, nil
}

// Subject says whom a certificate names. With Names or Addresses it is valid
// for a server as well as for a client.
type Subject struct {
	CommonName string
	// Groups become organizations: Kubernetes reads them as the user's groups.
	Groups    []string
	Names     []string
	Addresses []net.IP
}

// Issue signs a certificate for a new key.
func (a *Authority) Issue(subject Subject) (Pair, error) {
	key, keyPEM, err := NewKey()
	if err != nil {
		return Pair{}, fmt.Errorf("certificate %s: %w", subject.CommonName, err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return Pair{}, fmt.Errorf("certificate %s: %w", subject.CommonName, err)
	}
	usages := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	if len(subject.Names) > 0 || len(subject.Addresses) > 0 {
		usages = append(usages, x509.ExtKeyUsageServerAuth)
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: subject.CommonName, Organization: subject.Groups},
		DNSNames:     subject.Names,
		IPAddresses:  subject.Addresses,
		NotBefore:    a.now().Add(-clockSkew).UTC(),
		NotAfter:     a.now().Add(validity).UTC(),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  usages,
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	if err != nil {
		return Pair{}, fmt.Errorf("certificate %s: %w", subject.CommonName, err)
	}
	return Pair{Certificate: encode(raw), Key: keyPEM}, nil
}

// NewKey makes a private key and its PEM encoding.
func NewKey() (crypto.Signer, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make a key: %w", err)
	}
	encoded, err := keyutil.MarshalPrivateKeyToPEM(key)
	if err != nil {
		return nil, nil, fmt.Errorf("encode a key: %w", err)
	}
	return key, encoded, nil
}

func encode(raw []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: certutil.CertificateBlockType, Bytes: raw})
}
