package pki

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	certutil "k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/keyutil"
)

func newAuthority(t *testing.T, name string) *Authority {
	t.Helper()
	authority, err := NewAuthority(name, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	return authority
}

func issue(t *testing.T, authority *Authority, subject Subject) (Pair, *x509.Certificate) {
	t.Helper()
	pair, err := authority.Issue(subject)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := certutil.ParseCertsPEM(pair.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	return pair, parsed[0]
}

func TestIssue(t *testing.T) {
	authority, other := newAuthority(t, "ours"), newAuthority(t, "other")
	ours, err := certutil.NewPoolFromBytes(authority.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	others, err := certutil.NewPoolFromBytes(other.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	client := Subject{CommonName: "system:node:a", Groups: []string{"system:nodes"}}
	server := Subject{CommonName: "api", Names: []string{"kubernetes.default.svc"}, Addresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	for _, test := range []struct {
		name    string
		subject Subject
		options x509.VerifyOptions
		valid   bool
	}{
		{"client", client, x509.VerifyOptions{Roots: ours, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, true},
		{"client as server", client, x509.VerifyOptions{Roots: ours, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}, false},
		{"client of another authority", client, x509.VerifyOptions{Roots: others, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, false},
		{"server by name", server, x509.VerifyOptions{Roots: ours, DNSName: "kubernetes.default.svc"}, true},
		{"server by address", server, x509.VerifyOptions{Roots: ours, DNSName: "127.0.0.1"}, true},
		{"server by another name", server, x509.VerifyOptions{Roots: ours, DNSName: "example.com"}, false},
		{"after the end", server, x509.VerifyOptions{Roots: ours, CurrentTime: time.Now().Add(validity + time.Hour)}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			pair, certificate := issue(t, authority, test.subject)
			if _, err := tls.X509KeyPair(pair.Certificate, pair.Key); err != nil {
				t.Errorf("key does not fit the certificate: %v", err)
			}
			if _, err := certificate.Verify(test.options); (err == nil) != test.valid {
				t.Errorf("verify: %v; want valid: %v", err, test.valid)
			}
			if diff := cmp.Diff(test.subject.Groups, certificate.Subject.Organization); diff != "" {
				t.Errorf("groups (-want +got):\n%s", diff)
			}
		})
	}
}

func TestKeyIsReadByKubernetes(t *testing.T) {
	_, encoded, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := keyutil.ParsePrivateKeyPEM(encoded); err != nil {
		t.Error(err)
	}
	if _, err := keyutil.ParsePublicKeysPEM(encoded); err != nil {
		t.Error(err)
	}
}
