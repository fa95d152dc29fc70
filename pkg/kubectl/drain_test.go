package kubectl

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

func web(name string) *fixture.PodBuilder {
	return fixture.MakePod(name).Node("node-a").Container("web", fixture.Running(), fixture.Requests("100m", "64Mi"))
}

// busyNode has a pod of every kind.
func busyNode() []client.Object {
	return []client.Object{
		node("node-a"), node("node-b"), trainer().Obj(), web("web-0").Obj(), web("elsewhere").Node("node-b").Obj(),
		web("agent").Controller("DaemonSet", "agents").Obj(),
		web("static").Annotation(corev1.MirrorPodAnnotationKey, "x").Obj(),
		web("over").Phase(corev1.PodSucceeded).Obj(),
	}
}

func cache() *corev1.Pod {
	return web("cache").Volume("host", fixture.HostPath("/data")).With(func(p *corev1.Pod) {
		p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "host", MountPath: "/data"}}
	}).Obj()
}

// carryOut plays the controller: it moves every pod that a migration is about, the
// way end says.
func (b *bench) carryOut(end func(*v1alpha1.PodMigration)) {
	ctx, cancel := context.WithCancel(b.t.Context())
	done := make(chan struct{})
	b.t.Cleanup(func() { cancel(); <-done })
	go func() {
		defer close(done)
		for sleep(ctx, time.Millisecond) {
			list := &v1alpha1.PodMigrationList{}
			if err := b.client.List(ctx, list); err != nil {
				return
			}
			for i := range list.Items {
				if m := &list.Items[i]; !m.Status.Phase.IsFinished() {
					b.advance(ctx, m, end)
				}
			}
		}
	}()
}

func (b *bench) advance(ctx context.Context, m *v1alpha1.PodMigration, end func(*v1alpha1.PodMigration)) {
	accept(m)
	place(m)
	handOver(m)
	end(m)
	if m.Status.Phase == v1alpha1.PhaseSucceeded {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: m.Namespace, Name: m.Spec.PodName}}
		if err := b.client.Delete(ctx, pod); err != nil && ctx.Err() == nil {
			b.t.Error(err)
		}
	}
	if err := b.client.Status().Update(ctx, m); err != nil && ctx.Err() == nil {
		b.t.Error(err)
	}
}

func (b *bench) isCordoned(name string) bool {
	n := &corev1.Node{}
	if err := b.client.Get(b.t.Context(), client.ObjectKey{Name: name}, n); err != nil {
		b.t.Fatal(err)
	}
	return n.Spec.Unschedulable
}

func TestDrain(t *testing.T) {
	b := newBench(t, busyNode()...)
	golden(t, "drain-dry-run", b.run("drain", "node-a", "--dry-run"))
	if b.isCordoned("node-a") || len(b.migrations()) > 0 {
		t.Error("the dry run has done something")
	}
	b.carryOut(succeed)
	got := b.run("drain", "node-a")
	if got.code != ExitDone || !strings.Contains(got.out, "2 pods moved off node node-a in 0.0s, 0 left that cannot move, 3 skipped.") {
		t.Error(got)
	}
	if cordoned, last := strings.Index(got.out, "node/node-a cordoned"), strings.LastIndex(got.out, "Succeeded"); cordoned < last {
		t.Errorf("the node was cordoned before its pods were gone:\n%s", got)
	}
	if !b.isCordoned("node-a") || b.isCordoned("node-b") {
		t.Error("not the right node is cordoned")
	}
	for _, m := range b.migrations() {
		if m.Spec.SourceNode != "node-a" || m.Spec.PodUID == "" {
			t.Errorf("migration %s: %+v", m.Name, m.Spec)
		}
	}
}

func TestDrainOfWhatCannotMove(t *testing.T) {
	b := newBench(t, append(busyNode(), cache())...)
	b.carryOut(succeed)
	got := b.run("drain", "node-a")
	if got.code != ExitRefused || !strings.Contains(got.out, "default/cache     stays     container web uses /data of its node") ||
		!strings.Contains(got.err, "1 pod of node node-a cannot be moved") {
		t.Error(got)
	}
	if !b.isCordoned("node-a") {
		t.Error("the node is not cordoned, though all that can move has moved")
	}
}

