package integration

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/legacy"
	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"
	metricsclient "k8s.io/metrics/pkg/client/clientset/versioned"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/controllers/migration"
	"github.com/ai-storage/orchestrator/pkg/controllers/rebalance"
	"github.com/ai-storage/orchestrator/pkg/scheduling/budget"
	"github.com/ai-storage/orchestrator/pkg/server/admission"
	"github.com/ai-storage/orchestrator/pkg/server/restapi"
	"github.com/ai-storage/orchestrator/pkg/server/restapi/auth"
)

// api is a running HTTP API with the rights of the rebalancer, and a client that
// holds every request and answer against the OpenAPI document.
type api struct {
	t        *testing.T
	url      string
	client   *http.Client
	document routers.Router
	registry *prometheus.Registry
	stop     func()
}

// startAPI serves as cmd/rebalancer does; change alters the options.
func startAPI(t *testing.T, limits *budget.Limits, change func(*restapi.Options)) *api {
	t.Helper()
	mgr, err := ctrl.NewManager(rebalancerConfig(t), ctrl.Options{
		Scheme: scheme, Metrics: metricsserver.Options{BindAddress: "0"}, HealthProbeBindAddress: "0",
		Controller: controllers,
	})
	must(t, err)
	kept, err := admission.KeepCertificates(mgr, admission.Options{Namespace: "ai-storage-system"}, "localhost")
	must(t, err)
	a := &api{t: t, url: "https://localhost:" + freePort(t), registry: prometheus.NewRegistry(), document: loadDocument(t)}
	ctx, cancel := context.WithCancel(klog.NewContext(t.Context(), logr.Discard()))
	server := a.server(ctx, mgr, kept, limits, change)
	must(t, mgr.Add(server))
	done := make(chan error, 1)
	go func() { done <- mgr.Start(ctx) }()
	stopped := false
	a.stop = func() {
		if cancel(); stopped {
			return
		}
		stopped = true
		if err := <-done; err != nil {
			t.Errorf("the manager ended with: %v", err)
		}
	}
	t.Cleanup(a.stop)
	a.client = &http.Client{Timeout: time.Minute, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: a.authority()}, ForceAttemptHTTP2: true}}
	eventually(t, 30*time.Second, func(context.Context) error {
		response, err := a.client.Get(a.url + "/readyz")
		if err != nil {
			return err
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("not ready: %s", response.Status)
		}
		return nil
	})
	return a
}

func (a *api) server(ctx context.Context, mgr ctrl.Manager, kept *admission.Certificates, limits *budget.Limits, change func(*restapi.Options)) *restapi.Server {
	a.t.Helper()
	kubeClient, err := kubernetes.NewForConfig(mgr.GetConfig())
	must(a.t, err)
	measured, err := metricsclient.NewForConfig(mgr.GetConfig())
	must(a.t, err)
	authorizer, err := auth.NewAuthorizer(kubeClient)
	must(a.t, err)
	factory := informers.NewSharedInformerFactory(kubeClient, 0)
	nodes, pods := factory.Core().V1().Nodes(), factory.Core().V1().Pods()
	nodes.Informer()
	pods.Informer()
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	must(a.t, mgr.GetFieldIndexer().IndexField(ctx, &v1alpha1.PodMigration{}, restapi.IndexByID, restapi.IDOf))
	must(a.t, migration.Index(mgr))
	informer, err := mgr.GetCache().GetInformer(ctx, &v1alpha1.PodMigration{})
	must(a.t, err)
	o := restapi.Options{
		Address: strings.TrimPrefix(a.url, "https://"), Certificate: kept.Get, Authorizer: authorizer,
		Preflight: migration.NewPreflight(mgr.GetAPIReader(), mgr.GetClient(), migration.Options{Budget: limits}),
		Cached:    mgr.GetClient(), Live: mgr.GetAPIReader(), Writer: mgr.GetClient(),
		StatusStore: &rebalance.StatusStore{Live: mgr.GetAPIReader(), Writer: mgr.GetClient(), Namespace: "ai-storage-system"},
		Nodes:       nodes.Lister(), Pods: pods.Lister(), Metrics: measured.MetricsV1beta1(), Synced: informer.HasSynced, Registerer: a.registry,
	}
	if change != nil {
		change(&o)
	}
	server, err := restapi.New(o)
	must(a.t, err)
	must(a.t, server.Watch(informer))
	return server
}

