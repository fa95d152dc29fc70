package agent

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// node plays the node: directories are real, pods are not.
type node struct {
	root  string
	claim string
	mu    sync.Mutex
	// frozen and killed pods.
	frozen, killed map[types.UID]bool
	// onFreeze runs when the pod is frozen, onCheckFrozen after a look at whether it is,
	// onState before one, onThaw before it is thawed.
	onFreeze, onCheckFrozen, onState, onThaw func()
	// freezeBy is the deadline of the last freezing.
	freezeBy time.Time
	// obstacle and dumpFails keep processes from moving; continued are the containers
	// whose restored processes run.
	obstacle  string
	dumpFails bool
	continued []string
	// boot, and the containers of a pod, as they are now.
	boot       string
	containers []string
	// ended are restored containers whose processes have died.
	ended map[string]bool
	// steps are what was done about freezing and dumping, in order.
	steps []string
}

func (n *node) did(step string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.steps = append(n.steps, step)
}

func (n *node) State(pod types.UID) (podState, error) {
	if n.onState != nil {
		n.onState()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return podState{Frozen: n.frozen[pod], Containers: slices.Clone(n.containers)}, nil
}

func (n *node) Boot() (string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.boot, nil
}

func (n *node) Processes(container string) (alive, stopped int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ended[container] {
		return 0, 0
	}
	return 1, 1
}

func (n *node) EmptyDir(pod types.UID, volume string) string {
	return filepath.Join(n.root, string(pod), volume)
}

func (n *node) ClaimDirectory(types.UID, string) (string, error) { return n.claim, nil }

func (n *node) Freeze(ctx context.Context, pod types.UID) error {
	n.did("freeze pod")
	return n.freeze(ctx, pod)
}

func (n *node) freeze(ctx context.Context, pod types.UID) error {
	n.set(n.frozen, pod, true)
	n.freezeBy, _ = ctx.Deadline()
	if n.onFreeze != nil {
		n.onFreeze()
	}
	return nil
}

func (n *node) Thaw(pod types.UID) error {
	if n.onThaw != nil {
		n.onThaw()
	}
	n.set(n.frozen, pod, false)
	return nil
}

func (n *node) Kill(pod types.UID) error { n.set(n.killed, pod, true); return nil }

// Processes: a container's memory is a file, its layer a directory.

func (n *node) Movable(string) (int64, string, error) { return 1 << 20, n.obstacle, nil }

func (n *node) Layer(container string) (string, error) {
	return n.directory("layer-" + container)
}

func (n *node) SharedMemory(container string) (string, error) {
	return n.directory("shm-" + container)
}

func (n *node) directory(name string) (string, error) {
	path := filepath.Join(n.root, name)
	return path, os.MkdirAll(path, 0o755)
}

func (n *node) FreezeContainers(ctx context.Context, pod types.UID, _ []string) error {
	n.did("freeze containers")
	return n.freeze(ctx, pod)
}

func (n *node) CheckFrozen(pod types.UID, _ []string) error {
	n.mu.Lock()
	frozen := n.frozen[pod]
	n.mu.Unlock()
	if !frozen {
		return errors.New("it runs")
	}
	if n.onCheckFrozen != nil {
		n.onCheckFrozen()
	}
	return nil
}

func (n *node) Dump(_ context.Context, container, directory string) error {
	n.did("dump")
	if n.dumpFails {
		return errors.New("CRIU says no")
	}
	return os.WriteFile(filepath.Join(directory, "memory", "pages"), []byte("memory of "+container), 0o600)
}

func (n *node) Continue(container string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.continued = append(n.continued, container)
	return nil
}

func (n *node) set(of map[types.UID]bool, pod types.UID, value bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	of[pod] = value
}

// bench is a migration between two nodes with real directories.
type bench struct {
	*testing.T
	client      client.WithWatch
	node        *node
	state       string
	source, far *agent
	// refuse makes the next writes of a status fail.
	refuse func() error
	// reported are the reports of the destination, in order.
	reported []v1alpha1.DestinationReport
}

func newBench(t *testing.T) *bench {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	b := &bench{T: t, state: t.TempDir(), node: &node{
		root: t.TempDir(), claim: t.TempDir(), frozen: map[types.UID]bool{}, killed: map[types.UID]bool{}, boot: "first", containers: []string{"c1", "pause"},
	}}
	m := fixture.Moving(v1alpha1.StepMeasure, "")
	m.Status.Checkpoint.Attempt = 1
	running := corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
	b.client = fake.NewClientBuilder().WithScheme(scheme).WithStatusSubresource(m, &corev1.Pod{}).WithObjects(m,
		&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "train", UID: "original", Finalizers: []string{"x/y"}}},
		&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "carrier", UID: "carrier"}, Status: corev1.PodStatus{
			Phase: corev1.PodRunning, ContainerStatuses: []corev1.ContainerStatus{{State: running, ContainerID: "containerd://1"}}}},
		&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "train-r", UID: "replacement"}, Status: corev1.PodStatus{
			InitContainerStatuses: []corev1.ContainerStatus{{Name: v1alpha1.GateContainer, State: running, ContainerID: "containerd://2"}}}},
	).WithInterceptorFuncs(interceptor.Funcs{SubResourcePatch: func(ctx context.Context, c client.Client, sub string, o client.Object, p client.Patch, opts ...client.SubResourcePatchOption) error {
		if b.refuse != nil {
			if err := b.refuse(); err != nil {
				return err
			}
		}
		if d := o.(*v1alpha1.PodMigration).Status.Checkpoint.Destination; d != nil {
			b.reported = append(b.reported, *d)
		}
		return c.Status().Patch(ctx, o, p, opts...)
	}}).Build()
	for _, directory := range []string{"original/work", "replacement/work", "replacement/" + v1alpha1.GateVolumeName} {
		if err := os.MkdirAll(filepath.Join(b.node.root, directory), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(b.node.root, "original/work/data"), "first")
	b.restart()
	return b
}

