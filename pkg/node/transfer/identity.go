package transfer

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"math/big"
	"net"
	"time"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// protocol is what both sides name within TLS (ALPN). A side of another version is
// refused there.
const protocol = "ai-storage-transfer/1"

// Identity is a key made for the occasion. Its fingerprint tells the other side whom to
// talk to: there is no authority that would.
type Identity struct {
	certificate tls.Certificate
	fingerprint string
}

// NewIdentity makes a key that lives as long as this process.
func NewIdentity() (*Identity, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	// Nobody looks at the dates: the fingerprint decides.
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "node-agent"},
		NotBefore: time.Unix(0, 0), NotAfter: time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return &Identity{certificate: tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, fingerprint: fingerprintOf(der)}, nil
}

// Fingerprint is the SHA-256 of the certificate, "sha256:" and 64 hexadecimal digits.
func (i *Identity) Fingerprint() string { return i.fingerprint }

func fingerprintOf(certificate []byte) string {
	sum := sha256.Sum256(certificate)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// ClientConfig is for connections to the one side that has this fingerprint.
func (i *Identity) ClientConfig(peer string) (*tls.Config, error) {
	if !v1alpha1.IsDigest(peer) {
		return nil, failure(ReasonRefused, "%q is no fingerprint of a receiver", peer)
	}
	config := i.config(func(fingerprint string) bool { return fingerprint == peer })
	// The name of the other side says nothing. Its fingerprint, compared below, does.
	config.InsecureSkipVerify = true
	return config, nil
}

// Dial connects to the receiver that has this address and fingerprint.
func (i *Identity) Dial(ctx context.Context, address, peer string) (net.Conn, error) {
	config, err := i.ClientConfig(peer)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	conn, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", address)
	if err != nil && ReasonOf(err) != ReasonRefused {
		err = &Error{Reason: ReasonDisconnected, Err: err}
	}
	return conn, err
}

// serverConfig is for connections of those whose fingerprint is known.
func (i *Identity) serverConfig(knows func(fingerprint string) bool) *tls.Config {
	config := i.config(knows)
	config.ClientAuth = tls.RequireAnyClientCert
	return config
}

func (i *Identity) config(accepts func(fingerprint string) bool) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{i.certificate}, NextProtos: []string{protocol},
		// Each connection proves who it is with its key.
		SessionTicketsDisabled:      true,
		DynamicRecordSizingDisabled: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			if state.NegotiatedProtocol != protocol {
				return failure(ReasonRefused, "the other side does not name the protocol %s", protocol)
			}
			if len(state.PeerCertificates) != 1 {
				return failure(ReasonRefused, "the other side has %d certificates, want one", len(state.PeerCertificates))
			}
			if got := fingerprintOf(state.PeerCertificates[0].Raw); !accepts(got) {
				return failure(ReasonRefused, "the other side has the fingerprint %s, which is not expected", got)
			}
			return nil
		},
	}
}
