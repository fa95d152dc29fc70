package agent

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/internal/skip"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// cutter forwards connections to an address, and ends each after so many bytes from who
// connects, until it has ended enough of them.
type cutter struct {
	net.Listener
	to    string
	after int64
	left  atomic.Int32
}

func cutConnections(t *testing.T, to string, after int64, times int32) *cutter {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cutter{Listener: listener, to: to, after: after}
	c.left.Store(times)
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go c.forward(conn)
		}
	}()
	return c
}

func (c *cutter) forward(from net.Conn) {
	defer from.Close()
	to, err := net.Dial("tcp", c.to)
	if err != nil {
		return
	}
	defer to.Close()
	go func() {
		_, _ = io.Copy(from, to)
		_ = from.Close()
	}()
	if c.left.Add(-1) < 0 {
		_, _ = io.Copy(to, from)
		return
	}
	_, _ = io.CopyN(to, from, c.after)
}

func TestACopyContinuesWhenTheConnectionIsCut(t *testing.T) {
	b := newBench(t)
	content := bytes.Repeat([]byte("state of the pod"), 1<<16)
	for _, name := range []string{"one", "two", "three"} {
		write(t, filepath.Join(b.volume("a", fixture.OriginalUID, "work"), name), name+string(content))
	}
	address := b.far.address
	b.far.address = cutConnections(t, address, 600<<10, 4).Addr().String()
	b.settle()
	b.wantSource(b.ask(step(v1alpha1.StepCopy)), v1alpha1.SourceCopied)
	b.node.onFreeze = func() {
		if err := os.WriteFile(filepath.Join(b.volume("a", fixture.OriginalUID, "work"), "last"), content, 0o600); err != nil {
			t.Error(err)
		}
	}
	m := b.ask(step(v1alpha1.StepSeal))
	b.wantSource(m, v1alpha1.SourceSealed)
	b.wantDestination(m, v1alpha1.DestinationRestored)
	for _, name := range []string{"one", "two", "three", "last"} {
		want := name + string(content)
		if name == "last" {
			want = string(content)
		}
		if got, err := os.ReadFile(filepath.Join(b.volume("b", fixture.ReplacementUID, "work"), name)); err != nil || string(got) != want {
			t.Errorf("%s has %d bytes, error %v", name, len(got), err)
		}
	}
}

// reconcile lets an agent act again and again until the test ends.
func (b *bench) reconcile(a *agent) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	b.Cleanup(func() { cancel(); <-done })
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			_, _ = a.Reconcile(ctx, request)
			time.Sleep(time.Millisecond)
		}
	}()
}

// toSealing asks for the seal, and lets the source alone act on it.
func (b *bench) toSealing() *v1alpha1.PodMigration {
	b.Helper()
	m := b.get()
	m.Status.Checkpoint.Step = v1alpha1.StepSeal
	if err := b.client.Status().Update(b.Context(), m); err != nil {
		b.Fatal(err)
	}
	if _, err := b.source.Reconcile(b.Context(), request); err != nil {
		b.Fatal(err)
	}
	return b.get()
}

func TestADestinationThatIsRestartedWhileThePodIsFrozen(t *testing.T) {
	b := newBench(t)
	b.settle()
	b.ask(step(v1alpha1.StepCopy))
	b.node.onFreeze = func() {
		write(t, filepath.Join(b.volume("a", fixture.OriginalUID, "work"), "late"), "second")
		b.far = b.start("b")
		b.reconcile(b.far)
	}
	b.wantSource(b.toSealing(), v1alpha1.SourceSealed)
	b.wantFrozen(true)
	b.wantDestination(b.settle(), v1alpha1.DestinationRestored)
	b.wantState("b", fixture.ReplacementUID)
}