// restart is what a crash leaves: agents that know nothing.
func (b *bench) restart() {
	b.source = newAgent("a", b.client, b.client, b.node, b.state)
	b.far = newAgent("b", b.client, b.client, b.node, b.TempDir())
}

func (b *bench) get() *v1alpha1.PodMigration {
	b.Helper()
	m := &v1alpha1.PodMigration{}
	if err := b.client.Get(b.Context(), types.NamespacedName{Namespace: "default", Name: "m"}, m); err != nil {
		b.Fatal(err)
	}
	return m
}

// ask changes the status as the controller would, and lets both agents act
// until nothing changes any more.
func (b *bench) ask(change func(*v1alpha1.PodMigrationStatus)) *v1alpha1.PodMigration {
	b.Helper()
	m := b.get()
	change(&m.Status)
	if err := b.client.Status().Update(b.Context(), m); err != nil {
		b.Fatal(err)
	}
	return b.settle()
}

func (b *bench) settle() *v1alpha1.PodMigration {
	b.Helper()
	request := ctrl.Request{NamespacedName: types.NamespacedName{Namespace: "default", Name: "m"}}
	for range 10 {
		before := b.get().ResourceVersion
		for _, a := range []*agent{b.source, b.far} {
			if _, err := a.Reconcile(b.Context(), request); err != nil {
				b.Fatal(err)
			}
		}
		if b.get().ResourceVersion == before {
			break
		}
	}
	return b.get()
}

func step(s v1alpha1.CheckpointStep) func(*v1alpha1.PodMigrationStatus) {
	return func(status *v1alpha1.PodMigrationStatus) { status.Checkpoint.Step = s }
}

func (b *bench) wantSource(m *v1alpha1.PodMigration, phase v1alpha1.SourcePhase) {
	b.Helper()
	if s := m.Status.Checkpoint.Source; s == nil || s.Phase != phase {
		b.Fatalf("source reports %+v, want %s", s, phase)
	}
}

func (b *bench) wantFrozen(want bool) {
	b.Helper()
	record, err := b.source.records.get(b.get().UID)
	if err != nil || b.node.frozen["original"] != want || (record != nil) != want {
		b.Errorf("the original is frozen: %t, recorded: %+v, error %v, want %t", b.node.frozen["original"], record, err, want)
	}
}

