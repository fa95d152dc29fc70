//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// serverSpec serves HTTP, is Ready when it does, and continues for some seconds
// after it is asked to end, as pods behind a Service must.
func serverSpec() corev1.PodSpec {
	c := container("server", 20, "--http=:8080")
	c.ReadinessProbe = &corev1.Probe{
		PeriodSeconds: 1,
		ProbeHandler:  corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/readyz", Port: intstr.FromInt32(8080)}},
	}
	c.Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: 3}}}
	return corev1.PodSpec{
		SchedulerName: v1alpha1.SchedulerName, TerminationGracePeriodSeconds: new(int64(10)), Containers: []corev1.Container{c},
	}
}

// A Deployment of one replica is probed through its Service every 20 ms while
// its pod moves: no probe fails, and the Deployment never counts a replica as
// unavailable.
func TestADeploymentOfOneReplicaIsAlwaysServed(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t)
	const name = "server"
	create(t, newDeployment(namespace, name, 1, templateOf(name, serverSpec())))
	create(t, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       corev1.ServiceSpec{Selector: map[string]string{workloadLabel: name}, Ports: []corev1.ServicePort{{Port: 8080}}},
	})
	original := awaitOnly(t, namespace, name, time.Minute)
	awaitAvailable(t, namespace, name)
	unavailable := watchUnavailable(t, namespace, name)
	probes := startProbing(t, namespace, name)

	migration := migrate(t, original, nil)
	wantSucceeded(t, migration, 3*time.Minute)
	replacement := awaitOnly(t, namespace, name, time.Minute)
	if replacement.UID == original.UID || replacement.Spec.NodeName == original.Spec.NodeName {
		t.Errorf("the pod did not move: %s on %s", replacement.Name, replacement.Spec.NodeName)
	}
	if owner := metav1.GetControllerOf(replacement); owner == nil || owner.UID != metav1.GetControllerOf(original).UID {
		t.Errorf("the replacement belongs to %v, want the ReplicaSet of the original", owner)
	}
	probes.finish(t)
	seen, peak := unavailable()
	t.Logf("unavailable replicas: at most %d in %d changes of the Deployment; downtime %v", peak, seen, migration.Status.Downtime)
	if peak > 0 || seen == 0 {
		t.Errorf("unavailable replicas rose to %d in %d changes", peak, seen)
	}
}

func awaitAvailable(t testing.TB, namespace, name string) {
	t.Helper()
	eventually(t, time.Minute, "the Deployment is available", func(ctx context.Context) error {
		d := &appsv1.Deployment{}
		if err := env.client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, d); err != nil {
			return err
		}
		if d.Status.AvailableReplicas != *d.Spec.Replicas || d.Status.UnavailableReplicas != 0 {
			return fmt.Errorf("%d of %d replicas are available", d.Status.AvailableReplicas, *d.Spec.Replicas)
		}
		return nil
	})
}

// watchUnavailable records what a Deployment says of itself at every change.
func watchUnavailable(t testing.TB, namespace, name string) (result func() (seen int, peak int32)) {
	t.Helper()
	var mu sync.Mutex
	var changes int
	var highest int32
	watching(t, &appsv1.DeploymentList{}, func(event watch.Event) {
		d, isDeployment := event.Object.(*appsv1.Deployment)
		if !isDeployment || d.Name != name || event.Type == watch.Deleted {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		changes++
		highest = max(highest, d.Status.UnavailableReplicas, *d.Spec.Replicas-d.Status.AvailableReplicas)
	}, client.InNamespace(namespace))
	return func() (int, int32) {
		mu.Lock()
		defer mu.Unlock()
		return changes, highest
	}
}

// prober asks a Service every 20 ms, by a new connection each time. There is no
// kube-proxy here: it picks a ready endpoint as one would.
type prober struct {
	cancel   context.CancelFunc
	done     chan struct{}
	mu       sync.Mutex
	endpoint map[string][]string // ready addresses by slice

	sent, failed int
	failures     []string
}

func startProbing(t testing.TB, namespace, service string) *prober {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	p := &prober{cancel: cancel, done: make(chan struct{}), endpoint: map[string][]string{}}
	t.Cleanup(cancel)
	watching(t, &discoveryv1.EndpointSliceList{}, func(event watch.Event) {
		if slice, isSlice := event.Object.(*discoveryv1.EndpointSlice); isSlice {
			p.learn(event.Type, slice)
		}
	}, client.InNamespace(namespace), client.MatchingLabels{discoveryv1.LabelServiceName: service})
	eventually(t, time.Minute, "the Service has an endpoint", func(context.Context) error {
		if p.pick(0) == "" {
			return fmt.Errorf("none is ready")
		}
		return nil
	})
	go p.run(ctx)
	return p
}

func (p *prober) learn(event watch.EventType, slice *discoveryv1.EndpointSlice) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var ready []string
	for _, e := range slice.Endpoints {
		if event != watch.Deleted && e.Conditions.Ready != nil && *e.Conditions.Ready {
			ready = append(ready, e.Addresses...)
		}
	}
	p.endpoint[slice.Name] = ready
}

