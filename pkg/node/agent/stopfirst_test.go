package agent

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

const claimName = "train-claim"

// mountClaim gives a container of a pod the directory of the sealed copies on the claim.
func mountClaim(pod *corev1.Pod, c *corev1.Container) {
	pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: v1alpha1.CheckpointVolumeName, VolumeSource: corev1.VolumeSource{
		PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claimName}}})
	c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: "other"},
		corev1.VolumeMount{Name: v1alpha1.CheckpointVolumeName, MountPath: v1alpha1.CheckpointMountPath, SubPath: v1alpha1.SealedCopyDirectory})
}

// newStoppingBench is a migration whose original stops first; a placeholder holds the place
// of the replacement.
func newStoppingBench(t *testing.T, hasClaim bool) *bench {
	t.Helper()
	m := fixture.StoppingFirst(v1alpha1.StepMeasure, "")
	m.Status.Replacement = nil
	placeholder := podOn("b", "train-p", fixture.PlaceholderUID)
	placeholder.Spec.Containers = []corev1.Container{{Name: placeholderContainer}}
	placeholder.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: placeholderContainer, State: running}}
	if hasClaim {
		m.Status.CheckpointClaim = claimName
		mountClaim(placeholder, &placeholder.Spec.Containers[0])
	}
	b := emptyBench(t, m, placeholder)
	if hasClaim {
		b.mustMake(b.copies("b", fixture.PlaceholderUID, placeholderContainer))
	}
	return b
}

func (b *bench) mustMake(directory string) {
	b.Helper()
	if err := os.MkdirAll(directory, 0o755); err != nil {
		b.Fatal(err)
	}
}

// copies is where the kubelet mounts the sealed copies on the claim for a container.
func (b *bench) copies(node string, pod types.UID, container string) string {
	return filepath.Join(b.kubelets[node], "pods", string(pod), subPaths, "pvc-1", container, "1")
}

// replace ends the original and puts the replacement on a node, whose kubelet has mounted
// the claim that was on b.
func (b *bench) replace(node string, uid types.UID) *v1alpha1.PodMigration {
	b.Helper()
	pod := heldBack(node, uid)
	m := b.get()
	if m.Status.CheckpointClaim != "" {
		mountClaim(pod, &pod.Spec.InitContainers[0])
		to := b.copies(node, uid, v1alpha1.GateContainer)
		b.mustMake(filepath.Dir(to))
		if err := os.Rename(b.copies("b", fixture.PlaceholderUID, placeholderContainer), to); err != nil {
			b.Fatal(err)
		}
	}
	b.makeVolumes(node, uid)
	status := pod.Status
	if err := b.client.Create(b.Context(), pod); err != nil {
		b.Fatal(err)
	}
	pod.Status = status
	if err := b.client.Status().Update(b.Context(), pod); err != nil {
		b.Fatal(err)
	}
	return b.ask(func(s *v1alpha1.PodMigrationStatus) {
		s.Replacement = &v1alpha1.PodReference{Name: "train-r", UID: uid, NodeName: node}
		s.Times.OriginalGone = microTime(metav1.NowMicro())
		s.Conditions = []metav1.Condition{
			{Type: v1alpha1.ConditionSealed, Status: metav1.ConditionTrue}, {Type: v1alpha1.ConditionCommitted, Status: metav1.ConditionTrue}}
	})
}

// stored brings a migration to where what was sealed waits.
func (b *bench) stored(crash bool) *v1alpha1.PodMigration {
	b.Helper()
	next := func() {
		if crash {
			b.restart()
		}
	}
	b.settle()
	next()
	m := b.ask(step(v1alpha1.StepCopy))
	b.wantSource(m, v1alpha1.SourceCopied)
	b.wantDestination(m, v1alpha1.DestinationWarm)
	next()
	write(b.T, filepath.Join(b.volume("a", fixture.OriginalUID, "work"), "late"), "second")
	m = b.ask(step(v1alpha1.StepSeal))
	b.wantSource(m, v1alpha1.SourceSealed)
	b.wantFrozen(true)
	b.wantDestination(m, v1alpha1.DestinationStored)
	c := m.Status.Checkpoint
	if d := c.Destination; d.ManifestDigest != c.Source.ManifestDigest || d.PodUID != fixture.PlaceholderUID || d.ClaimSealed != (m.Status.CheckpointClaim != "") ||
		!strings.Contains(d.Message, b.far.waitingPath(m)) {
		b.Errorf("the destination reports %+v", d)
	}
	next()
	return m
}

