package kubectl

import (
	"cmp"
	"context"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

func TestPodRequestsAMigration(t *testing.T) {
	b := newBench(t, trainer().Obj(), node("node-a"), node("node-b"), defaultClass())
	golden(t, "pod", b.run("pod", "pod/trainer", "--to", "node-b", "--force-restart", "--keep-claim", "--timeout=90s", "--reason=maintenance"))
	m := b.migration("trainer-1")
	want := v1alpha1.PodMigrationSpec{
		PodName: "trainer", PodUID: "uid-trainer", SourceNode: "node-a", TargetNode: "node-b", ForceRestart: true, TimeoutSeconds: 90,
		Reason: "maintenance", Checkpoint: v1alpha1.CheckpointSpec{Mode: v1alpha1.CheckpointFrozen, Claim: v1alpha1.ClaimWhenNeeded, Fallback: v1alpha1.FallbackNone, ReclaimPolicy: v1alpha1.ClaimRetain, MaxFreezeSeconds: 60},
	}
	if m.Spec != want {
		t.Errorf("spec %+v, want %+v", m.Spec, want)
	}
	if m.Labels[v1alpha1.CreatedByLabel] != createdByKubectl {
		t.Errorf("labels %v", m.Labels)
	}
}

// defaultClass provisions claims that name no class.
func defaultClass() *storagev1.StorageClass {
	return &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "standard", Annotations: map[string]string{"storageclass.kubernetes.io/is-default-class": "true"}}}
}

func TestPodRequestsAClaim(t *testing.T) {
	for args, want := range map[string]v1alpha1.ClaimPolicy{"": v1alpha1.ClaimWhenNeeded, "--checkpoint-claim=always": v1alpha1.ClaimAlways, "--checkpoint-claim=Never": v1alpha1.ClaimNever} {
		b := newBench(t, trainer().Obj(), node("node-a"), node("node-b"), defaultClass())
		if got := b.run(append([]string{"pod", "trainer"}, strings.Fields(args)...)...); got.code != ExitDone || b.migration("trainer-1").Spec.Checkpoint.Claim != want {
			t.Errorf("%q: %v, want %s", args, got, want)
		}
	}
}

func TestPodRequestsItsProcesses(t *testing.T) {
	plain, movable := trainer().Obj(), trainer().With(func(p *corev1.Pod) { p.Spec.RuntimeClassName = new(v1alpha1.ProcessRuntimeClass) }).Obj()
	dumping := fixture.MakeNode("node-a").Label(v1alpha1.ProcessNodeLabel, "true").Obj()
	for name, test := range map[string]struct {
		pod  *corev1.Pod
		from *corev1.Node
		args string
		code int
		says string
		want v1alpha1.CheckpointSpec
	}{
		"much memory": {movable, dumping, "--checkpoint-mode=Process --max-freeze=5m", ExitDone, "",
			v1alpha1.CheckpointSpec{Mode: v1alpha1.CheckpointProcess, Claim: v1alpha1.ClaimWhenNeeded, Fallback: v1alpha1.FallbackNone, MaxFreezeSeconds: 300}},
		"movable": {movable, dumping, "--checkpoint-mode=Process", ExitDone, "", v1alpha1.CheckpointSpec{Mode: v1alpha1.CheckpointProcess, Claim: v1alpha1.ClaimWhenNeeded, Fallback: v1alpha1.FallbackNone}},
		"in any case": {movable, dumping, "--checkpoint-mode=process --fallback=freshstart", ExitDone, "",
			v1alpha1.CheckpointSpec{Mode: v1alpha1.CheckpointProcess, Claim: v1alpha1.ClaimWhenNeeded, Fallback: v1alpha1.FallbackFreshStart}},
		"a node without CRIU": {movable, node("node-a"), "--checkpoint-mode=Process", ExitRefused, "NodeCannotCheckpoint", v1alpha1.CheckpointSpec{}},
		"an ordinary pod":     {plain, dumping, "--checkpoint-mode=Process", ExitRefused, "RuntimeClassNotOurs", v1alpha1.CheckpointSpec{}},
		"which may start afresh": {plain, dumping, "--checkpoint-mode=Process --fallback=FreshStart", ExitDone, "Its processes cannot move, its containers will start afresh: the pod has runtimeClassName",
			v1alpha1.CheckpointSpec{Mode: v1alpha1.CheckpointProcess, Claim: v1alpha1.ClaimWhenNeeded, Fallback: v1alpha1.FallbackFreshStart}},
	} {
		b := newBench(t, test.pod, test.from, node("node-b"))
		got := b.run(append([]string{"pod", "trainer"}, strings.Fields(test.args)...)...)
		if got.code != test.code || !strings.Contains(got.err, test.says) {
			t.Errorf("%s: code %d, %q; want %d and %q", name, got.code, got.err, test.code, test.says)
		}
		if test.code != ExitDone {
			continue
		}
		test.want.MaxFreezeSeconds = cmp.Or(test.want.MaxFreezeSeconds, 60)
		if spec := b.migration("trainer-1").Spec.Checkpoint; spec != test.want {
			t.Errorf("%s: requested %+v, want %+v", name, spec, test.want)
		}
	}
}

