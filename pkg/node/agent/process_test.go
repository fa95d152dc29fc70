package agent

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/internal/skip"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// newProcessBench is a migration of two containers with their memory.
func newProcessBench(t *testing.T) *bench {
	t.Helper()
	b := newBench(t)
	m := b.get()
	m.Status.Checkpoint.Mode, m.Status.Checkpoint.Processes = v1alpha1.CheckpointProcess, []string{"main", "side"}
	if err := b.client.Status().Update(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	original := &corev1.Pod{}
	if err := b.client.Get(t.Context(), types.NamespacedName{Namespace: "default", Name: "train"}, original); err != nil {
		t.Fatal(err)
	}
	original.Status.ContainerStatuses = []corev1.ContainerStatus{
		{Name: "main", State: running, ContainerID: "containerd://" + c1}, {Name: "side", State: running, ContainerID: "containerd://" + c2},
		{Name: "finished", ContainerID: "containerd://" + c3}}
	if err := b.client.Status().Update(t.Context(), original); err != nil {
		t.Fatal(err)
	}
	root, layer, err := b.node.Layer(c1)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(root, layer, "scratch"), "in the layer")
	return b
}

// wrapper plays the wrapper of runc on the destination: it restores what is
// offered, or fails.
func (b *bench) wrapper(ctx context.Context, failure string) {
	for ctx.Err() == nil {
		for _, name := range []string{"main", "side"} {
			entry, err := b.far.restores.Entry(fixture.ReplacementUID, name)
			if err != nil {
				b.Error(err)
			}
			if os.Rename(filepath.Join(string(entry), "ready"), filepath.Join(string(entry), "begun")) != nil {
				continue
			}
			outcome, content := "restored", "restored-"+name
			if failure != "" && name == "side" {
				outcome, content = "failed", failure
			}
			if err := os.WriteFile(filepath.Join(string(entry), outcome), []byte(content), 0o600); err != nil {
				b.Error(err)
			}
		}
		time.Sleep(time.Millisecond)
	}
}

func (b *bench) toSeal(failure string) *v1alpha1.PodMigration {
	b.Helper()
	b.wantSource(b.settle(), v1alpha1.SourceMeasured)
	m := b.ask(step(v1alpha1.StepCopy))
	b.wantSource(m, v1alpha1.SourceCopied)
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan struct{})
	go func() { b.wrapper(ctx, failure); close(done) }()
	m = b.ask(step(v1alpha1.StepSeal))
	cancel()
	<-done
	return m
}

func TestProcessesAreHeldUntilTheRelease(t *testing.T) {
	b := newProcessBench(t)
	m := b.toSeal("")
	b.wantSource(m, v1alpha1.SourceSealed)
	if d := m.Status.Checkpoint.Destination; d == nil || d.Phase != v1alpha1.DestinationRestored {
		t.Fatalf("destination reports %+v", d)
	}
	s := m.Status.Checkpoint.Source
	if s.FrozenAt == nil || s.DumpedAt == nil || s.SealedAt == nil {
		t.Errorf("parts of the stop are missing: %+v", s)
	}
	entry, err := b.far.restores.Entry(fixture.ReplacementUID, "main")
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		filepath.Join(entry.Memory(), "pages"):  "memory of " + c1,
		filepath.Join(entry.Layer(), "scratch"): "in the layer",
	} {
		if got, err := os.ReadFile(path); err != nil || string(got) != want {
			t.Errorf("%s holds %q (%v), want %q", path, got, err, want)
		}
	}
	if len(b.node.continued) != 0 {
		t.Errorf("%v ran before the release, beside the original", b.node.continued)
	}
	// An agent that dies here finds what is held.
	b.far = b.start("b")
	m = b.ask(func(s *v1alpha1.PodMigrationStatus) {
		s.Checkpoint.Step = v1alpha1.StepRelease
		s.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionSealed, Status: metav1.ConditionTrue}}
	})
	slices.Sort(b.node.continued)
	if !slices.Equal(b.node.continued, []string{"restored-main", "restored-side"}) || m.Status.Checkpoint.Destination.Phase != v1alpha1.DestinationReleased {
		t.Errorf("continued: %v, destination reports %+v", b.node.continued, m.Status.Checkpoint.Destination)
	}
	if entry.Exists() {
		t.Error("a container that starts again would be refused")
	}
	b.wantFrozen(true)
}

func TestAFailedRestoreIsReportedAndNothingContinues(t *testing.T) {
	b := newProcessBench(t)
	m := b.toSeal("CRIU says no")
	d := m.Status.Checkpoint.Destination
	if d == nil || d.Phase != v1alpha1.DestinationFailed || d.Reason != v1alpha1.ReportProcessNotMovable || !strings.Contains(d.Message, "CRIU says no") {
		t.Fatalf("destination reports %+v", d)
	}
	m = b.ask(step(v1alpha1.StepAbort))
	b.wantSource(m, v1alpha1.SourceThawed)
	b.wantFrozen(false)
	if len(b.node.continued) != 0 {
		t.Errorf("%v ran beside the original", b.node.continued)
	}
}

