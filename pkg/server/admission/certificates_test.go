package admission

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
)

const day = 24 * time.Hour

func newCertificates(c client.Client, now *time.Time) *Certificates {
	return &Certificates{
		live: c, writer: c, names: []string{"webhook.ns.svc", "localhost"}, now: func() time.Time { return *now },
		secret: types.NamespacedName{Namespace: "ns", Name: "webhook"},
	}
}

func ensure(t *testing.T, c *Certificates) []byte {
	t.Helper()
	authority, err := c.ensure(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(authority)
	served, err := c.Get(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range c.names {
		if _, err := served.Leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: pool, CurrentTime: c.now()}); err != nil {
			t.Errorf("the API server would not trust it: %v", err)
		}
	}
	return authority
}

func TestCertificatesAreRenewed(t *testing.T) {
	now := time.Now()
	c := newCertificates(fake.NewClientBuilder().WithScheme(testScheme(t)).Build(), &now)
	if _, err := c.Get(nil); err == nil {
		t.Error("a certificate before there is one")
	}
	authority := ensure(t, c)
	first, _ := c.Get(nil)
	now = now.Add(200 * day)
	ensure(t, c)
	if second, _ := c.Get(nil); !bytes.Equal(first.Certificate[0], second.Certificate[0]) {
		t.Error("renewed without need")
	}
	now = now.Add(100 * day) // 65 days before its end
	if again := ensure(t, c); !bytes.Equal(again, authority) {
		t.Error("the authority was renewed without need")
	}
	if second, _ := c.Get(nil); bytes.Equal(first.Certificate[0], second.Certificate[0]) {
		t.Error("not renewed before its end")
	}
	now = now.Add(9*365*day + 200*day)
	if again := ensure(t, c); bytes.Equal(again, authority) {
		t.Error("the authority was not renewed before its end")
	}
}

func TestCertificatesOfAnEmptyOrForeignSecret(t *testing.T) {
	now := time.Now()
	for name, data := range map[string]map[string][]byte{
		"empty": nil, "broken": {authorityCertificate: []byte("x"), authorityKey: []byte("y")},
	} {
		t.Run(name, func(t *testing.T) {
			secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "webhook", Labels: map[string]string{"mine": "1"}}, Data: data}
			k8s := fake.NewClientBuilder().WithScheme(testScheme(t)).WithObjects(secret).Build()
			ensure(t, newCertificates(k8s, &now))
			if err := k8s.Get(t.Context(), client.ObjectKeyFromObject(secret), secret); err != nil || secret.Labels["mine"] != "1" {
				t.Errorf("labels %v, %v", secret.Labels, err)
			}
		})
	}
}

// Of two replicas that make a certificate at once, both serve the same one.
func TestCertificatesOfTheFasterReplica(t *testing.T) {
	now := time.Now()
	k8s := fake.NewClientBuilder().WithScheme(testScheme(t)).Build()
	faster := newCertificates(k8s, &now)
	slower := newCertificates(interceptor.NewClient(k8s, interceptor.Funcs{
		Create: func(ctx context.Context, c client.WithWatch, object client.Object, options ...client.CreateOption) error {
			ensure(t, faster)
			return c.Create(ctx, object, options...)
		},
	}), &now)
	ensure(t, slower)
	a, _ := faster.Get(nil)
	b, _ := slower.Get(&tls.ClientHelloInfo{})
	if !bytes.Equal(a.Certificate[0], b.Certificate[0]) {
		t.Error("the replicas serve different certificates")
	}
}
