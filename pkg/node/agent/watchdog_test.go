package agent

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// watch looks once at every pod that the source has frozen.
func (b *bench) watch() {
	b.Helper()
	all, err := b.source.records.list()
	if err != nil {
		b.Fatal(err)
	}
	for _, r := range all {
		if err := b.source.watch(b.Context(), r); err != nil {
			b.Log(err)
		}
	}
}

// away is an API server that does not answer.
type away struct{ client.Reader }

func (away) Get(context.Context, client.ObjectKey, client.Object, ...client.GetOption) error {
	return errors.New("the API server does not answer")
}

func release(s *v1alpha1.PodMigrationStatus) {
	s.Checkpoint.Step = v1alpha1.StepRelease
	s.Conditions = append(s.Conditions,
		metav1.Condition{Type: v1alpha1.ConditionSealed, Status: metav1.ConditionTrue},
		metav1.Condition{Type: v1alpha1.ConditionReleased, Status: metav1.ConditionTrue})
}

func end(phase v1alpha1.Phase) func(*v1alpha1.PodMigrationStatus) {
	return func(s *v1alpha1.PodMigrationStatus) { s.Phase = phase }
}

// disturbances are what can happen to a sealed pod.
var disturbances = map[string]struct {
	happens func(*node)
	told    string
}{
	"thawed by another client":             {func(n *node) { n.set(n.frozen, fixture.OriginalUID, false) }, "thawed"},
	"a container was started again":        {func(n *node) { n.containers = []string{"c2", "pause"} }, "a container"},
	"a container has ended":                {func(n *node) { n.containers = []string{"pause"} }, "a container"},
	"the node was started again":           {func(n *node) { n.boot = "second"; n.set(n.frozen, fixture.OriginalUID, false) }, "its node"},
	"the node was started, the pod wasn't": {func(n *node) { n.boot, n.containers = "second", nil }, "its node"},
}

func TestASealIsVoidWhenTheOriginalDidNotStayAsItWas(t *testing.T) {
	for name, test := range disturbances {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.sealed(false)
			b.watch()
			b.wantSource(b.get(), v1alpha1.SourceSealed)
			b.wantFrozen(true)
			test.happens(b.node)
			b.watch()
			m := b.get()
			b.wantSource(m, v1alpha1.SourceThawed)
			if s := m.Status.Checkpoint.Source; s.Reason != ReasonDisturbed || !strings.Contains(s.Message, test.told) {
				t.Errorf("reported %q, %q", s.Reason, s.Message)
			}
			b.wantFrozen(false)
			if b.node.killed[fixture.OriginalUID] {
				t.Error("the original was killed, and nothing was released")
			}
		})
	}
}

func TestAnOriginalThatRunsBesideItsReleasedReplacementIsKilled(t *testing.T) {
	for name, test := range disturbances {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.sealed(false)
			b.ask(release)
			b.watch()
			if b.node.killed[fixture.OriginalUID] {
				t.Fatal("it was killed while it was frozen")
			}
			test.happens(b.node)
			b.watch()
			if !b.node.killed[fixture.OriginalUID] {
				t.Error("it was not killed")
			}
			b.wantFrozen(true)
			b.wantSource(b.get(), v1alpha1.SourceSealed)
			// Once is enough, until something starts in it again.
			b.node.set(b.node.killed, fixture.OriginalUID, false)
			b.watch()
			if b.node.killed[fixture.OriginalUID] {
				t.Error("it was killed again")
			}
			b.node.containers = []string{"c3", "pause"}
			b.watch()
			if !b.node.killed[fixture.OriginalUID] {
				t.Error("what the kubelet started next was not killed")
			}
			b.wantFrozen(true)
		})
	}
}

// A release that comes first wins: it is not the seal that is void then, but the original.
func TestADisturbanceAndAReleaseDoNotBothWin(t *testing.T) {
	b := newBench(t)
	b.sealed(false)
	b.node.set(b.node.frozen, fixture.OriginalUID, false)
	first := true
	b.setRefuse(func() error {
		if !first {
			return nil
		}
		first = false
		m := b.get()
		release(&m.Status)
		return b.client.Status().Update(context.Background(), m)
	})
	b.watch()
	b.wantFrozen(true)
	b.watch()
	b.wantFrozen(true)
	if b.wantSource(b.get(), v1alpha1.SourceSealed); !b.node.killed[fixture.OriginalUID] {
		t.Error("the original may run beside its released replacement")
	}
}