func TestPodWaits(t *testing.T) {
	b := newBench(t, trainer().Obj(), node("node-a"), node("node-b"))
	done := b.control("trainer-1", accept, place, handOver, succeed)
	golden(t, "pod-wait", b.run("pod", "trainer", "--to=node-b", "--wait"))
	<-done
}

func TestPodWaitsForAFailure(t *testing.T) {
	b := newBench(t, trainer().Obj(), node("node-a"), node("node-b"))
	b.control("trainer-1", accept, place, rollBack)
	golden(t, "pod-wait-failed", b.run("pod", "trainer", "--wait"))
}

func TestPodWaitsForARefusal(t *testing.T) {
	b := newBench(t, trainer().Obj(), node("node-a"), node("node-b"))
	b.control("trainer-1", func(m *v1alpha1.PodMigration) {
		m.Status.Phase, m.Status.Message = v1alpha1.PhaseFailed, "what is in work would have to be carried, and there is no node agent"
		condition(m, v1alpha1.ConditionAccepted, metav1.ConditionFalse, "NodeAgentMissing", m.Status.Message)
	})
	if got := b.run("pod", "trainer", "--wait"); got.code != ExitRefused || !strings.Contains(got.err, "was not moved (NodeAgentMissing)") {
		t.Error(got)
	}
}

func TestPodThatCannotBeMoved(t *testing.T) {
	pod := trainer().Volume("host", fixture.HostPath("/data")).With(func(p *corev1.Pod) {
		p.Spec.Containers[1].VolumeMounts = []corev1.VolumeMount{{Name: "host", MountPath: "/data"}}
	}).Obj()
	b := newBench(t, pod, node("node-a"))
	golden(t, "pod-refused", b.run("pod", "trainer"))
	golden(t, "pod-refused-dry-run", b.run("pod", "trainer", "--dry-run"))
	if made := b.migrations(); len(made) > 0 {
		t.Errorf("%d migrations were created", len(made))
	}
}

func TestPodDryRun(t *testing.T) {
	b := newBench(t, trainer().Obj(), node("node-a"), node("node-b"))
	golden(t, "pod-dry-run", b.run("pod", "trainer", "--dry-run=server", "--to=node-b"))
	if made := b.migrations(); len(made) > 0 {
		t.Errorf("%d migrations were stored", len(made))
	}
}

