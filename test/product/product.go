// Package product is how tests of an installed product look at it: through its
// API, with a person's rights. It knows nothing of how the product was installed.
package product

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/test/devcluster"
	"github.com/ai-storage/orchestrator/test/devcluster/image"
)

// Workload is the label that names the workload of a pod made here.
const Workload = "workload"

// Cluster is a cluster with the product in it.
type Cluster struct {
	*devcluster.Cluster
	Client  client.Client
	kubectl string
}

// Start starts a cluster in a directory of the test's, connects to it, and ends it with
// the test.
func Start(t testing.TB, options devcluster.Options) *Cluster {
	t.Helper()
	options.StateDir, options.Progress = filepath.Join(t.TempDir(), "state"), t.Output()
	t.Cleanup(func() {
		if err := devcluster.Down(context.Background(), options.StateDir, t.Output()); err != nil {
			t.Error(err)
		}
	})
	cluster, err := devcluster.Up(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	c, err := Connect(cluster, options.BinDir)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Connect connects to a cluster as its administrator. The kubectl is in binDir.
func Connect(cluster *devcluster.Cluster, binDir string) (*Cluster, error) {
	config, err := cluster.AdminConfig()
	if err != nil {
		return nil, err
	}
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}
	c, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		return nil, err
	}
	return &Cluster{Cluster: cluster, Client: c, kubectl: filepath.Join(binDir, "kubectl")}, nil
}

// Kubectl runs kubectl as the administrator and returns what it prints.
func (c *Cluster) Kubectl(t testing.TB, arguments ...string) string {
	t.Helper()
	output, err := exec.CommandContext(t.Context(), c.kubectl, append([]string{"--kubeconfig=" + c.AdminKubeconfig()}, arguments...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("kubectl %v: %v\n%s", arguments, err, output)
	}
	return string(output)
}

// Eventually looks until check is satisfied; what it returns otherwise is the
// reason of the failure.
func Eventually(t testing.TB, within time.Duration, what string, check func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	for {
		err := check(ctx)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: not within %s: %v", what, within, err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// Create makes an object.
func (c *Cluster) Create(t testing.TB, object client.Object) {
	t.Helper()
	if err := c.Client.Create(t.Context(), object); err != nil {
		t.Fatal(err)
	}
}

// Namespace makes a namespace that can take pods.
func (c *Cluster) Namespace(t testing.TB, prefix string) string {
	t.Helper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: prefix}}
	c.Create(t, namespace)
	Eventually(t, time.Minute, "the namespace has its service account", func(ctx context.Context) error {
		return c.Client.Get(ctx, client.ObjectKey{Namespace: namespace.Name, Name: "default"}, &corev1.ServiceAccount{})
	})
	return namespace.Name
}

// Template is of pods of our scheduler that the loop skips.
func Template(workload string, containers ...corev1.Container) corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{
			Labels:      map[string]string{Workload: workload},
			Annotations: map[string]string{v1alpha1.ExcludeAnnotation: "true"},
		},
		Spec: corev1.PodSpec{
			SchedulerName:                 v1alpha1.SchedulerName,
			TerminationGracePeriodSeconds: new(int64(5)),
			Containers:                    containers,
		},
	}
}

// Container runs the workload program.
func Container(name string, milliCPU int64, arguments ...string) corev1.Container {
	return corev1.Container{
		Name: name, Image: image.WorkloadReference, Args: append([]string{"run"}, arguments...),
		Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
			corev1.ResourceCPU:    *resource.NewMilliQuantity(milliCPU, resource.DecimalSI),
			corev1.ResourceMemory: resource.MustParse("32Mi"),
		}},
	}
}

// AwaitRunning waits until a workload has just one pod, which runs on a node
// other than the given one, and returns it.
func (c *Cluster) AwaitRunning(t testing.TB, namespace, workload, notOn string) *corev1.Pod {
	t.Helper()
	var pod *corev1.Pod
	Eventually(t, time.Minute, "pod of "+workload+" runs", func(ctx context.Context) error {
		pods := &corev1.PodList{}
		if err := c.Client.List(ctx, pods, client.InNamespace(namespace), client.MatchingLabels{Workload: workload}); err != nil {
			return err
		}
		if len(pods.Items) != 1 {
			return fmt.Errorf("there are %d", len(pods.Items))
		}
		pod = &pods.Items[0]
		if pod.Status.Phase != corev1.PodRunning || pod.Spec.NodeName == notOn || pod.DeletionTimestamp != nil {
			return fmt.Errorf("%s is %s on %q, deleted %v: %+v", pod.Name, pod.Status.Phase, pod.Spec.NodeName, pod.DeletionTimestamp, pod.Status.Conditions)
		}
		return nil
	})
	return pod
}

// Migrate creates a migration of a pod and waits until it succeeded.
func (c *Cluster) Migrate(t testing.TB, pod *corev1.Pod, within time.Duration) *v1alpha1.PodMigration {
	t.Helper()
	migration := &v1alpha1.PodMigration{
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name},
		Spec:       v1alpha1.PodMigrationSpec{PodName: pod.Name},
	}
	c.Create(t, migration)
	Eventually(t, within, "the migration succeeds", func(ctx context.Context) error {
		return c.succeeded(ctx, migration)
	})
	return migration
}

// AwaitMigration waits for a migration that another client requests.
func (c *Cluster) AwaitMigration(t testing.TB, namespace string, within time.Duration) *v1alpha1.PodMigration {
	t.Helper()
	migration := &v1alpha1.PodMigration{}
	Eventually(t, within, "a migration succeeds", func(ctx context.Context) error {
		list := &v1alpha1.PodMigrationList{}
		if err := c.Client.List(ctx, list, client.InNamespace(namespace)); err != nil {
			return err
		}
		if len(list.Items) == 0 {
			return fmt.Errorf("there is none")
		}
		*migration = list.Items[0]
		return c.succeeded(ctx, migration)
	})
	return migration
}

func (c *Cluster) succeeded(ctx context.Context, migration *v1alpha1.PodMigration) error {
	if err := c.Client.Get(ctx, client.ObjectKeyFromObject(migration), migration); err != nil {
		return err
	}
	if migration.Status.Phase != v1alpha1.PhaseSucceeded {
		return fmt.Errorf("it is %s: %s", migration.Status.Phase, migration.Status.Message)
	}
	return nil
}