// sealed brings a migration to the seal; crash restarts the agents in between.
func (b *bench) sealed(crash bool) *v1alpha1.PodMigration {
	b.Helper()
	next := func() {
		if crash {
			b.restart()
		}
	}
	m := b.settle()
	b.wantSource(m, v1alpha1.SourceMeasured)
	if s := m.Status.Checkpoint.Source; s.Files != 2 || s.Bytes == 0 {
		b.Errorf("measured %d files, %d bytes", s.Files, s.Bytes)
	}
	next()
	m = b.ask(step(v1alpha1.StepCopy))
	b.wantSource(m, v1alpha1.SourceCopied)
	if d := m.Status.Checkpoint.Destination; d == nil || d.Phase != v1alpha1.DestinationWarm {
		b.Fatalf("destination reports %+v, want it warm", d)
	}
	next()
	// The last write before the pod is frozen is carried too.
	write(b.T, filepath.Join(b.node.root, "original/work/late"), "second")
	m = b.ask(step(v1alpha1.StepSeal))
	b.wantSource(m, v1alpha1.SourceSealed)
	b.wantFrozen(true)
	if d := m.Status.Checkpoint.Destination; d == nil || d.Phase != v1alpha1.DestinationRestored || d.Pass != m.Status.Checkpoint.Source.Pass {
		b.Fatalf("destination reports %+v, want it restored", d)
	}
	next()
	return m
}

// The first restoration may take minutes: the destination reports that it has begun.
func TestWarmingIsReported(t *testing.T) {
	b := newBench(t)
	b.settle()
	b.ask(step(v1alpha1.StepCopy))
	want := []v1alpha1.DestinationPhase{v1alpha1.DestinationRestoring, v1alpha1.DestinationWarm}
	if len(b.reported) != 2 || b.reported[0].Phase != want[0] || b.reported[1].Phase != want[1] || b.reported[1].Files != 2 {
		t.Errorf("the destination reported %+v, want %v", b.reported, want)
	}
}

// A claim that holds something else on the destination is reported, once, and no longer
// when it shows what the source wrote.
func TestAClaimOfAnotherContentIsReported(t *testing.T) {
	b := newBench(t)
	other := &node{root: b.node.root, claim: t.TempDir(), frozen: map[types.UID]bool{}, killed: map[types.UID]bool{}}
	b.far.ops = other
	b.settle()
	b.ask(step(v1alpha1.StepCopy))
	if len(b.reported) != 1 || b.reported[0].Phase != v1alpha1.DestinationRestoring || b.reported[0].Reason != v1alpha1.ReportNoManifest {
		t.Fatalf("the destination reported %+v, want once that there is nothing", b.reported)
	}
	b.far.closeAll(types.NamespacedName{Namespace: "default", Name: "m"})
	other.claim = b.node.claim
	if d := b.settle().Status.Checkpoint.Destination; d.Phase != v1alpha1.DestinationWarm || d.Reason != "" {
		t.Errorf("the destination reported %+v, want it warm", d)
	}
}

func TestCarryOver(t *testing.T) {
	for name, crash := range map[string]bool{"agents live": false, "agents die after every step": true} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.sealed(crash)
			for file, want := range map[string]string{"data": "first", "late": "second"} {
				if got, err := os.ReadFile(filepath.Join(b.node.root, "replacement/work", file)); err != nil || string(got) != want {
					t.Errorf("%s holds %q, error %v, want %q", file, got, err, want)
				}
			}
			gate := filepath.Join(b.node.root, "replacement", v1alpha1.GateVolumeName, v1alpha1.GateOpenFile)
			if _, err := os.Stat(gate); err == nil {
				t.Error("the gate is open before the release")
			}
			m := b.ask(func(s *v1alpha1.PodMigrationStatus) {
				s.Checkpoint.Step = v1alpha1.StepRelease
				s.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionSealed, Status: metav1.ConditionTrue}}
			})
			if _, err := os.Stat(gate); err != nil || m.Status.Checkpoint.Destination.Phase != v1alpha1.DestinationReleased {
				t.Errorf("the gate: %v, destination reports %+v", err, m.Status.Checkpoint.Destination)
			}
			b.wantFrozen(true)
			original := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "train"}}
			if err := b.client.Delete(t.Context(), original); err != nil {
				t.Fatal(err)
			}
			b.settle()
			b.wantFrozen(false)
			if !b.node.killed["original"] {
				t.Error("the original was thawed beside its replacement")
			}
			if !crash {
				wantPasses(t, b, map[string]float64{passCopy: 2, passSeal: 1}, map[string]float64{passWarmUp: 1, passRestore: 1})
			}
		})
	}
}