// After a restart of the node an original starts again on its old volumes.
func TestAnAgentFreezesAgainBeforeItAsks(t *testing.T) {
	b := newBench(t)
	b.sealed(false)
	b.restart()
	b.node.boot = "second"
	b.node.set(b.node.frozen, fixture.OriginalUID, false)
	b.source.live = away{}
	b.watch()
	b.wantFrozen(true)
	b.source.live = b.client
	b.watch()
	b.wantSource(b.get(), v1alpha1.SourceThawed)
	b.wantFrozen(false)
}

// Of a seal that was not reported nobody can have heard.
func TestAPodThatADeadAgentWasSealingIsThawedWithoutAsking(t *testing.T) {
	b := newBench(t)
	r := record{Namespace: "default", Name: "m", Migration: b.get().UID, Attempt: 1, Pod: fixture.OriginalUID, PodName: "train", FrozenAt: time.Now()}
	if err := b.source.records.put(r); err != nil {
		t.Fatal(err)
	}
	b.node.set(b.node.frozen, fixture.OriginalUID, true)
	b.source.live = away{}
	b.watch()
	b.wantFrozen(false)
}

func TestARecordOfAnEarlierVersionCountsAsSealed(t *testing.T) {
	b := newBench(t)
	m := b.sealed(false)
	content := `{"namespace":"default","name":"m","migration":"` + string(m.UID) + `","attempt":1,"pod":"` + fixture.OriginalUID + `","podName":"train"}`
	if err := os.WriteFile(b.source.records.path(m.UID), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	b.restart()
	b.watch()
	b.wantFrozen(true)
	b.wantSource(b.get(), v1alpha1.SourceSealed)
}

// stopClock gives the source a clock that only the test moves.
func (b *bench) stopClock() *clocktesting.FakePassiveClock {
	c := clocktesting.NewFakePassiveClock(time.Now())
	b.source.clock = c
	return c
}

func (b *bench) limit(seconds int32) {
	b.Helper()
	m := b.get()
	m.Spec.Checkpoint.MaxFreezeSeconds = seconds
	if err := b.client.Update(b.Context(), m); err != nil {
		b.Fatal(err)
	}
}

// What hangs in the storage of a claim cannot be ended. The pod does not use that storage.
func TestACopyThatHangsDoesNotKeepThePodFrozen(t *testing.T) {
	for name, test := range map[string]struct {
		step   v1alpha1.CheckpointStep
		phase  v1alpha1.SourcePhase
		reason string
		// atEnd: everything is written when it hangs.
		atEnd bool
	}{
		"until its time is up": {v1alpha1.StepSeal, v1alpha1.SourceFailed, v1alpha1.ReportFreezeTooLong, false},
		"nor at its end":       {v1alpha1.StepSeal, v1alpha1.SourceFailed, v1alpha1.ReportFreezeTooLong, true},
		"nor when cancelled":   {v1alpha1.StepAbort, v1alpha1.SourceThawed, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.settle()
			b.ask(step(v1alpha1.StepCopy))
			b.limit(1)
			if test.step == v1alpha1.StepAbort {
				b.limit(3600)
			}
			now := b.stopClock()
			hangs, frozen := make(chan struct{}), make(chan struct{})
			hang := sync.OnceFunc(func() { close(frozen); <-hangs })
			if b.node.onFreeze = hang; test.atEnd {
				b.node.onFreeze, b.node.onState = nil, hang
			}
			m := b.get()
			m.Status.Checkpoint.Step = v1alpha1.StepSeal
			if err := b.client.Status().Update(t.Context(), m); err != nil {
				t.Fatal(err)
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				_ = b.source.serveSource(context.Background(), m)
			}()
			<-frozen
			b.watch()
			if !b.node.isFrozen(fixture.OriginalUID) {
				t.Error("it was thawed while the copy may still end in time")
			}
			if test.step == v1alpha1.StepAbort {
				m := b.get()
				m.Status.Checkpoint.Step = v1alpha1.StepAbort
				if err := b.client.Status().Update(t.Context(), m); err != nil {
					t.Fatal(err)
				}
			}
			<-b.source.sealOf(m.UID).done
			b.watch() // sees that the work is to end
			now.SetTime(now.Now().Add(hangGrace))
			b.watch()
			if b.node.isFrozen(fixture.OriginalUID) {
				t.Error("it stays frozen")
			}
			if test.step == v1alpha1.StepAbort {
				<-done // the work is left to itself
				b.settle()
			}
			s := b.get().Status.Checkpoint.Source
			if s.Phase != test.phase || s.Reason != test.reason {
				t.Errorf("the source reports %+v", s)
			}
			close(hangs)
			<-done
			if s := b.get().Status.Checkpoint.Source; s.Phase != test.phase {
				t.Errorf("after all the source reports %+v", s)
			}
			b.wantFrozen(false)
		})
	}
}

