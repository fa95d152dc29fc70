//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// webhookLine is the way from the API server to the admission webhook. It can be cut.
type webhookLine struct {
	listener net.Listener
	to       string

	mu    sync.Mutex
	cut   bool
	calls map[net.Conn]bool
}

// newWebhookLine listens as long as this process runs.
func newWebhookLine() (*webhookLine, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("line to the webhook: %w", err)
	}
	l := &webhookLine{listener: listener, to: net.JoinHostPort("127.0.0.1", strconv.Itoa(env.cluster.WebhookPort())), calls: map[net.Conn]bool{}}
	go func() {
		for {
			call, err := listener.Accept()
			if err != nil {
				return
			}
			go l.connect(call)
		}
	}()
	return l, nil
}

// flag makes the rebalancer register this line as the URL of its webhook.
func (l *webhookLine) flag() string { return "--webhook-url=https://localhost:" + l.port() }

func (l *webhookLine) port() string {
	_, port, _ := net.SplitHostPort(l.listener.Addr().String())
	return port
}

func (l *webhookLine) connect(call net.Conn) {
	defer call.Close()
	answer, err := net.Dial("tcp", l.to)
	if err != nil {
		return
	}
	defer answer.Close()
	l.mu.Lock()
	isCut := l.cut
	l.calls[call] = true
	l.mu.Unlock()
	if isCut {
		return
	}
	go func() {
		_, _ = io.Copy(answer, call)
		answer.Close()
	}()
	_, _ = io.Copy(call, answer)
}

// cutFor cuts the line, until the returned function or the end of the test repairs it.
func (l *webhookLine) cutFor(t testing.TB) (repair func()) {
	l.setCut(true)
	t.Cleanup(func() { l.setCut(false) })
	return func() { l.setCut(false) }
}

func (l *webhookLine) setCut(cut bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = cut
	for call := range l.calls {
		if cut {
			call.Close()
			delete(l.calls, call)
		}
	}
}

// The webhook does not answer: pods are created as usual, and a migration that
// needs it is rolled back, whenever that happens.
func TestAWebhookThatIsDownIsNoticed(t *testing.T) {
	for _, test := range []struct{ name, cutAt, reason string }{
		{"before the pod is released", "phase Preparing", "WebhookMissing"},
		{"after it was asked", "before ReleaseOriginal", "WebhookMissed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			namespace := newNamespace(t)
			collector := startCollector(t, namespace)
			const name = "training"
			job := &batchv1.Job{
				ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
				Spec:       batchv1.JobSpec{BackoffLimit: new(int32(0)), Template: templateOf(name, trainingSpec(collector))},
			}
			create(t, job)
			original := &awaitRunning(t, namespace, name, 1, time.Minute)[0]
			waitCompleted(t, original, "prepare")

			started := watchStarts(t, namespace, name, "prepare")
			await, proceed := env.breakpoints.armOne(t, namespace, original.Name, test.cutAt)
			s := &faultScene{namespace: namespace, pod: original, migration: migrate(t, original, nil)}
			await()
			repair := env.line.cutFor(t)
			other := newPod(namespace, "other", container("idle", 10))
			create(t, excluded(other))
			proceed()
			s.wantFailed(t, 3*time.Minute, test.reason)
			waitRunning(t, other)
			repair()
			wantBackAtItsJob(t, job, original)
			// The scheduler held back what its Job made instead of the replacement.
			if pods := started(); !slices.Equal(pods, []string{original.Name}) {
				t.Errorf("container prepare ran in pods %v, want only the original %s", pods, original.Name)
			}

			tellFinish(t, collector)
			eventually(t, time.Minute, "the Job completes", func(ctx context.Context) error {
				if err := env.client.Get(ctx, client.ObjectKeyFromObject(job), job); err != nil {
					return err
				}
				if job.Status.Succeeded != 1 || job.Status.Failed != 0 {
					return fmt.Errorf("%d succeeded, %d failed", job.Status.Succeeded, job.Status.Failed)
				}
				return nil
			})
			t.Logf("Job: succeeded %d, failed %d", job.Status.Succeeded, job.Status.Failed)
		})
	}
}

// A pod of a StatefulSet that has ended for its move is evicted only when the
// webhook answers: it is late then, and nothing is lost.
func TestAWebhookThatIsDownDelaysAStatefulSet(t *testing.T) {
	needsTime(t)
	namespace := newNamespace(t)
	collector := startCollector(t, namespace)
	const name = "database"
	template := smallWriterTemplate(name, collector)
	create(t, workloadKinds[3].make(namespace, name, template))
	original := awaitOnly(t, namespace, name, time.Minute)
	awaitProgress(t, collector, name)

	await, proceed := env.breakpoints.armOne(t, namespace, original.Name, "before RemoveHold")
	migration := migrate(t, original, nil)
	await()
	repair := env.line.cutFor(t)
	proceed()
	eventually(t, time.Minute, "the webhook is missed", func(ctx context.Context) error {
		if err := env.client.Get(ctx, client.ObjectKeyFromObject(migration), migration); err != nil {
			return err
		}
		if !strings.Contains(migration.Status.Message, "waiting for the admission webhook") {
			return fmt.Errorf("%s", migration.Status.Message)
		}
		return nil
	})
	t.Logf("%s: %s", migration.Status.Phase, migration.Status.Message)
	repair()
	wantSucceeded(t, migration, 2*time.Minute)
	wantNothingLost(t, collector, name)
}

// wantBackAtItsJob wants the original to continue as the only pod of its Job.
func wantBackAtItsJob(t testing.TB, job *batchv1.Job, original *corev1.Pod) {
	t.Helper()
	left := &awaitRunning(t, job.Namespace, job.Name, 1, time.Minute)[0]
	owner := metav1.GetControllerOf(left)
	if left.UID != original.UID || restarts(left) != 0 || owner == nil || owner.UID != job.UID ||
		left.Labels[batchv1.JobNameLabel] != job.Name || left.Annotations[v1alpha1.ReleasedAnnotation] != "" {
		t.Errorf("the pod left is %s, %d restarts, owner %+v, labels %v; want the original with all that it had", left.Name, restarts(left), owner, left.Labels)
	}
}