// wantPasses checks what was counted of one migration: a first copy and a short
// one before the pod was frozen, the last one, and the two of the destination.
func wantPasses(t *testing.T, b *bench, source, far map[string]float64) {
	t.Helper()
	for _, pass := range []string{passCopy, passSeal, passWarmUp, passRestore} {
		if got := testutil.ToFloat64(b.source.metrics.passes.WithLabelValues(pass)); got != source[pass] {
			t.Errorf("source: %v passes %s, want %v", got, pass, source[pass])
		}
		if got := testutil.ToFloat64(b.far.metrics.passes.WithLabelValues(pass)); got != far[pass] {
			t.Errorf("destination: %v passes %s, want %v", got, pass, far[pass])
		}
	}
	// "first", and "second" after it: nothing is written twice.
	copied := testutil.ToFloat64(b.source.metrics.written.WithLabelValues(passCopy)) + testutil.ToFloat64(b.source.metrics.written.WithLabelValues(passSeal))
	if want := float64(len("first") + len("second")); copied != want {
		t.Errorf("%v bytes written to the claim, want %v", copied, want)
	}
	if got := testutil.CollectAndCount(b.source.metrics.freezes); got != 1 || testutil.CollectAndCount(b.source.metrics.errors) != 0 {
		t.Errorf("%d series of freezes, %d of errors", got, testutil.CollectAndCount(b.source.metrics.errors))
	}
}

func TestAbortThawsThePod(t *testing.T) {
	for name, crash := range map[string]bool{"agents live": false, "agents die after every step": true} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.sealed(crash)
			m := b.ask(step(v1alpha1.StepAbort))
			b.wantSource(m, v1alpha1.SourceThawed)
			b.wantFrozen(false)
			if b.node.killed["original"] {
				t.Error("the original was killed")
			}
		})
	}
}