func TestASealedPodIsThawedWhenNobodyDecides(t *testing.T) {
	accepted := func(s *v1alpha1.PodMigrationStatus) {
		s.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionSealed, Status: metav1.ConditionTrue}}
	}
	committed := func(s *v1alpha1.PodMigrationStatus) {
		accepted(s)
		s.Conditions = append(s.Conditions, metav1.Condition{Type: v1alpha1.ConditionCommitted, Status: metav1.ConditionTrue})
	}
	for name, test := range map[string]struct {
		decided func(*v1alpha1.PodMigrationStatus)
		late    time.Duration
		frozen  bool
	}{
		"in time":                        {func(*v1alpha1.PodMigrationStatus) {}, -time.Second, true},
		"too late":                       {func(*v1alpha1.PodMigrationStatus) {}, time.Second, false},
		"the seal was accepted":          {accepted, -time.Second, true},
		"accepted, and nothing followed": {accepted, time.Second, false},
		"it is about to be evicted":      {committed, time.Hour, true},
		"it was released":                {release, time.Hour, true},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			now := b.stopClock()
			m := b.sealed(false)
			b.ask(test.decided)
			now.SetTime(now.Now().Add(m.Spec.Checkpoint.MaxFreeze() + test.late))
			b.watch()
			b.wantFrozen(test.frozen)
			want := v1alpha1.SourceSealed
			if !test.frozen {
				want = v1alpha1.SourceThawed
			}
			b.wantSource(b.get(), want)
			overdue := 0.0
			if name == "it is about to be evicted" {
				overdue = 1
			}
			if got := b.source.overdue(); got != overdue {
				t.Errorf("%v pods overdue, want %v", got, overdue)
			}
		})
	}
}

