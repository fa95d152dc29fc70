package agent

import (
	"context"
	"errors"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"golang.org/x/sys/unix"
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
	"github.com/ai-storage/orchestrator/internal/skip"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/node/transfer"
)

// node plays the node: directories are real, pods are not.
type node struct {
	root string
	mu   sync.Mutex
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

func (n *node) Layer(container string) (root, path string, err error) {
	return n.directory("layer-" + container)
}

func (n *node) SharedMemory(container string) (root, path string, err error) {
	return n.directory("shm-" + container)
}

func (n *node) directory(name string) (root, path string, err error) {
	return n.root, name, os.MkdirAll(filepath.Join(n.root, name), 0o755)
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

// bench is a migration between nodes with real directories and connections.
type bench struct {
	*testing.T
	client client.WithWatch
	node   *node
	// kubelets and states are the directories of the nodes, servers end what their agents
	// receive.
	kubelets, states map[string]string
	servers          map[string]func()
	source, far      *agent
	// third is the agent of a node that a replacement may come to later.
	third *agent

	mu sync.Mutex
	// refuse makes the next writes of a status fail.
	refuse func() error
	// reported are the reports of the destination, in order.
	reported []v1alpha1.DestinationReport
}

// IDs of containers.
var c1, c2, c3, gate = strings.Repeat("c1", 32), strings.Repeat("c2", 32), strings.Repeat("c3", 32), strings.Repeat("9a", 32)

var running = corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}

func scratch(names ...string) []corev1.Volume {
	var volumes []corev1.Volume
	for _, name := range names {
		volumes = append(volumes, corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}})
	}
	return volumes
}

func podOn(node, name string, uid types.UID, volumes ...string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: uid}, Spec: corev1.PodSpec{NodeName: node, Volumes: scratch(volumes...)}}
}

// heldBack is a replacement whose gate runs.
func heldBack(node string, uid types.UID) *corev1.Pod {
	pod := podOn(node, "train-r", uid, "work", v1alpha1.GateVolumeName)
	pod.Spec.InitContainers = []corev1.Container{{Name: v1alpha1.GateContainer}}
	pod.Spec.Containers = []corev1.Container{{Name: "main"}, {Name: "side"}}
	pod.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: v1alpha1.GateContainer, State: running, ContainerID: "containerd://" + gate}}
	return pod
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := emptyBench(t, fixture.Moving(v1alpha1.StepMeasure, ""), heldBack("b", fixture.ReplacementUID))
	b.makeVolumes("b", fixture.ReplacementUID)
	return b
}

// emptyBench has a pod on one node, and another on its destination.
func emptyBench(t *testing.T, m *v1alpha1.PodMigration, destination *corev1.Pod) *bench {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	b := &bench{T: t, kubelets: map[string]string{}, states: map[string]string{}, servers: map[string]func(){}, node: &node{
		root: t.TempDir(), frozen: map[types.UID]bool{}, killed: map[types.UID]bool{}, boot: "first", containers: []string{"c1", "pause"},
	}}
	m.Status.Checkpoint.Attempt = 1
	original := podOn("a", "train", fixture.OriginalUID, "work")
	original.Finalizers = []string{"x/y"}
	original.Spec.Containers = []corev1.Container{{Name: "main"}, {Name: "side"}}
	objects := []client.Object{m, original, destination}
	for _, name := range []string{"a", "b", "c"} {
		b.kubelets[name], b.states[name] = t.TempDir(), t.TempDir()
		objects = append(objects, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: corev1.NodeStatus{
			Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "127.0.0.1"}}}})
	}
	b.client = fake.NewClientBuilder().WithScheme(scheme).WithStatusSubresource(m, &corev1.Pod{}).WithObjects(objects...).
		WithInterceptorFuncs(interceptor.Funcs{SubResourcePatch: b.patch}).Build()
	if err := os.MkdirAll(b.volume("a", fixture.OriginalUID, "work"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(b.volume("a", fixture.OriginalUID, "work"), "data"), "first")
	b.restart()
	t.Cleanup(func() {
		for _, stop := range b.servers {
			stop()
		}
	})
	return b
}