// authority waits for the certificate authority that the rebalancer makes.
func (a *api) authority() *x509.CertPool {
	a.t.Helper()
	pool := x509.NewCertPool()
	eventually(a.t, 20*time.Second, func(ctx context.Context) error {
		secret := &corev1.Secret{}
		if err := k8s.Get(ctx, client.ObjectKey{Namespace: "ai-storage-system", Name: admission.DefaultSecretName}, secret); err != nil {
			return err
		}
		if !pool.AppendCertsFromPEM(secret.Data["ca.crt"]) {
			return fmt.Errorf("the secret has no authority")
		}
		return nil
	})
	return pool
}

func loadDocument(t *testing.T) routers.Router {
	t.Helper()
	document, err := openapi3.NewLoader().LoadFromData(restapi.Document)
	must(t, err)
	router, err := legacy.NewRouter(document)
	must(t, err)
	return router
}

func freePort(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "localhost:0")
	must(t, err)
	defer listener.Close()
	_, port, err := net.SplitHostPort(listener.Addr().String())
	must(t, err)
	return port
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// request is one that is made by hand.
type request struct {
	method, path, body, token string
	header                    map[string]string
	// wrong says that the request does not follow the document, on purpose.
	wrong bool
}

// answer is what came.
type answer struct {
	code   int
	header http.Header
	body   []byte
}

// do sends a request and holds both it and its answer against the document.
func (a *api) do(r request) answer {
	a.t.Helper()
	made, err := http.NewRequestWithContext(a.t.Context(), r.method, a.url+r.path, strings.NewReader(r.body))
	must(a.t, err)
	if r.body != "" {
		made.Header.Set("Content-Type", "application/json")
	}
	if r.token != "" {
		made.Header.Set("Authorization", "Bearer "+r.token)
	}
	for name, value := range r.header {
		made.Header.Set(name, value)
	}
	input := a.follows(made, r)
	response, err := a.client.Do(made)
	must(a.t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	must(a.t, err)
	if input != nil {
		validated := &openapi3filter.ResponseValidationInput{RequestValidationInput: input, Status: response.StatusCode, Header: response.Header,
			Options: &openapi3filter.Options{IncludeResponseStatus: true, MultiError: true}}
		validated.SetBodyBytes(body)
		if err := openapi3filter.ValidateResponse(context.Background(), validated); err != nil {
			a.t.Errorf("%s %s: the answer %d %s does not follow the document: %v", r.method, r.path, response.StatusCode, body, err)
		}
	}
	return answer{response.StatusCode, response.Header, body}
}

// follows validates a request; nil for a path that is not in the document.
func (a *api) follows(made *http.Request, r request) *openapi3filter.RequestValidationInput {
	a.t.Helper()
	relative := made.Clone(context.Background())
	relative.URL.Scheme, relative.URL.Host, relative.Host = "", "", ""
	relative.Body = io.NopCloser(strings.NewReader(r.body))
	route, params, err := a.document.FindRoute(relative)
	if err != nil {
		if !r.wrong {
			a.t.Errorf("%s %s is not in the document: %v", r.method, r.path, err)
		}
		return nil
	}
	input := &openapi3filter.RequestValidationInput{Request: relative, PathParams: params, Route: route,
		Options: &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc}}
	if err := openapi3filter.ValidateRequest(context.Background(), input); err != nil && !r.wrong {
		a.t.Errorf("%s %s %s does not follow the document: %v", r.method, r.path, r.body, err)
	}
	return input
}