// The report of a seal may have arrived although it seems lost: only an answer of the API
// server lets the pod run, and then the seal does not arrive any more.
func TestASealThatCannotBeReportedIsVoidInTheEnd(t *testing.T) {
	b := newBench(t)
	b.settle()
	b.ask(step(v1alpha1.StepCopy))
	now := b.stopClock()
	refusing, refused := true, make(chan struct{}, 1000)
	b.setRefuse(func() error {
		b.node.mu.Lock()
		defer b.node.mu.Unlock()
		if refusing {
			refused <- struct{}{}
			return errors.New("the API server does not answer")
		}
		return nil
	})
	m := b.get()
	m.Status.Checkpoint.Step = v1alpha1.StepSeal
	if err := b.client.Status().Update(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	failed := make(chan error, 1)
	go func() {
		err := b.source.serveSource(context.Background(), m)
		failed <- err
	}()
	// The destination reports too, and is refused likewise.
	for sealed := false; !sealed; <-refused {
		r, err := b.source.records.get(m.UID)
		sealed = err == nil && r != nil && r.Sealed
	}
	b.watch()
	now.SetTime(now.Now().Add(2 * v1alpha1.DefaultMaxFreeze))
	b.watch()
	b.wantFrozen(true)
	select {
	case err := <-failed:
		if !errors.Is(err, errNotWanted) {
			t.Errorf("the report of the seal ended with %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the seal is reported again and again")
	}
	b.node.mu.Lock()
	refusing = false
	b.node.mu.Unlock()
	b.watch()
	b.wantSource(b.get(), v1alpha1.SourceThawed)
	b.wantFrozen(false)
}

// A replacement that was released may run, whatever became of its migration.
func TestAfterAReleaseOnlyARollbackThaws(t *testing.T) {
	rolledBack := func(s *v1alpha1.PodMigrationStatus) {
		s.Checkpoint.Step = v1alpha1.StepAbort
		s.Conditions = append(s.Conditions, metav1.Condition{Type: v1alpha1.ConditionRolledBack, Status: metav1.ConditionFalse})
	}
	for name, test := range map[string]struct {
		become         []func(*v1alpha1.PodMigrationStatus)
		frozen, killed bool
		overdue        float64
	}{
		"nothing else":           {nil, true, false, 0},
		"failed":                 {[]func(*v1alpha1.PodMigrationStatus){end(v1alpha1.PhaseFailed)}, true, false, 1},
		"cancelled":              {[]func(*v1alpha1.PodMigrationStatus){end(v1alpha1.PhaseCancelled)}, true, false, 1},
		"succeeded":              {[]func(*v1alpha1.PodMigrationStatus){end(v1alpha1.PhaseSucceeded)}, false, true, 0},
		"being rolled back":      {[]func(*v1alpha1.PodMigrationStatus){rolledBack}, false, false, 0},
		"rolled back and failed": {[]func(*v1alpha1.PodMigrationStatus){rolledBack, end(v1alpha1.PhaseFailed)}, false, false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.sealed(false)
			b.ask(release)
			for _, become := range test.become {
				b.ask(become)
			}
			b.watch()
			b.wantFrozen(test.frozen)
			if b.node.killed[fixture.OriginalUID] != test.killed {
				t.Errorf("killed: %t", b.node.killed[fixture.OriginalUID])
			}
			if got := b.source.overdue(); got != test.overdue {
				t.Errorf("%v pods overdue, want %v", got, test.overdue)
			}
		})
	}
}

// Who deletes the migration does not decide between two copies; who deletes the pod does.
func TestTheOriginalOfADeletedMigrationThatWasReleasedEndsFrozen(t *testing.T) {
	b := newBench(t)
	b.sealed(false)
	b.ask(release)
	b.watch()
	m := b.get()
	if err := b.client.Delete(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	isFrozen := func(want bool) {
		t.Helper()
		all, err := b.source.records.list()
		if err != nil || b.node.isFrozen(fixture.OriginalUID) != want || (len(all) == 1) != want {
			t.Errorf("frozen: %t, records %v, error %v, want %t", b.node.isFrozen(fixture.OriginalUID), all, err, want)
		}
	}
	b.watch()
	isFrozen(true)
	if b.source.overdue() != 1 {
		t.Error("nobody hears of it")
	}
	if err := b.client.Delete(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "train"}}); err != nil {
		t.Fatal(err)
	}
	b.watch()
	isFrozen(false)
	if !b.node.killed[fixture.OriginalUID] {
		t.Error("it ran beside its replacement")
	}
}

func (b *bench) probe(p *corev1.Probe) {
	b.Helper()
	pod := &corev1.Pod{}
	if err := b.client.Get(b.Context(), types.NamespacedName{Namespace: "default", Name: "train"}, pod); err != nil {
		b.Fatal(err)
	}
	pod.Spec.Containers = []corev1.Container{{Name: "main", LivenessProbe: p}}
	if err := b.client.Update(b.Context(), pod); err != nil {
		b.Fatal(err)
	}
}

func TestAPodIsNotFrozenForLongerThanItsProbesAllow(t *testing.T) {
	b := newBench(t)
	b.probe(&corev1.Probe{PeriodSeconds: 5, TimeoutSeconds: 1, FailureThreshold: 3})
	b.settle()
	b.ask(step(v1alpha1.StepCopy))
	began := time.Now()
	b.wantSource(b.ask(step(v1alpha1.StepSeal)), v1alpha1.SourceSealed)
	if left := b.node.freezeBy.Sub(began); left < 4*time.Second || left > 6*time.Second {
		t.Errorf("the freeze ends %s after it began, want half of 10 s", left)
	}
	r, err := b.source.records.get(b.get().UID)
	if err != nil || r.Until.Sub(r.FrozenAt) != 10*time.Second {
		t.Errorf("it is frozen from %s until %s, error %v, want 10 s", r.FrozenAt, r.Until, err)
	}
}