func (b *bench) patch(ctx context.Context, c client.Client, sub string, o client.Object, p client.Patch, opts ...client.SubResourcePatchOption) error {
	b.mu.Lock()
	refuse := b.refuse
	b.mu.Unlock()
	if refuse != nil {
		if err := refuse(); err != nil {
			return err
		}
	}
	err := c.Status().Patch(ctx, o, p, opts...)
	if d := o.(*v1alpha1.PodMigration).Status.Checkpoint.Destination; d != nil && err == nil {
		b.mu.Lock()
		defer b.mu.Unlock()
		if n := len(b.reported); n == 0 || b.reported[n-1].Phase != d.Phase {
			b.reported = append(b.reported, *d)
		}
	}
	return err
}

func (b *bench) setRefuse(refuse func() error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refuse = refuse
}

func (b *bench) phases() []v1alpha1.DestinationPhase {
	b.mu.Lock()
	defer b.mu.Unlock()
	var phases []v1alpha1.DestinationPhase
	for _, d := range b.reported {
		phases = append(phases, d.Phase)
	}
	return phases
}

// volume is where the kubelet of a node has an emptyDir of a pod.
func (b *bench) volume(node string, pod types.UID, name string) string {
	return filepath.Join(b.kubelets[node], "pods", string(pod), "volumes", emptyDirPlugin, name)
}

// makeVolumes makes the emptyDirs of a replacement.
func (b *bench) makeVolumes(node string, pod types.UID) {
	b.Helper()
	for _, name := range []string{"work", v1alpha1.GateVolumeName} {
		if err := os.MkdirAll(b.volume(node, pod, name), 0o755); err != nil {
			b.Fatal(err)
		}
	}
}

// vanish closes what the kernel closes when a process ends.
func (a *agent) vanish(t testing.TB) {
	t.Helper()
	a.mu.Lock()
	receivings, sendings := maps.Clone(a.receivings), maps.Clone(a.sendings)
	a.mu.Unlock()
	for _, r := range receivings {
		if err := r.close(); err != nil {
			t.Error(err)
		}
	}
	for key := range sendings {
		a.closeSending(key)
	}
}

// restart is what a crash leaves: agents that know nothing.
func (b *bench) restart() {
	b.Helper()
	b.source, b.far, b.third = b.start("a"), b.start("b"), b.start("c")
}

// start starts the agent of a node, and ends the one before.
func (b *bench) start(node string) *agent {
	b.Helper()
	if stop := b.servers[node]; stop != nil {
		stop()
	}
	a, err := newAgent(node, b.client, b.client, b.node, b.states[node], b.kubelets[node])
	if err != nil {
		b.Fatal(err)
	}
	a.isMounted = func(*os.File) (bool, error) { return true, nil }
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	a.address = listener.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- a.serveOn(ctx, listener) }()
	b.servers[node] = sync.OnceFunc(func() {
		a.end()
		cancel()
		if err := <-served; err != nil {
			b.Errorf("the agent of node %s: %v", node, err)
		}
		a.vanish(b)
	})
	return a
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
	for quiet, rounds := 0, 0; quiet < 2 && rounds < 50; rounds++ {
		before := b.get().ResourceVersion
		var all sync.WaitGroup
		for _, a := range []*agent{b.source, b.far, b.third} {
			all.Go(func() {
				if _, err := a.Reconcile(b.Context(), request); err != nil {
					b.Error(err)
				}
			})
		}
		all.Wait()
		quiet++
		if b.get().ResourceVersion != before {
			quiet = 0
		}
	}
	return b.get()
}

var request = ctrl.Request{NamespacedName: types.NamespacedName{Namespace: "default", Name: "m"}}

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
	if err != nil || b.node.isFrozen(fixture.OriginalUID) != want || (record != nil) != want {
		b.Errorf("the original is frozen: %t, recorded: %+v, error %v, want %t", b.node.isFrozen(fixture.OriginalUID), record, err, want)
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
	write(b.T, filepath.Join(b.volume("a", fixture.OriginalUID, "work"), "late"), "second")
	m = b.ask(step(v1alpha1.StepSeal))
	b.wantSource(m, v1alpha1.SourceSealed)
	b.wantFrozen(true)
	if d := m.Status.Checkpoint.Destination; d == nil || d.Phase != v1alpha1.DestinationRestored || d.ManifestDigest != m.Status.Checkpoint.Source.ManifestDigest {
		b.Fatalf("destination reports %+v, want it restored", d)
	}
	next()
	return m
}

