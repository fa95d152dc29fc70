package decide

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods"
)

// Decision is what to do next, and what to write down afterwards.
type Decision struct {
	// Step is the step that is taken; "" where there is nothing left to do.
	Step v1alpha1.Step
	// Action is nil where the step only waits, or writes something down.
	Action Action
	Status v1alpha1.PodMigrationStatus
	Events []Event
	// Wait is when to look again if nothing happens before; zero looks again
	// as soon as something changes.
	Wait time.Duration
}

// Event is a sentence on the migration and on a pod of it.
type Event struct {
	Warning bool
	Reason  string
	Message string
	// Pod, when set, gets the event too.
	Pod *corev1.Pod
}

// How long to wait before looking again.
const (
	// PollInterval is for a state that no watch reports.
	PollInterval = 5 * time.Second
	// shortPoll is for what ends within moments, and the shortest wait for anything
	// that a watch does not report.
	shortPoll = time.Second
	// longPoll is for what a watch reports, should the watch miss it.
	longPoll = 2 * PollInterval
)

// builder builds a decision from a state. The state is what was observed, and stays
// as it is: b.Migration.Status is the status as it was read. The status that will be
// written is b.newStatus().
type builder struct {
	*State
	decision Decision
}

func newBuilder(s *State) *builder {
	b := &builder{State: s}
	s.Migration.Status.DeepCopyInto(&b.decision.Status)
	b.decision.Status.ObservedGeneration = s.Migration.Generation
	return b
}

func (b *builder) newStatus() *v1alpha1.PodMigrationStatus { return &b.decision.Status }

func (b *builder) do(a Action) Decision {
	b.decision.Action = a
	return b.decision
}

// wait looks again after a while, and says meanwhile what is waited for.
func (b *builder) wait(d time.Duration, format string, args ...any) Decision {
	b.say(format, args...)
	b.decision.Wait = d
	return b.decision
}

// untilDeadline is how long to wait for a watch before looking again. Beyond
// the deadline only a migration without a way back waits, and it has time.
func (b *builder) untilDeadline() time.Duration {
	left := b.deadline().Sub(b.Now)
	if left <= 0 {
		return longPoll
	}
	return max(shortPoll, min(left, longPoll))
}

func (b *builder) say(format string, args ...any) {
	b.newStatus().Message = fmt.Sprintf(format, args...)
}

func (b *builder) condition(kind string, status metav1.ConditionStatus, reason, message string) {
	meta.SetStatusCondition(&b.newStatus().Conditions, metav1.Condition{
		Type: kind, Status: status, Reason: reason, Message: pods.Truncate(message, maxConditionMessage),
		ObservedGeneration: b.Migration.Generation, LastTransitionTime: metav1.NewTime(b.Now),
	})
}

func (b *builder) event(warning bool, pod *corev1.Pod, reason, message string) {
	b.decision.Events = append(b.decision.Events, Event{Warning: warning, Reason: reason, Message: pods.Truncate(message, maxEventNote), Pod: pod})
}

func (b *builder) microNow() *metav1.MicroTime { t := metav1.NewMicroTime(b.Now); return &t }

// finish writes the final phase.
func (b *builder) finish(phase v1alpha1.Phase, message string) Decision {
	b.newStatus().Phase, b.newStatus().Step = phase, ""
	b.newStatus().Times.Finished = b.microNow()
	if c := b.newStatus().Checkpoint; c != nil && !meta.IsStatusConditionTrue(b.newStatus().Conditions, v1alpha1.ConditionCheckpointKept) {
		c.Manifest = "" // nothing is recovered from it
	}
	b.say("%s", message)
	return b.decision
}

// Limits of the API, in bytes: metav1.Condition.message and events.k8s.io note.
const (
	maxConditionMessage = 32768
	maxEventNote        = 1024
)