func TestAPodIsNotFrozenWhereTheFirstFailureEndsIt(t *testing.T) {
	b := newBench(t)
	b.probe(&corev1.Probe{FailureThreshold: 1})
	b.settle()
	b.ask(step(v1alpha1.StepCopy))
	b.node.onFreeze = func() { t.Error("the pod was frozen") }
	m := b.ask(step(v1alpha1.StepSeal))
	b.wantSource(m, v1alpha1.SourceFailed)
	if s := m.Status.Checkpoint.Source; s.Reason != v1alpha1.ReportFreezeTooLong || !strings.Contains(s.Message, "container main") || !strings.Contains(s.Message, "failureThreshold") {
		t.Errorf("reported %q, %q", s.Reason, s.Message)
	}
}

func TestMessagesAreBounded(t *testing.T) {
	b := newBench(t)
	long := errors.New(strings.Repeat("/directory/of/é", 1000))
	if err := b.source.sourceFailed(t.Context(), b.get(), long); err != nil {
		t.Fatal(err)
	}
	if err := b.far.destinationFailed(t.Context(), b.get(), long); err != nil {
		t.Fatal(err)
	}
	c := b.get().Status.Checkpoint
	for _, got := range []string{c.Source.Message, c.Destination.Message} {
		if len(got) > maxMessage || !strings.HasPrefix(got, "/directory/of/é") || strings.Contains(got, "\ufffd") {
			t.Errorf("a message of %d bytes: %.40s", len(got), got)
		}
	}
}

// Nothing that the kubelet starts in the pod after the dump may run.
func TestThePodIsFrozenAsAWholeOnceItIsDumped(t *testing.T) {
	b := newProcessBench(t)
	m := b.toSeal("")
	b.wantSource(m, v1alpha1.SourceSealed)
	if want := []string{"freeze containers", "dump", "dump", "freeze pod"}; !slices.Equal(b.node.steps, want) {
		t.Errorf("the agent did %v, want %v", b.node.steps, want)
	}
}

func TestProcessesThatDiedAreNotRestored(t *testing.T) {
	b := newProcessBench(t)
	b.node.ended = map[string]bool{"restored-side": true}
	m := b.toSeal("")
	d := m.Status.Checkpoint.Destination
	if d == nil || d.Phase != v1alpha1.DestinationFailed || d.Reason != v1alpha1.ReportProcessNotMovable || !strings.Contains(d.Message, "restored-side") {
		t.Errorf("destination reports %+v", d)
	}
}

// Their container would start afresh, and be taken for one that was restored.
func TestProcessesThatDiedBeforeTheReleaseDoNotContinue(t *testing.T) {
	b := newProcessBench(t)
	b.toSeal("")
	b.node.ended = map[string]bool{"restored-side": true}
	m := b.ask(release)
	d := m.Status.Checkpoint.Destination
	if d == nil || d.Phase != v1alpha1.DestinationFailed || d.Reason != v1alpha1.ReportProcessNotMovable || !strings.Contains(d.Message, "restored-side") {
		t.Errorf("destination reports %+v", d)
	}
	if len(b.node.continued) != 0 {
		t.Errorf("%v continued without the others", b.node.continued)
	}
	if entry, err := b.far.restores.Entry(fixture.ReplacementUID, "side"); err != nil || !entry.Exists() {
		t.Errorf("the container may start afresh (error %v)", err)
	}
}

// An agent that dies while it lets them continue finds that some have ended by then.
func TestProcessesThatMayHaveContinuedAreNotMissed(t *testing.T) {
	b := newProcessBench(t)
	b.toSeal("")
	b.node.ended = map[string]bool{"restored-side": true}
	if err := os.WriteFile(filepath.Join(b.far.restores.Pod(fixture.ReplacementUID), continuedFile), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if d := b.ask(release).Status.Checkpoint.Destination; d.Phase != v1alpha1.DestinationReleased {
		t.Errorf("destination reports %+v", d)
	}
}

func (n *node) isFrozen(pod types.UID) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.frozen[pod]
}