// The source reports that it has copied when the destination has said that it has.
func TestTheDestinationReportsWhatItHas(t *testing.T) {
	b := newBench(t)
	b.settle()
	m := b.ask(step(v1alpha1.StepCopy))
	if got, want := b.phases(), []v1alpha1.DestinationPhase{v1alpha1.DestinationReceiving, v1alpha1.DestinationWarm}; !slices.Equal(got, want) {
		t.Errorf("the destination reported %v, want %v", got, want)
	}
	d := m.Status.Checkpoint.Destination
	if d.Files != 2 || d.Address != b.far.address || d.Fingerprint != b.far.identity.Fingerprint() || d.PodUID != fixture.ReplacementUID || d.Pass != 1 {
		t.Errorf("the destination reports %+v", d)
	}
	if s := m.Status.Checkpoint.Source; s.Fingerprint != b.source.identity.Fingerprint() {
		t.Errorf("the source reports %+v", s)
	}
}

func TestCarryOver(t *testing.T) {
	for name, crash := range map[string]bool{"agents live": false, "agents die after every step": true} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.sealed(crash)
			for file, want := range map[string]string{"data": "first", "late": "second"} {
				if got, err := os.ReadFile(filepath.Join(b.volume("b", fixture.ReplacementUID, "work"), file)); err != nil || string(got) != want {
					t.Errorf("%s holds %q, error %v, want %q", file, got, err, want)
				}
			}
			gate := filepath.Join(b.volume("b", fixture.ReplacementUID, v1alpha1.GateVolumeName), v1alpha1.GateOpenFile)
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
			if !b.node.killed[fixture.OriginalUID] {
				t.Error("the original was thawed beside its replacement")
			}
			if !crash {
				wantPasses(t, b, map[string]float64{passCopy: 2, passSeal: 1}, map[string]float64{passReceive: 3})
			}
		})
	}
}

// wantPasses checks what was counted of one migration: a first copy and a short
// one before the pod was frozen, the last one, and the two of the destination.
func wantPasses(t *testing.T, b *bench, source, far map[string]float64) {
	t.Helper()
	for _, pass := range passes {
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
		t.Errorf("%v bytes sent, want %v", copied, want)
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
			if b.node.killed[fixture.OriginalUID] {
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
	b.setRefuse(func() error {
		if !first {
			return nil
		}
		first = false
		m := b.get()
		m.Status.Checkpoint.Step = v1alpha1.StepRelease
		return b.client.Status().Update(context.Background(), m)
	})
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
	if all, err := b.source.records.list(); err != nil || len(all) != 0 || b.node.isFrozen(fixture.OriginalUID) {
		t.Errorf("records %v, error %v, frozen: %t", all, err, b.node.isFrozen(fixture.OriginalUID))
	}
}

// A pod is frozen for as long as the last copy takes, and thawed when that fails.
func TestAFailedSealThawsThePod(t *testing.T) {
	b := newBench(t)
	b.settle()
	b.ask(step(v1alpha1.StepCopy))
	b.node.onFreeze = func() {
		if err := unix.Mknod(filepath.Join(b.volume("a", fixture.OriginalUID, "work"), "device"), unix.S_IFCHR|0o600, 1<<8|3); err != nil {
			skip.Because(t, "no device can be made here: %v", err)
		}
	}
	m := b.ask(step(v1alpha1.StepSeal))
	b.wantSource(m, v1alpha1.SourceFailed)
	b.wantFrozen(false)
	if s := m.Status.Checkpoint.Source; s.Reason != transfer.ReasonUnsupportedFile || s.Message == "" {
		t.Errorf("the source reports %q, %q", s.Reason, s.Message)
	}
	if got := testutil.ToFloat64(b.source.metrics.errors.WithLabelValues(transfer.ReasonUnsupportedFile)); got != 1 {
		t.Errorf("%v errors counted as UnsupportedFile, want 1", got)
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
			m = b.get()
			m.Status.Checkpoint.Step = v1alpha1.StepSeal
			if err := b.client.Status().Update(t.Context(), m); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			if _, err := b.source.Reconcile(t.Context(), request); err != nil {
				t.Fatal(err)
			}
			b.wantSource(b.get(), v1alpha1.SourceSealed)
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
			b.setRefuse(func() error {
				attempts++
				answer := test.answers[0]
				if len(test.answers) > 1 {
					test.answers = test.answers[1:]
				}
				return answer
			})
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
