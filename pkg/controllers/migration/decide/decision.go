package decide

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// ActionType names what the executor can do.
type ActionType string

// Actions, in the order in which a migration that goes well needs them, then
// those of a rollback.
const (
	NoAction                  ActionType = ""
	AddFinalizer              ActionType = "AddFinalizer"
	AskBudget                 ActionType = "AskBudget"
	MeasureBefore             ActionType = "MeasureBefore"
	CreateClaim               ActionType = "CreateClaim"
	CreateCarrier             ActionType = "CreateCarrier"
	CreatePlaceholder         ActionType = "CreatePlaceholder"
	CreateReplacement         ActionType = "CreateReplacement"
	ProbeWebhook              ActionType = "ProbeWebhook"
	ReleaseOriginal           ActionType = "ReleaseOriginal"
	OrphanClaim               ActionType = "OrphanClaim"
	KeepPreviousClaim         ActionType = "KeepPreviousClaim"
	DeleteCarrier             ActionType = "DeleteCarrier"
	CheckEviction             ActionType = "CheckEviction"
	MarkOriginal              ActionType = "MarkOriginal"
	OfferReplacement          ActionType = "OfferReplacement"
	Evict                     ActionType = "Evict"
	ProbeWebhookAndRemoveHold ActionType = "ProbeWebhookAndRemoveHold"
	DeletePlainPod            ActionType = "DeletePlainPod"
	NominateReplacement       ActionType = "NominateReplacement"
	DeletePlaceholder         ActionType = "DeletePlaceholder"
	RemoveSchedulingGate      ActionType = "RemoveSchedulingGate"
	AdoptClaim                ActionType = "AdoptClaim"
	MeasureAfter              ActionType = "MeasureAfter"
	DiscardPod                ActionType = "DiscardPod"
	ReadoptOriginal           ActionType = "ReadoptOriginal"
	SetRollbackBarrier        ActionType = "SetRollbackBarrier"
	DeleteReplacement         ActionType = "DeleteReplacement"
	DeleteClaim               ActionType = "DeleteClaim"
	RemoveFinalizer           ActionType = "RemoveFinalizer"
	DeleteMigration           ActionType = "DeleteMigration"
)

// Action is one thing to do, with the object that it is done to or that it creates.
type Action struct {
	Type ActionType
	Pod  *corev1.Pod
	// Becomes is what the pod is changed into.
	Becomes *corev1.Pod
	// Evicts is the pod that goes in consequence: the Eviction API is asked first.
	Evicts *corev1.Pod
	// Probe is created in a dry run first: the admission webhook must turn it into
	// a replacement.
	Probe *corev1.Pod
	Claim *corev1.PersistentVolumeClaim
}

// Decision is what to do next, and what to write down afterwards.
type Decision struct {
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

func (b *builder) say(format string, args ...any) {
	b.newStatus().Message = fmt.Sprintf(format, args...)
}

func (b *builder) condition(kind string, status metav1.ConditionStatus, reason, message string) {
	meta.SetStatusCondition(&b.newStatus().Conditions, metav1.Condition{
		Type: kind, Status: status, Reason: reason, Message: cut(message, maxConditionMessage),
		ObservedGeneration: b.Migration.Generation, LastTransitionTime: metav1.NewTime(b.Now),
	})
}

func (b *builder) event(warning bool, pod *corev1.Pod, reason, message string) {
	b.decision.Events = append(b.decision.Events, Event{Warning: warning, Reason: reason, Message: cut(message, maxEventNote), Pod: pod})
}

func (b *builder) microNow() *metav1.MicroTime { t := metav1.NewMicroTime(b.Now); return &t }

// finish writes the final phase.
func (b *builder) finish(phase v1alpha1.Phase, message string) Decision {
	b.newStatus().Phase = phase
	b.newStatus().Times.Finished = b.microNow()
	b.say("%s", message)
	return b.decision
}

// Limits of the API, in bytes: metav1.Condition.message and events.k8s.io note.
const (
	maxConditionMessage = 32768
	maxEventNote        = 1024
)

func cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	return s[:limit-3] + "..."
}