// Of the work on a seal and the watchdog one decides, whoever comes first.
func TestASealIsReportedOrAbandoned(t *testing.T) {
	b := newBench(t)
	r := record{Namespace: "default", Name: "m", Migration: b.get().UID, Attempt: 1, Pod: fixture.OriginalUID, PodName: "train", FrozenAt: time.Now()}
	b.node.set(b.node.frozen, fixture.OriginalUID, true)
	isSealed := func() bool {
		t.Helper()
		now, err := b.source.records.get(r.Migration)
		if err != nil || now == nil {
			t.Fatalf("record %+v, error %v", now, err)
		}
		return now.Sealed
	}
	for _, abandoned := range []bool{true, false} {
		s, err := b.source.freezeFrom(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		if abandoned && !s.abandon() {
			t.Error("a seal that nobody has heard of cannot be abandoned")
		}
		if err := b.source.settle(r, s); (err != nil) != abandoned || isSealed() == abandoned {
			t.Errorf("abandoned: %t, error %v, recorded as sealed: %t", abandoned, err, isSealed())
		}
		if s.abandon() != abandoned || s.mayReport() == abandoned {
			t.Errorf("abandoned: %t, and then the other side wins", abandoned)
		}
	}
}

// The watchdog and the reconciliation act on the same pod. What one has decided is void
// when the other has thawed the pod, or frozen it anew, in between.
func TestADecisionAboutAnEarlierFreezeIsVoid(t *testing.T) {
	for name, isFrozen := range map[string]bool{"thawed": false, "frozen anew": true} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			earlier := record{Namespace: "default", Name: "m", Migration: b.get().UID, Attempt: 1, Pod: fixture.OriginalUID, PodName: "train", FrozenAt: time.Now(), Sealed: true}
			later := earlier
			later.FrozenAt = earlier.FrozenAt.Add(time.Second)
			if isFrozen {
				if err := b.source.records.put(later); err != nil {
					t.Fatal(err)
				}
			}
			b.node.set(b.node.frozen, fixture.OriginalUID, isFrozen)
			b.node.onFreeze = func() { t.Error("it was frozen") }
			if isFrozen {
				if err := b.source.thaw(earlier); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := b.source.hold(t.Context(), earlier); err != nil {
				t.Fatal(err)
			}
			if err := b.source.killAndHold(t.Context(), earlier); err != nil {
				t.Fatal(err)
			}
			b.wantFrozen(isFrozen)
			if b.node.killed[fixture.OriginalUID] {
				t.Error("it was killed")
			}
			if got, err := b.source.records.get(earlier.Migration); err != nil || got != nil && (got.Disturbance != "" || got.Boot != "") {
				t.Errorf("record %+v, error %v", got, err)
			}
		})
	}
}

// A report that a dead agent has sent may still arrive. It must find another version of
// the migration, and not a pod that runs.
func TestASealOfADeadAgentCannotArriveOnceThePodRuns(t *testing.T) {
	b := newBench(t)
	b.settle()
	b.ask(step(v1alpha1.StepCopy))
	m := b.get()
	r := record{Namespace: "default", Name: "m", Migration: m.UID, Attempt: 1, Pod: fixture.OriginalUID, PodName: "train", FrozenAt: time.Now(), Until: time.Now().Add(time.Minute), Sealed: true, Boot: "first", Containers: b.node.containers}
	if err := b.source.records.put(r); err != nil {
		t.Fatal(err)
	}
	b.node.set(b.node.frozen, fixture.OriginalUID, true)
	m.Status.Checkpoint.Step = v1alpha1.StepSeal
	if err := b.client.Status().Update(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	sent := m.DeepCopy()
	sent.Status.Checkpoint.Source.Phase = v1alpha1.SourceSealed
	b.node.onThaw = func() {
		if err := b.client.Status().Update(context.Background(), sent); err == nil {
			t.Error("the seal arrived, and the pod runs")
		}
		b.node.onThaw = nil
	}
	b.wantSource(b.settle(), v1alpha1.SourceSealed)
	if b.node.onThaw != nil {
		t.Error("the pod was not thawed to be copied again")
	}
}