// The controller releases the replacement at the very moment at which the agent
// wants to thaw the original: only one of them can win.
func TestNoThawBesideARelease(t *testing.T) {
	b := newBench(t)
	b.sealed(false)
	m := b.get()
	m.Status.Checkpoint.Step = v1alpha1.StepAbort
	if err := b.client.Status().Update(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	first := true
	b.refuse = func() error {
		if !first {
			return nil
		}
		first = false
		m := b.get()
		m.Status.Checkpoint.Step = v1alpha1.StepRelease
		return b.client.Status().Update(context.Background(), m)
	}
	m = b.settle()
	b.wantFrozen(true)
	b.wantSource(m, v1alpha1.SourceSealed)
}

func TestOrphanedPodsAreThawed(t *testing.T) {
	b := newBench(t)
	b.sealed(false)
	if err := b.client.Delete(t.Context(), b.get()); err != nil {
		t.Fatal(err)
	}
	b.restart()
	b.watch()
	if all, err := b.source.records.list(); err != nil || len(all) != 0 || b.node.frozen["original"] {
		t.Errorf("records %v, error %v, frozen: %t", all, err, b.node.frozen["original"])
	}
}

func TestCorruptCheckpointIsNotRestored(t *testing.T) {
	b := newBench(t)
	b.settle()
	b.ask(step(v1alpha1.StepCopy))
	b.node.onFreeze = func() { _ = os.RemoveAll(filepath.Join(b.node.root, "replacement/work/data")) }
	m := b.get()
	m.Status.Checkpoint.Step = v1alpha1.StepSeal
	if err := b.client.Status().Update(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	request := ctrl.Request{NamespacedName: types.NamespacedName{Namespace: "default", Name: "m"}}
	if _, err := b.source.Reconcile(t.Context(), request); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(b.node.claim, string(b.get().UID), "volumes/work/data"), "wrong")
	b.restart()
	if d := b.settle().Status.Checkpoint.Destination; d == nil || d.Phase != v1alpha1.DestinationFailed || d.Reason != "Corrupt" {
		t.Errorf("destination reports %+v, want it to find the corruption", d)
	}
	if got := testutil.ToFloat64(b.far.metrics.errors.WithLabelValues("Corrupt")); got != 1 {
		t.Errorf("%v errors counted as Corrupt, want 1", got)
	}
	if got := b.source.records.count(); got != 1 {
		t.Errorf("%v pods counted as frozen, want 1", got)
	}
}

// A pod that writes all the time is frozen for as long as the last copy takes,
// and thawed when that fails.
func TestAFailedSealThawsThePod(t *testing.T) {
	b := newBench(t)
	b.settle()
	b.ask(step(v1alpha1.StepCopy))
	b.node.onFreeze = func() {
		_ = os.RemoveAll(filepath.Join(b.node.claim, string(b.get().UID)))
		_ = os.WriteFile(filepath.Join(b.node.claim, string(b.get().UID)), nil, 0o600)
	}
	m := b.ask(step(v1alpha1.StepSeal))
	b.wantSource(m, v1alpha1.SourceFailed)
	b.wantFrozen(false)
	if m.Status.Checkpoint.Source.Message == "" {
		t.Error("the report gives no message")
	}
}

// Half of the time that a pod may be frozen is for the seal; the other half is the
// destination's.
func TestASealHasHalfOfTheFreezeTime(t *testing.T) {
	for name, create := range map[string]func(*testing.T) *bench{"volumes": newBench, "processes": newProcessBench} {
		t.Run(name, func(t *testing.T) {
			b := create(t)
			b.settle()
			b.ask(step(v1alpha1.StepCopy))
			m := b.get()
			m.Spec.Checkpoint.MaxFreezeSeconds = 40
			if err := b.client.Update(t.Context(), m); err != nil {
				t.Fatal(err)
			}
			b.far.node = "elsewhere"
			began := time.Now()
			b.wantSource(b.ask(step(v1alpha1.StepSeal)), v1alpha1.SourceSealed)
			if left := b.node.freezeBy.Sub(began); left < 20*time.Second || left > 30*time.Second {
				t.Errorf("the freeze ends %s after it began, want half of 40 s", left)
			}
		})
	}
}

func TestWorkEndsWhenItIsNotWanted(t *testing.T) {
	b := newBench(t)
	m := b.get()
	started := make(chan struct{})
	go func() {
		<-started
		now := b.get()
		now.Status.Checkpoint.Step = v1alpha1.StepAbort
		_ = b.client.Status().Update(context.Background(), now)
	}()
	err := b.source.while(t.Context(), m, func(ctx context.Context) error {
		close(started)
		<-ctx.Done()
		return ctx.Err()
	})
	if !errors.Is(err, errNotWanted) {
		t.Errorf("error %v, want %v", err, errNotWanted)
	}
}

func TestALateReportIsTriedUntilThereIsAnAnswer(t *testing.T) {
	measured := func(c *v1alpha1.CheckpointStatus) {
		c.Source = &v1alpha1.SourceReport{Attempt: c.Attempt, Node: "a", Phase: v1alpha1.SourceMeasured}
	}
	conflict := apierrors.NewConflict(schema.GroupResource{}, "m", errors.New("another client wrote"))
	away := errors.New("the API server does not answer")
	for name, test := range map[string]struct {
		// answers to the first writes; the last one is for all that follow.
		answers []error
		asked   v1alpha1.CheckpointStep
		want    error
	}{
		"at once":              {answers: []error{nil}, asked: v1alpha1.StepMeasure},
		"after two conflicts":  {answers: []error{conflict, conflict, nil}, asked: v1alpha1.StepMeasure},
		"after an outage":      {answers: []error{away, nil}, asked: v1alpha1.StepMeasure},
		"not wanted any more":  {answers: []error{nil}, asked: v1alpha1.StepAbort, want: errNotWanted},
		"the agent ends first": {answers: []error{away}, asked: v1alpha1.StepMeasure, want: context.DeadlineExceeded},
		"conflicts all along":  {answers: []error{conflict}, asked: v1alpha1.StepMeasure, want: context.DeadlineExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			m := b.get()
			now := m.DeepCopy()
			now.Status.Checkpoint.Step = test.asked
			if err := b.client.Status().Update(t.Context(), now); err != nil {
				t.Fatal(err)
			}
			attempts := 0
			b.refuse = func() error {
				attempts++
				answer := test.answers[0]
				if len(test.answers) > 1 {
					test.answers = test.answers[1:]
				}
				return answer
			}
			ctx := t.Context()
			if test.want != nil {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, 50*time.Millisecond)
				defer cancel()
			}
			if err := b.source.reportLate(ctx, m, measured); !errors.Is(err, test.want) {
				t.Errorf("error %v, want %v", err, test.want)
			}
			if attempts > 5 {
				t.Errorf("%d attempts within 50 ms", attempts)
			}
			if reported := b.get().Status.Checkpoint.Source != nil; reported != (test.want == nil) {
				t.Errorf("reported: %t", reported)
			}
		})
	}
}