func (b *bench) wantDestination(m *v1alpha1.PodMigration, phase v1alpha1.DestinationPhase) {
	b.Helper()
	if d := m.Status.Checkpoint.Destination; d == nil || d.Phase != phase {
		b.Fatalf("destination reports %+v, want %s", d, phase)
	}
}

// wantState checks that a replacement has what the original had.
func (b *bench) wantState(node string, pod types.UID) {
	b.Helper()
	for file, want := range map[string]string{"data": "first", "late": "second"} {
		if got, err := os.ReadFile(filepath.Join(b.volume(node, pod, "work"), file)); err != nil || string(got) != want {
			b.Errorf("%s holds %q, error %v, want %q", file, got, err, want)
		}
	}
}

func (b *bench) isThere(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func TestWhatWaitsBecomesTheReplacements(t *testing.T) {
	for name, test := range map[string]struct{ crash, claim bool }{
		"agents live": {false, false}, "agents die after every step": {true, false}, "with a claim": {false, true}, "with a claim, and agents die": {true, true},
	} {
		t.Run(name, func(t *testing.T) {
			b := newStoppingBench(t, test.claim)
			waiting := b.far.waitingPath(b.stored(test.crash))
			write(t, filepath.Join(b.volume("b", fixture.ReplacementUID, "work"), "of the image"), "x")
			m := b.replace("b", fixture.ReplacementUID)
			b.wantDestination(m, v1alpha1.DestinationRestored)
			if d := m.Status.Checkpoint.Destination; d.ManifestDigest != m.Status.Checkpoint.Source.ManifestDigest || d.PodUID != fixture.ReplacementUID {
				t.Errorf("the destination reports %+v", d)
			}
			b.wantState("b", fixture.ReplacementUID)
			if b.isThere(filepath.Join(b.volume("b", fixture.ReplacementUID, "work"), "of the image")) {
				t.Error("something else is in the volume")
			}
			if test.crash {
				b.restart()
			}
			b.wantDestination(b.ask(release), v1alpha1.DestinationReleased)
			if !b.isThere(waiting) {
				t.Error("what waits is gone before the end")
			}
			b.ask(end(v1alpha1.PhaseSucceeded))
			if b.isThere(filepath.Join(b.kubelets["b"], waitingOf(m.UID))) || b.far.hasState(m.UID) || b.source.hasState(m.UID) {
				t.Error("something is left on a node")
			}
			if copies := b.copies("b", fixture.ReplacementUID, v1alpha1.GateContainer); test.claim && b.isThere(filepath.Join(copies, string(m.UID))) {
				t.Error("the sealed copy is left on the claim")
			}
		})
	}
}

// A replacement that comes to another node has what is on the claim; the node where it
// waits keeps it until the end.
func TestAReplacementOnAThirdNodeHasTheSealedCopy(t *testing.T) {
	for name, crash := range map[string]bool{"agents live": false, "agents die after every step": true} {
		t.Run(name, func(t *testing.T) {
			b := newStoppingBench(t, true)
			waiting := b.far.waitingPath(b.stored(crash))
			m := b.replace("c", fixture.ReplacementUID)
			b.wantDestination(m, v1alpha1.DestinationRestored)
			b.wantState("c", fixture.ReplacementUID)
			if d := m.Status.Checkpoint.Destination; d.Node != "c" || d.ManifestDigest != m.Status.Checkpoint.Source.ManifestDigest {
				t.Errorf("the destination reports %+v", d)
			}
			if !b.isThere(waiting) {
				t.Error("what waits is gone before the end")
			}
			b.wantDestination(b.ask(release), v1alpha1.DestinationReleased)
			b.ask(end(v1alpha1.PhaseSucceeded))
			if b.isThere(waiting) || b.third.hasState(m.UID) || b.isThere(filepath.Join(b.copies("c", fixture.ReplacementUID, v1alpha1.GateContainer), string(m.UID))) {
				t.Error("something is left")
			}
		})
	}
}

func TestWithoutAClaimAThirdNodeNamesTheOneThatHasTheState(t *testing.T) {
	b := newStoppingBench(t, false)
	waiting := b.far.waitingPath(b.stored(false))
	m := b.replace("c", fixture.ReplacementUID)
	b.wantDestination(m, v1alpha1.DestinationFailed)
	if d := m.Status.Checkpoint.Destination; !strings.Contains(d.Message, "node b") || !strings.Contains(d.Message, "/ai-storage/"+string(m.UID)+"/1/volumes") {
		t.Errorf("the destination reports %q", d.Message)
	}
	// It may be the only copy, whatever becomes of the migration.
	m = b.ask(end(v1alpha1.PhaseFailed))
	b.restart()
	b.settle()
	if err := b.far.removeStates(t.Context()); err != nil || !b.isThere(filepath.Join(waiting, "work/data")) {
		t.Errorf("the only copy is gone, error %v", err)
	}
	// Who deletes the PodMigration deletes it.
	if err := b.client.Delete(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if err := b.far.removeStates(t.Context()); err != nil || b.isThere(waiting) || b.far.hasState(m.UID) {
		t.Errorf("what waits for nothing stays, error %v", err)
	}
}

// Parts of what waited have left with the first replacement: a second one must not be taken
// for complete.
func TestWhatWasGivenToOnePodIsNotGivenToAnother(t *testing.T) {
	b := newStoppingBench(t, false)
	b.stored(false)
	b.wantDestination(b.replace("b", fixture.ReplacementUID), v1alpha1.DestinationRestored)
	if err := b.client.Delete(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "train-r"}}); err != nil {
		t.Fatal(err)
	}
	m := b.replace("b", "66666666-6666-6666-6666-666666666666")
	b.wantDestination(m, v1alpha1.DestinationFailed)
}