func TestAPodIsThawedWhenItsDestinationIsGone(t *testing.T) {
	b := newBench(t)
	b.settle()
	b.ask(step(v1alpha1.StepCopy))
	b.limit(2)
	b.node.onFreeze = func() { b.servers["b"]() }
	m := b.toSealing()
	b.wantSource(m, v1alpha1.SourceFailed)
	b.wantFrozen(false)
	if s := m.Status.Checkpoint.Source; s.Reason != v1alpha1.ReportFreezeTooLong || !strings.Contains(s.Message, "half of spec.checkpoint.maxFreezeSeconds") {
		t.Errorf("the source reports %q, %q", s.Reason, s.Message)
	}
}

// The volume of the destination is full: who reads the status learns of what.
func TestAFullDestinationIsReported(t *testing.T) {
	b := newBench(t)
	mountSmall(t, b.volume("b", fixture.ReplacementUID, "work"))
	write(t, filepath.Join(b.volume("a", fixture.OriginalUID, "work"), "large"), strings.Repeat("x", 2<<20))
	b.settle()
	m := b.ask(step(v1alpha1.StepCopy))
	b.wantSource(m, v1alpha1.SourceFailed)
	if s := m.Status.Checkpoint.Source; s.Reason != v1alpha1.ReportNoSpace || !strings.Contains(s.Message, "work") {
		t.Errorf("the source reports %q, %q", s.Reason, s.Message)
	}
}

// Both agents die while the pod is frozen, before a seal is reported: it runs again, and is
// sealed anew.
func TestTheNextAgentSealsAgain(t *testing.T) {
	b := newBench(t)
	b.settle()
	b.ask(step(v1alpha1.StepCopy))
	m := b.get()
	r := record{Namespace: "default", Name: "m", Migration: m.UID, Attempt: 1, Pod: fixture.OriginalUID, PodName: "train", FrozenAt: time.Now(), Until: time.Now().Add(time.Minute)}
	if err := b.source.records.put(r); err != nil {
		t.Fatal(err)
	}
	b.node.set(b.node.frozen, fixture.OriginalUID, true)
	b.restart()
	write(t, filepath.Join(b.volume("a", fixture.OriginalUID, "work"), "late"), "second")
	thawed := false
	b.node.onThaw = func() { thawed = true }
	m = b.ask(step(v1alpha1.StepSeal))
	b.wantSource(m, v1alpha1.SourceSealed)
	b.wantDestination(m, v1alpha1.DestinationRestored)
	b.wantState("b", fixture.ReplacementUID)
	if b.wantFrozen(true); !thawed {
		t.Error("it was not thawed in between")
	}
}

// The destination has sealed what an agent sent that died before it reported that. It takes
// nothing else in this attempt, and the pod has run since.
func TestASealThatNobodyReportedIsVoid(t *testing.T) {
	for name, isKnown := range map[string]bool{"the destination has reported it": true, "nor did the destination": false} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.settle()
			b.ask(step(v1alpha1.StepCopy))
			b.setRefuse(func() error { return os.ErrDeadlineExceeded })
			m := b.get()
			m.Status.Checkpoint.Step = v1alpha1.StepSeal
			if err := b.client.Status().Update(t.Context(), m); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			_, _ = b.source.Reconcile(ctx, request)
			b.setRefuse(nil)
			if isKnown {
				if _, err := b.far.Reconcile(t.Context(), request); err != nil {
					t.Fatal(err)
				}
				b.wantDestination(b.get(), v1alpha1.DestinationRestored)
			}
			b.source = b.start("a")
			b.node.onThaw = func() { write(t, filepath.Join(b.volume("a", fixture.OriginalUID, "work"), "since"), "third") }
			m = b.settle()
			b.wantSource(m, v1alpha1.SourceThawed)
			b.wantFrozen(false)
		})
	}
}

// mountSmall mounts a file system of 1 MiB.
func mountSmall(t *testing.T, at string) {
	t.Helper()
	skip.WithoutRoot(t, "it mounts a file system")
	if err := unix.Mount("small", at, "tmpfs", 0, "size=1m"); err != nil {
		skip.Because(t, "nothing can be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(at, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}
