package main

import (
	"context"
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/client-go/rest"
	certutil "k8s.io/client-go/util/cert"
	ctrl "sigs.k8s.io/controller-runtime"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
)

// writeCertificate writes one for a host and its key, as a tool that renews them does.
func writeCertificate(t *testing.T, o *options, host string) {
	t.Helper()
	certificate, key, err := certutil.GenerateSelfSignedCertKey(host, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for path, content := range map[string][]byte{o.tlsCertFile: certificate, o.tlsPrivateKeyFile: key} {
		if err := os.WriteFile(path+".new", content, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
}

func servedHost(t *testing.T, source certificateSource) string {
	t.Helper()
	certificate, err := source(nil)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(certificate.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	return parsed.DNSNames[0]
}

func TestARenewedCertificateIsServed(t *testing.T) {
	o := &options{tlsCertFile: filepath.Join(t.TempDir(), "tls.crt")}
	o.tlsPrivateKeyFile = filepath.Join(filepath.Dir(o.tlsCertFile), "tls.key")
	writeCertificate(t, o, "first.example")
	mgr, err := ctrl.NewManager(&rest.Config{Host: "https://localhost:1"}, ctrl.Options{
		Logger: logr.Discard(), Metrics: metricsserver.Options{BindAddress: "0"}, HealthProbeBindAddress: "0",
	})
	if err != nil {
		t.Fatal(err)
	}
	source, err := fileCertificate(mgr, o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- mgr.Start(ctx) }()
	if host := servedHost(t, source); host != "first.example" {
		t.Fatalf("the certificate of %s is served", host)
	}
	// It looks every ten seconds, and is notified of most changes sooner.
	writeCertificate(t, o, "second.example")
	for deadline := time.Now().Add(30 * time.Second); servedHost(t, source) != "second.example"; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the old certificate is still served")
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestACertificateThatIsNotThereIsNamed(t *testing.T) {
	o := &options{tlsCertFile: filepath.Join(t.TempDir(), "tls.crt"), tlsPrivateKeyFile: "tls.key"}
	if _, err := fileCertificate(nil, o); err == nil {
		t.Error("a missing certificate is not refused")
	} else {
		t.Log(err)
	}
}
