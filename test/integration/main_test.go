package integration

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/yaml"

	"github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

var (
	// restConfig has the rights of system:masters.
	restConfig *rest.Config
	// adminKubeconfig is a kubeconfig for restConfig.
	adminKubeconfig []byte
	// k8s reads and writes without a cache.
	k8s client.Client
	// scheme knows the types of Kubernetes and ours.
	scheme = runtime.NewScheme()
	// controllers are set up like those of the programs, but several of a name.
	controllers = config.Controller{SkipNameValidation: new(true), UsePriorityQueue: new(false)}
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	ctrl.SetLogger(logr.Discard())
	assets := os.Getenv("KUBEBUILDER_ASSETS")
	if assets == "" {
		assets = filepath.Join("..", "..", "bin")
	}
	for _, name := range []string{"kube-apiserver", "etcd"} {
		if _, err := os.Stat(filepath.Join(assets, name)); err != nil {
			return fail(fmt.Errorf("%s is missing in %s: run make bin/%s: %w", name, assets, name, err))
		}
	}
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			return fail(err)
		}
	}
	env := &envtest.Environment{
		Scheme: scheme, BinaryAssetsDirectory: assets,
		CRDDirectoryPaths:        []string{filepath.Join("..", "..", "manifests", "crd")},
		ErrorIfCRDPathMissing:    true,
		ControlPlaneStartTimeout: time.Minute,
	}
	// No controller manager makes service accounts here.
	env.ControlPlane.GetAPIServer().Configure().Append("disable-admission-plugins", "ServiceAccount")
	var err error
	if restConfig, err = env.Start(); err != nil {
		return fail(err)
	}
	defer func() {
		if err := env.Stop(); err != nil {
			fail(err)
		}
	}()
	restConfig.QPS, restConfig.Burst = -1, 0
	adminKubeconfig = env.KubeConfig
	if k8s, err = client.New(restConfig, client.Options{Scheme: scheme}); err != nil {
		return fail(err)
	}
	if err := makeNodes(context.Background()); err != nil {
		return fail(err)
	}
	if err := applyPolicies(context.Background()); err != nil {
		return fail(err)
	}
	// Nothing provisions its volumes, and nobody waits for them.
	class := &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "standard", Annotations: map[string]string{"storageclass.kubernetes.io/is-default-class": "true"}}, Provisioner: "none.example"}
	if err := k8s.Create(context.Background(), class); err != nil {
		return fail(fmt.Errorf("creating the default StorageClass: %w", err))
	}
	return m.Run()
}

// makeNodes makes the nodes that the pods of all worlds are on. They are Ready,
// and cordoned, so that the real scheduler of some tests skips them.
func makeNodes(ctx context.Context) error {
	for _, name := range []string{nodeA, nodeB} {
		node := fixture.MakeNode(name).Obj()
		status := node.Status
		node.Spec.Unschedulable = true
		if err := k8s.Create(ctx, node); err != nil {
			return fmt.Errorf("making node %s: %w", name, err)
		}
		node.Status = status
		if err := k8s.Status().Update(ctx, node); err != nil {
			return fmt.Errorf("making node %s Ready: %w", name, err)
		}
	}
	return nil
}

// applyPolicies makes the API server enforce the policies that users apply, in all tests.
func applyPolicies(ctx context.Context) error {
	objects, err := manifestObjects("base/policies.yaml")
	if err != nil {
		return err
	}
	for _, object := range objects {
		if err := k8s.Create(ctx, object); err != nil {
			return fmt.Errorf("applying %s %s: %w", object.GetKind(), object.GetName(), err)
		}
	}
	// The API server learns of them a moment later.
	marked := fixture.MakePod("marked").UID("").Label(v1alpha1.RoleLabel, v1alpha1.RolePlaceholder).Container("c", nil).Obj()
	marked.Namespace = metav1.NamespaceDefault
	return wait.PollUntilContextTimeout(ctx, 50*time.Millisecond, 30*time.Second, true, func(ctx context.Context) (bool, error) {
		return apierrors.IsForbidden(k8s.Create(ctx, marked.DeepCopy(), client.DryRunAll)), nil
	})
}

func fail(err error) int {
	_, _ = io.WriteString(os.Stderr, err.Error()+"\n")
	return 1
}

// newNamespace makes a namespace for one test. Nothing removes it: the API
// server goes when the tests end.
func newNamespace(t *testing.T) string {
	t.Helper()
	prefix := strings.ToLower(strings.NewReplacer("/", "-", "_", "-").Replace(t.Name()))
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: prefix[:min(len(prefix), 40)] + "-"}}
	if err := k8s.Create(t.Context(), ns); err != nil {
		t.Fatalf("creating a namespace: %v", err)
	}
	return ns.Name
}

// eventually polls until check returns nil, and fails with its last error
// after the deadline.
func eventually(t *testing.T, within time.Duration, check func(context.Context) error) {
	t.Helper()
	deadline := time.Now().Add(within)
	for {
		err := check(t.Context())
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("still not so after %v: %v", within, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// readManifests reads a file of the manifests that users apply.
func readManifests(t *testing.T, name string) []*unstructured.Unstructured {
	t.Helper()
	objects, err := manifestObjects(name)
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

func manifestObjects(name string) (objects []*unstructured.Unstructured, err error) {
	content, err := os.ReadFile(filepath.Join("..", "..", "manifests", name))
	if err != nil {
		return nil, err
	}
	for _, document := range strings.Split(string(content), "\n---\n") {
		object := &unstructured.Unstructured{}
		if err := yaml.UnmarshalStrict([]byte(document), object); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		objects = append(objects, object)
	}
	return objects, nil
}

// kubeconfig writes the administrator's kubeconfig to a file of the test.
func kubeconfig(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(path, adminKubeconfig, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