func (p *prober) pick(n int) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []string
	for _, ready := range p.endpoint {
		all = append(all, ready...)
	}
	if len(all) == 0 {
		return ""
	}
	return all[n%len(all)]
}

func (p *prober) run(ctx context.Context) {
	defer close(p.done)
	transport := &http.Transport{DisableKeepAlives: true, DialContext: (&net.Dialer{Timeout: time.Second}).DialContext}
	probe := &http.Client{Transport: transport, Timeout: 2 * time.Second}
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for n := 0; ctx.Err() == nil; n++ {
		p.sent++
		if err := p.ask(ctx, probe, p.pick(n)); err != nil && ctx.Err() == nil {
			p.failed++
			p.failures = append(p.failures, fmt.Sprintf("%s %v", time.Now().Format(time.StampMilli), err))
		}
		select {
		case <-ctx.Done():
		case <-ticker.C:
		}
	}
}

func (p *prober) ask(ctx context.Context, probe *http.Client, address string) error {
	if address == "" {
		return fmt.Errorf("no endpoint is ready")
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(address, "8080")+"/readyz", nil)
	if err != nil {
		return err
	}
	response, err := probe.Do(request)
	if err != nil {
		return err
	}
	response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s", address, response.Status)
	}
	return nil
}

// finish ends the probing; no probe may have failed.
func (p *prober) finish(t testing.TB) {
	t.Helper()
	p.cancel()
	<-p.done
	t.Logf("%d probes, %d failed", p.sent, p.failed)
	if p.failed > 0 || p.sent < 100 {
		t.Errorf("%d of %d probes failed: %v", p.failed, p.sent, p.failures[:min(5, len(p.failures))])
	}
}

// Ten replicas under a budget are all asked to move at once. At no moment are
// more of them unavailable than the budget allows.
func TestBudgetsHold(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		budget policyv1.PodDisruptionBudgetSpec
		// fewest pods that must be Ready at every moment
		fewest int
	}{
		{"minAvailable 100%", policyv1.PodDisruptionBudgetSpec{MinAvailable: &intstr.IntOrString{Type: intstr.String, StrVal: "100%"}}, 10},
		{"maxUnavailable 1", policyv1.PodDisruptionBudgetSpec{MaxUnavailable: &intstr.IntOrString{IntVal: 1}}, 9},
	}
	for i, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			namespace := newNamespace(t)
			name := fmt.Sprintf("replicas-%d", i)
			create(t, newDeployment(namespace, name, 10, templateOf(name, serverSpec())))
			test.budget.Selector = selecting(name)
			create(t, &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: test.budget})
			originals := awaitReady(t, namespace, name, 10, 2*time.Minute)
			fewest := watchReady(t, namespace, name)

			var migrations []*v1alpha1.PodMigration
			for i := range originals {
				migrations = append(migrations, migrate(t, &originals[i], nil))
			}
			ends := map[string]int{}
			for _, m := range migrations {
				waitPhase(t, m, 6*time.Minute, v1alpha1.Phase.IsFinished)
				end := string(m.Status.Phase)
				if m.Status.Phase != v1alpha1.PhaseSucceeded {
					end += ": " + m.Status.Message
				}
				ends[end]++
				if m.Status.Message == "" {
					t.Errorf("migration %s ended %s without a reason", m.Name, m.Status.Phase)
				}
			}
			awaitReady(t, namespace, name, 10, time.Minute)
			t.Logf("ends: %v; never fewer than %d pods Ready, budget wants %d", ends, fewest(), test.fewest)
			if fewest() < test.fewest {
				t.Errorf("only %d pods were Ready at some moment, the budget wants %d", fewest(), test.fewest)
			}
			if ends[string(v1alpha1.PhaseSucceeded)] == 0 {
				t.Error("no pod moved: the test shows nothing")
			}
		})
	}
}

// watchReady records the fewest Ready pods of a workload at any moment.
func watchReady(t testing.TB, namespace, name string) (fewest func() int) {
	t.Helper()
	list := &corev1.PodList{}
	selection := []client.ListOption{client.InNamespace(namespace), client.MatchingLabels{workloadLabel: name}}
	if err := env.client.List(t.Context(), list, selection...); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	ready := map[string]bool{}
	for i := range list.Items {
		ready[list.Items[i].Name] = isReady(&list.Items[i])
	}
	lowest := count(ready)
	watchingPods(t, func(event watch.EventType, pod *corev1.Pod) {
		mu.Lock()
		defer mu.Unlock()
		// A budget no longer counts what is being deleted.
		ready[pod.Name] = event != watch.Deleted && pod.DeletionTimestamp == nil && isReady(pod)
		lowest = min(lowest, count(ready))
	}, append(selection, &client.ListOptions{Raw: &metav1.ListOptions{ResourceVersion: list.ResourceVersion}})...)
	return func() int {
		mu.Lock()
		defer mu.Unlock()
		return lowest
	}
}

func count(set map[string]bool) (n int) {
	for _, member := range set {
		if member {
			n++
		}
	}
	return n
}