func TestPodBadUsage(t *testing.T) {
	b := newBench(t, trainer().Obj(), node("node-a"), node("node-b"))
	for _, test := range []struct {
		args string
		code int
		says string
	}{
		{"pod", ExitUsage, "needs the name of one pod"},
		{"pod a b", ExitUsage, "2 arguments were given"},
		{"pod deployment/web", ExitUsage, "expected a name, or pod/NAME"},
		{"pod trainer --timeout=500ms", ExitUsage, "--timeout 500ms"},
		{"pod trainer --timeout=25h", ExitUsage, "from 1s to 24h"},
		{"pod trainer --checkpoint-mode=Memory", ExitUsage, "must be one of Frozen, Process, Live, Application, None"},
		{"pod trainer --checkpoint-mode=Process --fallback=Restart", ExitUsage, "must be one of None, FreshStart"},
		{"pod trainer --max-freeze=2h", ExitUsage, "give whole seconds from 1s to 1h"},
		{"pod trainer --max-freeze=2500ms", ExitUsage, "give whole seconds from 1s to 1h"},
		{"pod trainer --checkpoint-claim=Sometimes", ExitUsage, "must be one of WhenNeeded, Always, Never"},
		{"pod trainer --checkpoint-claim=Never --keep-claim", ExitUsage, "leave one of them out"},
		{"pod trainer --fallback=FreshStart", ExitUsage, "goes with --checkpoint-mode Process only"},
		{"pod trainer --wait-timeout=-1s", ExitUsage, "must not be negative"},
		{"pod trainer --dry-run=client", ExitUsage, `must be "none" or "server"`},
		{"pod trainer --nonsense", ExitUsage, "unknown flag"},
		{"pod trainer --output=nonsense", ExitUsage, "nonsense"},
		{"pod nobody", ExitError, `"nobody" not found`},
		{"pod trainer --to=node-a", ExitRefused, "TargetIsSource"},
		{"pod trainer --to=node-z", ExitRefused, "TargetNodeNotFound"},
	} {
		got := b.run(strings.Fields(test.args)...)
		if got.code != test.code || !strings.Contains(got.err, test.says) {
			t.Errorf("%s: code %d, %q; want %d and %q", test.args, got.code, got.err, test.code, test.says)
		}
	}
	if made := b.migrations(); len(made) > 0 {
		t.Errorf("%d migrations were created", len(made))
	}
}

func TestWaitingEndsBeforeTheMigration(t *testing.T) {
	b := newBench(t, trainer().Obj(), node("node-a"), node("node-b"))
	if got := b.run("pod", "trainer", "--wait", "--wait-timeout=50ms"); got.code != ExitTimedOut ||
		!strings.Contains(got.err, "kubectl migrate cancel trainer-1 -n default") {
		t.Error(got)
	}
	ctx, interrupt := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, interrupt)
	b = newBench(t, trainer().Obj(), node("node-a"), node("node-b"))
	if got := b.runContext(ctx, "pod", "trainer", "--wait"); got.code != ExitInterrupted || !strings.Contains(got.err, "the migration continues") {
		t.Error(got)
	}
}

// An API server that does not answer for a moment ends nothing.
func TestWaitingSurvivesErrors(t *testing.T) {
	b := newBench(t, trainer().Obj(), node("node-a"), node("node-b"))
	failures := 0
	b.refuse = func(verb string, object any) error {
		if _, is := object.(*v1alpha1.PodMigration); is && verb == "get" && failures < 1 {
			failures++
			return apierrors.NewServiceUnavailable("the API server starts")
		}
		return nil
	}
	b.control("trainer-1", accept, place, handOver, succeed)
	if got := b.run("pod", "trainer", "--wait"); got.code != ExitDone || !strings.Contains(got.out, "retrying: the API server starts") {
		t.Error(got)
	}
}

func TestJudgingWithoutAllRights(t *testing.T) {
	b := newBench(t, trainer().Obj(), node("node-a"), node("node-b"))
	b.refuse = func(_ string, object any) error {
		if _, is := object.(*corev1.Node); is {
			return apierrors.NewForbidden(schema.GroupResource{Resource: "nodes"}, "node-b", nil)
		}
		return nil
	}
	if got := b.run("pod", "trainer", "--to=node-b"); got.code != ExitDone || !strings.Contains(got.err, "Not everything could be checked beforehand") {
		t.Error(got)
	}
}

func TestMissingRight(t *testing.T) {
	b := newBench(t, trainer().Obj(), node("node-a"))
	b.refuse = func(verb string, _ any) error {
		if verb == "create" {
			return apierrors.NewForbidden(schema.GroupResource{Group: v1alpha1.GroupName, Resource: "podmigrations"}, "", nil)
		}
		return nil
	}
	if got := b.run("pod", "trainer"); got.code != ExitError || !strings.Contains(got.err, "You need the right to create podmigrations.migration.ai-storage") {
		t.Error(got)
	}
}
