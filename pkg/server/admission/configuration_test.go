package admission

import (
	"fmt"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

func of(method v1alpha1.ReplacementMethod, phase v1alpha1.Phase, uid string) v1alpha1.PodMigration {
	m := v1alpha1.PodMigration{}
	m.Status.Phase = phase
	m.Status.Handover = &v1alpha1.Handover{Method: method, Owner: &metav1.OwnerReference{UID: types.UID(uid)}}
	return m
}

func TestExpression(t *testing.T) {
	var many []v1alpha1.PodMigration
	for i := range maxOwners + 1 {
		many = append(many, of(v1alpha1.MethodRelease, v1alpha1.PhasePlacing, fmt.Sprint("u", i)))
	}
	for name, test := range map[string]struct {
		migrations []v1alpha1.PodMigration
		want       string
	}{
		"none":     {nil, "false"},
		"too many": {many, matchControlled},
		"some": {[]v1alpha1.PodMigration{
			of(v1alpha1.MethodRecreate, v1alpha1.PhaseHandingOver, "b"), of(v1alpha1.MethodRelease, v1alpha1.PhasePreparing, "a"),
			of(v1alpha1.MethodRelease, v1alpha1.PhasePlacing, "a"), of(v1alpha1.MethodAdopt, v1alpha1.PhasePlacing, "adopts"),
			of(v1alpha1.MethodRelease, v1alpha1.PhaseSucceeded, "finished"), of(v1alpha1.MethodRelease, v1alpha1.PhasePlacing, "quote'"), {},
		}, strings.TrimSuffix(matchControlled, ")") + " && o.uid in ['a','b'])"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Expression(test.migrations); got != test.want {
				t.Errorf("got %s\nwant %s", got, test.want)
			}
		})
	}
}

func TestConfigurationIsKeptInStep(t *testing.T) {
	now := time.Now()
	found := &admissionv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "w"},
		Webhooks: []admissionv1.MutatingWebhook{{
			Name:            "pods",
			ClientConfig:    admissionv1.WebhookClientConfig{Service: &admissionv1.ServiceReference{Name: "s"}},
			MatchConditions: []admissionv1.MatchCondition{{Name: "of-others", Expression: "true"}},
		}},
	}
	m := of(v1alpha1.MethodRelease, v1alpha1.PhasePlacing, "a")
	m.Namespace, m.Name = "default", "m"
	for name, url := range map[string]string{"by service": "", "by URL": "https://localhost:1/mutate-pods"} {
		t.Run(name, func(t *testing.T) {
			k8s := fake.NewClientBuilder().WithScheme(testScheme(t)).WithObjects(found.DeepCopy(), m.DeepCopy()).Build()
			c := &configurer{live: k8s, writer: k8s, certificates: newCertificates(k8s, &now), name: "w", url: url}
			versions := map[string]bool{}
			for range 2 {
				if _, err := c.Reconcile(t.Context(), ctrl.Request{}); err != nil {
					t.Fatal(err)
				}
				got := &admissionv1.MutatingWebhookConfiguration{}
				if err := k8s.Get(t.Context(), types.NamespacedName{Name: "w"}, got); err != nil {
					t.Fatal(err)
				}
				versions[got.ResourceVersion] = true
				w := got.Webhooks[0]
				if len(w.MatchConditions) != 1 || !strings.Contains(w.MatchConditions[0].Expression, "'a'") || len(w.ClientConfig.CABundle) == 0 {
					t.Errorf("webhook %+v", w)
				}
				if byURL := w.ClientConfig.URL != nil; byURL != (url != "") || byURL == (w.ClientConfig.Service != nil) {
					t.Errorf("reached by %+v", w.ClientConfig)
				}
			}
			if len(versions) != 1 {
				t.Error("written again without need")
			}
		})
	}
}

func TestConfigurationIsNotMade(t *testing.T) {
	now := time.Now()
	k8s := fake.NewClientBuilder().WithScheme(testScheme(t)).Build()
	c := &configurer{live: k8s, writer: k8s, certificates: newCertificates(k8s, &now), name: "w"}
	if result, err := c.Reconcile(t.Context(), ctrl.Request{}); err != nil || result.RequeueAfter == 0 {
		t.Errorf("%+v, %v", result, err)
	}
}

func TestServerName(t *testing.T) {
	for name, test := range map[string]struct {
		options Options
		want    string
	}{
		"service":      {Options{Namespace: "ns"}, "ai-storage-rebalancer-webhook.ns.svc"},
		"URL":          {Options{Namespace: "ns", URL: "https://localhost:9443"}, "localhost"},
		"address":      {Options{Namespace: "ns", URL: "https://127.0.0.1:9443"}, ""},
		"plain":        {Options{Namespace: "ns", URL: "http://localhost:9443"}, ""},
		"with a path":  {Options{Namespace: "ns", URL: "https://localhost:9443/x"}, ""},
		"no namespace": {Options{}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := test.options.withDefaults().serverName()
			if got != test.want || (err == nil) != (test.want != "") {
				t.Errorf("%q, %v, want %q", got, err, test.want)
			}
		})
	}
}