// An attempt that was abandoned leaves what was sent: it is not sent again.
func TestAnotherAttemptTakesOverWhatWaits(t *testing.T) {
	b := newStoppingBench(t, false)
	first := b.far.waitingPath(b.stored(false))
	sent := b.written()
	b.ask(func(s *v1alpha1.PodMigrationStatus) {
		c := s.Checkpoint
		c.Attempt, c.Step, c.Source, c.Destination = c.Attempt+1, "", nil, nil
	})
	b.wantFrozen(false)
	b.ask(step(v1alpha1.StepMeasure))
	m := b.ask(step(v1alpha1.StepCopy))
	b.wantDestination(m, v1alpha1.DestinationWarm)
	if second := b.far.waitingPath(m); second == first || b.isThere(first) || !b.isThere(filepath.Join(second, "work/data")) {
		t.Errorf("what waited in %s is not in %s", first, second)
	}
	if again := b.written() - sent; again != 0 {
		t.Errorf("%d bytes were sent again", again)
	}
	b.wantDestination(b.ask(step(v1alpha1.StepSeal)), v1alpha1.DestinationStored)
	b.wantDestination(b.replace("b", fixture.ReplacementUID), v1alpha1.DestinationRestored)
	b.wantState("b", fixture.ReplacementUID)
}

func TestARollbackRemovesWhatWaits(t *testing.T) {
	b := newStoppingBench(t, true)
	b.stored(false)
	m := b.ask(step(v1alpha1.StepAbort))
	b.wantSource(m, v1alpha1.SourceThawed)
	b.wantFrozen(false)
	if b.isThere(filepath.Join(b.kubelets["b"], waitingOf(m.UID))) || b.far.hasState(m.UID) {
		t.Error("what waits for nothing stays")
	}
}

// The kubelet gives what is on the claim to the group of a pod, when it mounts it.
func TestASealedCopyIsPrivateAgain(t *testing.T) {
	b := newStoppingBench(t, true)
	m := b.stored(false)
	copied := filepath.Join(b.copies("b", fixture.PlaceholderUID, placeholderContainer), string(m.UID))
	if err := os.Chmod(copied, 0o770|os.ModeSetgid); err != nil {
		t.Fatal(err)
	}
	b.wantDestination(b.replace("c", fixture.ReplacementUID), v1alpha1.DestinationRestored)
	info, err := os.Stat(filepath.Join(b.copies("c", fixture.ReplacementUID, v1alpha1.GateContainer), string(m.UID)))
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("it is %v, error %v", info.Mode(), err)
	}
}

func TestASealedCopyOfAnotherContentIsNotRestored(t *testing.T) {
	b := newStoppingBench(t, true)
	m := b.stored(false)
	write(t, filepath.Join(b.copies("b", fixture.PlaceholderUID, placeholderContainer), string(m.UID), "volumes/work/data"), "wrong")
	m = b.replace("c", fixture.ReplacementUID)
	b.wantDestination(m, v1alpha1.DestinationFailed)
	if d := m.Status.Checkpoint.Destination; d.Reason != "Corrupt" {
		t.Errorf("the destination reports %+v", d)
	}
}

