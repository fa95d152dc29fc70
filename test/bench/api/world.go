package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"golang.org/x/sync/errgroup"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/test/devcluster"
)

const namespace = "bench-api"

func podName(i int) string { return fmt.Sprintf("pod-%04d", i) }

// world is the cluster, with its pods and the clients of the API.
type world struct {
	cluster *devcluster.Cluster
	nodes   []string
	kube    kubernetes.Interface
	// stored reads PodMigrations from the API server itself.
	stored  client.Reader
	tokens  []string
	clients []*http.Client
}

func newWorld(ctx context.Context, cluster *devcluster.Cluster, o options) (*world, error) {
	config, err := cluster.AdminConfig()
	if err != nil {
		return nil, err
	}
	w := &world{cluster: cluster, nodes: o.cluster.Nodes.Names(), tokens: make([]string, o.clients), clients: make([]*http.Client, o.clients)}
	if w.kube, err = kubernetes.NewForConfig(config); err != nil {
		return nil, err
	}
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	if w.stored, err = client.New(config, client.Options{Scheme: scheme}); err != nil {
		return nil, err
	}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}
	if _, err := w.kube.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{}); err != nil {
		return nil, err
	}
	if err := w.makePods(ctx, o.posts); err != nil {
		return nil, fmt.Errorf("making pods: %w", err)
	}
	if err := w.makeClients(ctx); err != nil {
		return nil, fmt.Errorf("making clients: %w", err)
	}
	return w, nil
}

func (w *world) makePods(ctx context.Context, count int) error {
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(20)
	for i := range count {
		group.Go(func() error {
			pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: podName(i)}, Spec: corev1.PodSpec{
				NodeName: w.nodes[i%len(w.nodes)], SchedulerName: v1alpha1.SchedulerName,
				Containers: []corev1.Container{{Name: "main", Image: "docker.io/library/workload:dev", Resources: corev1.ResourceRequirements{
					Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("10m"), corev1.ResourceMemory: resource.MustParse("16Mi")},
				}}},
			}}
			_, err := w.kube.CoreV1().Pods(namespace).Create(groupCtx, pod, metav1.CreateOptions{})
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return wait.PollUntilContextTimeout(ctx, time.Second, 3*time.Minute, true, func(ctx context.Context) (bool, error) {
		running, err := w.kube.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{FieldSelector: "status.phase=Running"})
		return err == nil && len(running.Items) == count, nil
	})
}

// makeClients gives each client a service account that may create migrations, and
// connections of its own.
func (w *world) makeClients(ctx context.Context) error {
	role := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: "mover"}, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{v1alpha1.GroupName}, Resources: []string{"podmigrations"}, Verbs: []string{"create"}},
	}}
	if _, err := w.kube.RbacV1().Roles(namespace).Create(ctx, role, metav1.CreateOptions{}); err != nil {
		return err
	}
	binding := &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "mover"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "mover"}}
	pem, err := os.ReadFile(w.cluster.Authority())
	if err != nil {
		return err
	}
	authority := x509.NewCertPool()
	if !authority.AppendCertsFromPEM(pem) {
		return fmt.Errorf("%s holds no certificate", w.cluster.Authority())
	}
	for i := range w.clients {
		account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("client-", i)}}
		if _, err := w.kube.CoreV1().ServiceAccounts(namespace).Create(ctx, account, metav1.CreateOptions{}); err != nil {
			return err
		}
		token, err := w.kube.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, account.Name, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
		if err != nil {
			return err
		}
		w.tokens[i] = token.Status.Token
		w.clients[i] = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: authority}}}
		binding.Subjects = append(binding.Subjects, rbacv1.Subject{Kind: "ServiceAccount", Namespace: namespace, Name: account.Name})
	}
	_, err = w.kube.RbacV1().RoleBindings(namespace).Create(ctx, binding, metav1.CreateOptions{})
	return err
}

// verify compares what was accepted with what is stored.
func (w *world) verify(ctx context.Context, l *load, out io.Writer) error {
	list := &v1alpha1.PodMigrationList{}
	if err := w.stored.List(ctx, list, client.InNamespace(namespace)); err != nil {
		return err
	}
	ids, pods, phases := map[string]bool{}, map[string]int{}, map[v1alpha1.Phase]int{}
	for i := range list.Items {
		m := &list.Items[i]
		ids[string(m.UID)] = true
		pods[m.Spec.PodName]++
		phases[m.Status.Phase]++
	}
	lost, changed, twice := 0, 0, 0
	for j, id := range l.accepted {
		if !ids[id] {
			lost++
		}
		again, err := w.post(ctx, j)
		if err != nil {
			return fmt.Errorf("repeating a POST: %w", err)
		}
		if again.id != id || !again.replayed {
			changed++
		}
	}
	for _, n := range pods {
		if n > 1 {
			twice++
		}
	}
	fmt.Fprintf(out, "stored %d migrations, by phase %v\naccepted and lost: %d; pods with two migrations: %d; answered differently when repeated: %d\n", len(list.Items), phases, lost, twice, changed)
	if lost+twice+changed > 0 || len(l.accepted) != l.posts || len(list.Items) != l.posts {
		return fmt.Errorf("%d POSTs, %d accepted and %d stored: they have to be the same, with nothing lost or doubled", l.posts, len(l.accepted), len(list.Items))
	}
	fmt.Fprintln(out, "nothing lost, nothing doubled")
	return nil
}