// Behind the gate the pod's /dev/shm is not found any more: the original, which is frozen,
// must not wait for it.
func TestAnAgentThatDiedBehindTheGateSaysSo(t *testing.T) {
	b := newProcessBench(t)
	b.settle()
	b.ask(step(v1alpha1.StepCopy))
	b.far = b.start("b")
	replacement := &corev1.Pod{}
	if err := b.client.Get(t.Context(), types.NamespacedName{Namespace: "default", Name: "train-r"}, replacement); err != nil {
		t.Fatal(err)
	}
	replacement.Status.InitContainerStatuses[0].State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}
	if err := b.client.Status().Update(t.Context(), replacement); err != nil {
		t.Fatal(err)
	}
	m := b.ask(step(v1alpha1.StepSeal))
	if d := m.Status.Checkpoint.Destination; d == nil || d.Phase != v1alpha1.DestinationFailed || !strings.Contains(d.Message, "gate") {
		t.Fatalf("destination reports %+v", d)
	}
}

func TestProcessesThatCannotMoveAreFoundBeforeAnythingIsTouched(t *testing.T) {
	b := newProcessBench(t)
	b.node.obstacle = "its process x has device /dev/kvm open"
	b.node.onFreeze = func() { t.Error("the pod was frozen") }
	m := b.settle()
	b.wantSource(m, v1alpha1.SourceFailed)
	if s := m.Status.Checkpoint.Source; s.Reason != v1alpha1.ReportProcessNotMovable || !strings.Contains(s.Message, "/dev/kvm") {
		t.Errorf("source reports %+v", s)
	}
}

func TestAFailedDumpIsReported(t *testing.T) {
	b := newProcessBench(t)
	b.node.dumpFails = true
	m := b.toSeal("")
	b.wantSource(m, v1alpha1.SourceFailed)
	if s := m.Status.Checkpoint.Source; s.Reason != v1alpha1.ReportProcessNotMovable || !strings.Contains(s.Message, "CRIU says no") {
		t.Errorf("source reports %+v", s)
	}
	b.wantFrozen(false)
}

// Whoever thaws a container while it is copied tears the checkpoint: parts of it are
// from after the dump.
func TestAPodThatWasThawedDuringTheLastCopyIsNotSealed(t *testing.T) {
	b := newProcessBench(t)
	b.node.onCheckFrozen = func() { b.node.set(b.node.frozen, fixture.OriginalUID, false) }
	m := b.toSeal("")
	b.wantSource(m, v1alpha1.SourceFailed)
	if s := m.Status.Checkpoint.Source; !strings.Contains(s.Message, "it runs") || s.ManifestDigest != "" {
		t.Errorf("source reports %+v", s)
	}
	if d := m.Status.Checkpoint.Destination; d != nil && d.Phase == v1alpha1.DestinationRestored {
		t.Errorf("destination reports %+v", d)
	}
}

func TestCancelledContainersFail(t *testing.T) {
	b := newProcessBench(t)
	b.settle()
	b.ask(step(v1alpha1.StepCopy))
	entry, err := b.far.restores.Entry(fixture.ReplacementUID, "main")
	if err != nil || !entry.Exists() {
		t.Fatalf("the container would be started and not restored: %v", err)
	}
	b.ask(step(v1alpha1.StepAbort))
	if outcome, err := entry.Outcome(); err != nil || outcome.Failure == "" {
		t.Errorf("outcome %+v, %v: a creation would wait in vain", outcome, err)
	}
	if err := b.far.removeOrphans(t.Context()); err != nil || !entry.Exists() {
		t.Errorf("the container would be started and not restored while its pod is there: %v", err)
	}
	if err := b.client.Delete(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "train-r"}}); err != nil {
		t.Fatal(err)
	}
	if err := b.far.removeOrphans(t.Context()); err != nil || entry.Exists() {
		t.Errorf("what is orphaned stays: %v", err)
	}
}

func TestObstacles(t *testing.T) {
	for target, want := range map[string]string{
		"anon_inode:[eventpoll]": "", "anon_inode:inotify": "", "pipe:[1]": "", "/dev/null": "", "/etc/passwd": "", "/memfd:x (deleted)": "",
		"anon_inode:[io_uring]": "io_uring", "anon_inode:bpf-map": "bpf-map", "anon_inode:[userfaultfd]": "userfaultfd",
	} {
		path := target
		if !strings.HasPrefix(target, "/") {
			path = "/nowhere"
		}
		if got := obstacleOf(path, target); (want == "") != (got == "") || !strings.Contains(got, want) {
			t.Errorf("%s: got %q, want %q", target, got, want)
		}
	}
}

// CRIU reads the limits of every process, which needs a capability where the process
// belongs to another user. Root of a machine in a sandbox may lack it.
func TestProcessesOfOtherUsers(t *testing.T) {
	skip.WithoutRoot(t, "it starts a process of another user")
	process := exec.CommandContext(t.Context(), "sleep", "60")
	process.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = process.Wait() })
	t.Cleanup(func() { _ = process.Process.Kill() })
	has, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, unix.CAP_SYS_RESOURCE, 0, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	found := Machine{Proc: "/proc"}.obstacle(process.Process.Pid)
	if has == 1 && found != "" || has == 0 && !strings.Contains(found, "CAP_SYS_RESOURCE") {
		t.Errorf("the capability is there: %t, obstacle %q", has == 1, found)
	}
	if found := (Machine{Proc: "/proc"}).obstacle(os.Getpid()); found != "" {
		t.Errorf("its own process: %q", found)
	}
}