// A pod of a failed migration is recovered from the claim, on any node.
func TestARecoveryRestoresTheSealedCopy(t *testing.T) {
	b := newStoppingBench(t, true)
	failed := b.stored(false)
	m := b.replace("c", fixture.ReplacementUID)
	if err := b.client.Delete(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	recovery := fixture.Moving(v1alpha1.StepSeal, v1alpha1.SourceSealed)
	recovery.UID, recovery.ResourceVersion = "77777777-7777-7777-7777-777777777777", ""
	recovery.Status.CheckpointClaim = claimName
	recovery.Status.Original = &v1alpha1.PodReference{Name: "train", UID: fixture.OriginalUID}
	recovery.Status.Replacement.NodeName = "c"
	c := recovery.Status.Checkpoint
	c.Attempt, c.Source.Attempt, c.RecoveredFrom, c.SealedBy = 1, 1, failed.UID, failed.UID
	c.Source.ManifestDigest = failed.Status.Checkpoint.Source.ManifestDigest
	status := recovery.Status
	if err := b.client.Create(t.Context(), recovery); err != nil {
		t.Fatal(err)
	}
	recovery.Status = status
	if err := b.client.Status().Update(t.Context(), recovery); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(b.volume("c", fixture.ReplacementUID, "work"), "data")); err != nil {
		t.Fatal(err)
	}
	b.wantDestination(b.settle(), v1alpha1.DestinationRestored)
	b.wantState("c", fixture.ReplacementUID)
	b.wantDestination(b.ask(release), v1alpha1.DestinationReleased)
	b.ask(end(v1alpha1.PhaseSucceeded))
	if b.isThere(filepath.Join(b.copies("c", fixture.ReplacementUID, v1alpha1.GateContainer), string(failed.UID))) {
		t.Error("the sealed copy is left on the claim")
	}
}

func TestAClaimThatIsNotMountedYetIsWaitedFor(t *testing.T) {
	b := newStoppingBench(t, true)
	copies := b.copies("b", fixture.PlaceholderUID, placeholderContainer)
	if err := os.RemoveAll(filepath.Dir(copies)); err != nil {
		t.Fatal(err)
	}
	b.settle()
	if d := b.ask(step(v1alpha1.StepCopy)).Status.Checkpoint.Destination; d != nil {
		t.Errorf("the destination reports %+v", d)
	}
	b.mustMake(copies)
	b.far.isMounted = func(*os.File) (bool, error) { return false, nil }
	if d := b.settle().Status.Checkpoint.Destination; d != nil {
		t.Errorf("the directory that the claim will be mounted at is taken for the claim: %+v", d)
	}
	b.far.isMounted = func(*os.File) (bool, error) { return true, nil }
	b.wantDestination(b.settle(), v1alpha1.DestinationWarm)
}

func TestAPodThatDoesNotMountTheClaimIsRefused(t *testing.T) {
	b := newStoppingBench(t, true)
	pod := &corev1.Pod{}
	if err := b.client.Get(t.Context(), client.ObjectKey{Namespace: "default", Name: "train-p"}, pod); err != nil {
		t.Fatal(err)
	}
	for change, spoil := range map[string]func(*corev1.Pod){
		"another claim":     func(p *corev1.Pod) { p.Spec.Volumes[0].PersistentVolumeClaim.ClaimName = "other" },
		"no subPath":        func(p *corev1.Pod) { p.Spec.Containers[0].VolumeMounts[1].SubPath = "" },
		"another container": func(p *corev1.Pod) { p.Spec.Containers[0].Name = "main" },
	} {
		other := pod.DeepCopy()
		spoil(other)
		m := b.get()
		if _, err := b.far.copiesRoot(m, other); err == nil || errors.Is(err, errNoProcess) {
			t.Errorf("%s: %v", change, err)
		}
	}
}

// written is what the destination has received, in bytes.
func (b *bench) written() int64 {
	total := 0.0
	for _, pass := range []string{passCopy, passSeal} {
		total += testutil.ToFloat64(b.source.metrics.written.WithLabelValues(pass))
	}
	return int64(total)
}