func TestDrainThatFails(t *testing.T) {
	for flag, wantCordoned := range map[string]bool{"": false, "--cordon-first": true} {
		b := newBench(t, busyNode()...)
		b.carryOut(rollBack)
		got := b.run(strings.Fields("drain node-a " + flag)...)
		if got.code != ExitFailed || !strings.Contains(got.err, "2 pods of node node-a could not be moved") {
			t.Errorf("%q: %s", flag, got)
		}
		if cordoned := b.isCordoned("node-a"); cordoned != wantCordoned {
			t.Errorf("%q: cordoned %t, want %t", flag, cordoned, wantCordoned)
		}
	}
}

// A pod that arrives when the others have gone is moved too.
func TestDrainContinuesWithNewPods(t *testing.T) {
	b := newBench(t, node("node-a"), node("node-b"), web("web-0").Obj())
	var arrived atomic.Bool
	b.carryOut(func(m *v1alpha1.PodMigration) {
		if arrived.CompareAndSwap(false, true) {
			if err := b.client.Create(t.Context(), web("web-1").Obj()); err != nil {
				t.Error(err)
			}
		}
		succeed(m)
	})
	if got := b.run("drain", "node-a"); got.code != ExitDone || !strings.Contains(got.out, "2 pods moved off") {
		t.Error(got)
	}
}

// Of one workload one pod moves at a time, and one that moves already is waited for.
func TestDrainTakesWorkloadsInTurn(t *testing.T) {
	theirs := asked("theirs", 0)
	theirs.Spec.PodName = "web-0"
	// The fake API server has no ReplicaSet for the pods: they belong to what their
	// author vouches for.
	ofWeb := func(name string) *corev1.Pod {
		return web(name).Controller("Game", "web").Annotation(v1alpha1.RecreateAnnotation, "true").Obj()
	}
	b := newBench(t, node("node-a"), node("node-b"), ofWeb("web-0"), ofWeb("web-1"), ofWeb("web-2"), theirs, trainer().Obj())
	var most, now atomic.Int32
	count := func(m *v1alpha1.PodMigration, by int32) {
		if strings.HasPrefix(m.Spec.PodName, "web") {
			most.Store(max(most.Load(), now.Add(by)))
		}
	}
	b.onCreate = func(m *v1alpha1.PodMigration) {
		if m.Spec.PodName == "trainer" {
			count(theirs, 1)
			b.carryOut(func(m *v1alpha1.PodMigration) { succeed(m); count(m, -1) })
		}
		count(m, 1)
	}
	got := b.run("drain", "node-a")
	if got.code != ExitDone || most.Load() != 1 || now.Load() != 0 {
		t.Errorf("%d migrations of the workload at once, %d at the end\n%s", most.Load(), now.Load(), got)
	}
	if len(b.migrations()) != 4 || !strings.Contains(got.out, "migration theirs is under way") {
		t.Errorf("%d migrations\n%s", len(b.migrations()), got)
	}
}

func TestDrainEndsBeforeTheMigrations(t *testing.T) {
	b := newBench(t, busyNode()...)
	slow := time.Now()
	b.cli.now = func() time.Time { return noon.Add(time.Since(slow)) }
	if got := b.run("drain", "node-a", "--wait-timeout=30ms"); got.code != ExitTimedOut || !strings.Contains(got.err, "2 migrations continue; cancel with:\n  kubectl migrate cancel -n default trainer-") {
		t.Error(got)
	}
	ctx, interrupt := context.WithCancel(t.Context())
	time.AfterFunc(30*time.Millisecond, interrupt)
	b = newBench(t, busyNode()...)
	if got := b.runContext(ctx, "drain", "node-a"); got.code != ExitInterrupted || b.isCordoned("node-a") {
		t.Error(got)
	}
	if got := b.run("drain", "node-z"); got.code != ExitError || !strings.Contains(got.err, `"node-z" not found`) {
		t.Error(got)
	}
	if got := b.run("drain"); got.code != ExitUsage {
		t.Error(got)
	}
}