// into decodes an answer that has this code.
func (r answer) into(t *testing.T, code int, value any) {
	t.Helper()
	if r.code != code {
		t.Fatalf("answered with %d %s, want %d", r.code, r.body, code)
	}
	decoder := json.NewDecoder(bytes.NewReader(r.body))
	decoder.DisallowUnknownFields()
	must(t, decoder.Decode(value))
}

// refusal checks that the answer is an error with this code, reason and field.
func (r answer) refusal(t *testing.T, code int, reason, field string) *restapi.Error {
	t.Helper()
	var body restapi.ErrorBody
	r.into(t, code, &body)
	if e := body.Error; e.Code != code || e.Reason != reason || e.Field != field || e.Message == "" {
		t.Errorf("error %+v, want %d %s about %q", e, code, reason, field)
	}
	return body.Error
}

// account makes a service account with rights on PodMigrations in a namespace, or
// in all when it is empty, and returns its token and user name.
func account(t *testing.T, name, namespace string, verbs ...string) (token, user string) {
	t.Helper()
	home := newNamespace(t)
	subject := rbacv1.Subject{Kind: "ServiceAccount", Namespace: home, Name: name}
	must(t, k8s.Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: home, Name: name}}))
	if len(verbs) > 0 {
		rules := []rbacv1.PolicyRule{{APIGroups: []string{v1alpha1.GroupName}, Resources: []string{"podmigrations"}, Verbs: verbs}}
		meta := metav1.ObjectMeta{Name: home + "-" + name, Namespace: namespace}
		var role, binding client.Object
		if namespace == "" {
			role = &rbacv1.ClusterRole{ObjectMeta: meta, Rules: rules}
			binding = &rbacv1.ClusterRoleBinding{ObjectMeta: meta, Subjects: []rbacv1.Subject{subject}, RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: meta.Name, APIGroup: rbacv1.GroupName}}
		} else {
			role = &rbacv1.Role{ObjectMeta: meta, Rules: rules}
			binding = &rbacv1.RoleBinding{ObjectMeta: meta, Subjects: []rbacv1.Subject{subject}, RoleRef: rbacv1.RoleRef{Kind: "Role", Name: meta.Name, APIGroup: rbacv1.GroupName}}
		}
		must(t, k8s.Create(t.Context(), role))
		must(t, k8s.Create(t.Context(), binding))
	}
	admin, err := kubernetes.NewForConfig(restConfig)
	must(t, err)
	issued, err := admin.CoreV1().ServiceAccounts(home).CreateToken(t.Context(), name, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	must(t, err)
	return issued.Status.Token, "system:serviceaccount:" + home + ":" + name
}

// operator is an account that may do everything with PodMigrations.
func operator(t *testing.T) string {
	t.Helper()
	token, _ := account(t, "operator", "", "*")
	return token
}

// move is the body of a request to move pod train.
func (w *world) move(more string) string {
	return fmt.Sprintf(`{"pod_name":"train","pod_namespace":%q,"source_node":"node-a","target_node":"node-b"%s}`, w.namespace, more)
}

func (a *api) post(token, body string) answer {
	a.t.Helper()
	return a.do(request{method: "POST", path: "/api/v1/migrations", body: body, token: token})
}

func (a *api) get(token, path string) answer {
	a.t.Helper()
	return a.do(request{method: "GET", path: path, token: token})
}

// waitFor polls a migration through the API.
func (a *api) waitFor(token, id string, phase v1alpha1.Phase) restapi.Migration {
	a.t.Helper()
	var m restapi.Migration
	eventually(a.t, 30*time.Second, func(context.Context) error {
		a.get(token, "/api/v1/migrations/"+id).into(a.t, http.StatusOK, &m)
		if m.Phase != phase {
			return fmt.Errorf("phase %s: %s", m.Phase, m.Message)
		}
		return nil
	})
	return m
}
