package decide

import (
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// step is one thing that has to be so before a migration goes further.
type step struct {
	// name is in the status, in traces, and where tests let a process crash.
	name v1alpha1.Step
	// applies reports whether the migration has this step; nil: every one has.
	applies func(*State) bool
	// done reports whether what is observed says that it is so; nil: never.
	done func(*State) bool
	// record writes down what is observed, once it is so.
	record func(*builder)
	// action decides what makes it so, or what is waited for.
	action func(*builder) Decision
	// settle reads the answer to the action; nil: what is gone needs nothing more.
	settle func(*builder, Result) (Decision, error)
}

// Steps, in the order in which a migration needs them. Those of one phase follow each
// other in the tables of that phase.
const (
	AddFinalizer v1alpha1.Step = "AddFinalizer"

	CheckRecovery  v1alpha1.Step = "CheckRecovery"
	AcceptRecovery v1alpha1.Step = "AcceptRecovery"
	TakeClaim      v1alpha1.Step = "TakeClaim"

	CheckRequest v1alpha1.Step = "CheckRequest"
	AwaitOwner   v1alpha1.Step = "AwaitOwner"
	AskBudget    v1alpha1.Step = "AskBudget"

	RemoveLeftovers   v1alpha1.Step = "RemoveLeftovers"
	JudgeContainers   v1alpha1.Step = "JudgeContainers"
	CheckProcesses    v1alpha1.Step = "CheckProcesses"
	MeasureBefore     v1alpha1.Step = "MeasureBefore"
	MeasureCheckpoint v1alpha1.Step = "MeasureCheckpoint"
	CreateClaim       v1alpha1.Step = "CreateClaim"
	FinishPreparing   v1alpha1.Step = "FinishPreparing"

	CreatePlaceholder   v1alpha1.Step = "CreatePlaceholder"
	PlacePlaceholder    v1alpha1.Step = "PlacePlaceholder"
	CheckOwner          v1alpha1.Step = "CheckOwner"
	AnnounceReplacement v1alpha1.Step = "AnnounceReplacement"
	ProbeWebhook        v1alpha1.Step = "ProbeWebhook"
	ReleaseOriginal     v1alpha1.Step = "ReleaseOriginal"
	AwaitOwnersPod      v1alpha1.Step = "AwaitOwnersPod"
	CreateReplacement   v1alpha1.Step = "CreateReplacement"
	RecordReplacement   v1alpha1.Step = "RecordReplacement"
	PlaceReplacement    v1alpha1.Step = "PlaceReplacement"
	CopyCheckpoint      v1alpha1.Step = "CopyCheckpoint"
	CompareImages       v1alpha1.Step = "CompareImages"
	StartReplacement    v1alpha1.Step = "StartReplacement"
	BeginHandover       v1alpha1.Step = "BeginHandover"

	ProtectClaim       v1alpha1.Step = "ProtectClaim"
	CheckEviction      v1alpha1.Step = "CheckEviction"
	UntrackReplacement v1alpha1.Step = "UntrackReplacement"
	TrackReplacement   v1alpha1.Step = "TrackReplacement"
	SealCheckpoint     v1alpha1.Step = "SealCheckpoint"
	RestoreCheckpoint  v1alpha1.Step = "RestoreCheckpoint"
	AwaitReady         v1alpha1.Step = "AwaitReady"
	KeepPreviousClaim  v1alpha1.Step = "KeepPreviousClaim"
	OrphanClaim        v1alpha1.Step = "OrphanClaim"
	HoldOriginal       v1alpha1.Step = "HoldOriginal"
	MarkOriginal       v1alpha1.Step = "MarkOriginal"
	Commit             v1alpha1.Step = "Commit"
	OfferReplacement   v1alpha1.Step = "OfferReplacement"
	AwaitAdoption      v1alpha1.Step = "AwaitAdoption"
	Evict              v1alpha1.Step = "Evict"
	AwaitOriginalGone  v1alpha1.Step = "AwaitOriginalGone"
	RemoveHold         v1alpha1.Step = "RemoveHold"
	HandOver           v1alpha1.Step = "HandOver"

	AwaitRecreated       v1alpha1.Step = "AwaitRecreated"
	NominateReplacement  v1alpha1.Step = "NominateReplacement"
	DeletePlaceholder    v1alpha1.Step = "DeletePlaceholder"
	RemoveSchedulingGate v1alpha1.Step = "RemoveSchedulingGate"
	AwaitTakeover        v1alpha1.Step = "AwaitTakeover"
	OfferLate            v1alpha1.Step = "OfferLate"
	AdoptClaim           v1alpha1.Step = "AdoptClaim"
	MeasureAfter         v1alpha1.Step = "MeasureAfter"
	UnmarkReplacement    v1alpha1.Step = "UnmarkReplacement"
	Succeed              v1alpha1.Step = "Succeed"

	WithdrawEviction     v1alpha1.Step = "WithdrawEviction"
	AwaitReplacementGone v1alpha1.Step = "AwaitReplacementGone"
	ReturnToOriginal     v1alpha1.Step = "ReturnToOriginal"

	SetRollbackBarrier v1alpha1.Step = "SetRollbackBarrier"
	DiscardRival       v1alpha1.Step = "DiscardRival"
	ReturnOriginal     v1alpha1.Step = "ReturnOriginal"
	ReadoptOriginal    v1alpha1.Step = "ReadoptOriginal"
	OrphanOriginal     v1alpha1.Step = "OrphanOriginal"
	EndOriginal        v1alpha1.Step = "EndOriginal"
	DiscardReplacement v1alpha1.Step = "DiscardReplacement"
	DeleteReplacement  v1alpha1.Step = "DeleteReplacement"
	AwaitThaw          v1alpha1.Step = "AwaitThaw"
	KeepClaim          v1alpha1.Step = "KeepClaim"
	DeleteClaim        v1alpha1.Step = "DeleteClaim"
	FinishRollback     v1alpha1.Step = "FinishRollback"

	UnmarkOriginal   v1alpha1.Step = "UnmarkOriginal"
	FinishFailed     v1alpha1.Step = "FinishFailed"
	RemoveFinalizer  v1alpha1.Step = "RemoveFinalizer"
	DeleteStray      v1alpha1.Step = "DeleteStray"
	DeleteStrayClaim v1alpha1.Step = "DeleteStrayClaim"
	CheckKeptClaim   v1alpha1.Step = "CheckKeptClaim"
	DeleteMigration  v1alpha1.Step = "DeleteMigration"
)

// Next decides the next step of a migration. It is pure: the same state gives
// the same decision.
func Next(s State) Decision {
	b := newBuilder(&s)
	for _, guard := range guards {
		if d, decided := guard(b); decided {
			return d
		}
	}
	return walk(b, table(b.State))
}

// Settle completes a decision with the result of its action. The error is one
// to try again later; what it means for good is in the decision. Like Next it
// changes nothing that it is given.
func Settle(s State, d Decision, r Result) (Decision, error) {
	d.Status, d.Events = *d.Status.DeepCopy(), slices.Clone(d.Events)
	b := &builder{State: &s, decision: d}
	if settle := settleOf[d.Step]; settle != nil {
		return settle(b, r)
	}
	if apierrors.IsNotFound(r.Err) {
		return b.decision, nil
	}
	return b.decision, r.Err
}

// table is the steps of the phase of a migration.
func table(s *State) []step {
	if s.recovers() {
		if s.isAccepted() {
			return recovering
		}
		return requestingRecovery
	}
	switch order := s.order(); s.Migration.Status.Phase {
	case v1alpha1.PhasePreparing:
		return preparing
	case v1alpha1.PhasePlacing:
		return placing[order]
	case v1alpha1.PhaseHandingOver:
		return handingOver[order]
	}
	return pending
}

// Tables by the order of the handover.
var (
	placing     = map[v1alpha1.HandoverOrder][]step{v1alpha1.OrderStartFirst: placingStartFirst, v1alpha1.OrderStopFirst: placingStopFirst}
	handingOver = map[v1alpha1.HandoverOrder][]step{v1alpha1.OrderStartFirst: handOverStartFirst, v1alpha1.OrderStopFirst: handOverStopFirst}
)

// walk decides the first step that is not done.
func walk(b *builder, steps []step) Decision {
	for i := range steps {
		s := &steps[i]
		if s.applies != nil && !s.applies(b.State) {
			continue
		}
		if s.done != nil && s.done(b.State) {
			if s.record != nil {
				s.record(b)
			}
			continue
		}
		b.decision.Step = s.name
		if !b.Migration.Status.Phase.IsFinished() {
			b.newStatus().Step = s.name
		}
		return s.action(b)
	}
	return b.decision
}

// Tables are all tables of steps, by name: the order of a migration that goes well,
// then what ends it otherwise.
var Tables = []struct {
	Name  string
	steps []step
}{
	{"before anything else", protecting}, {"Pending", pending}, {"Preparing", preparing},
	{"Placing, StartFirst", placingStartFirst}, {"HandingOver, StartFirst", handOverStartFirst},
	{"Placing, StopFirst", placingStopFirst}, {"HandingOver, StopFirst", handOverStopFirst},
	{"Pending, recovery", requestingRecovery}, {"recovery", recovering},
	{"withdrawing an eviction", withdrawing}, {"returning to the original", returning},
	{"rolling back", undoing}, {"failing", failing}, {"finished", finishing},
}

// settleOf finds how the answer to a step's action is read.
var settleOf = func() map[v1alpha1.Step]func(*builder, Result) (Decision, error) {
	found := map[v1alpha1.Step]func(*builder, Result) (Decision, error){}
	for _, table := range Tables {
		for _, s := range table.steps {
			if s.settle != nil {
				found[s.name] = s.settle
			}
		}
	}
	return found
}()

// Steps are the names of a table's steps, in order, each once.
func Steps(table string) []v1alpha1.Step {
	var names []v1alpha1.Step
	for _, t := range Tables {
		for _, s := range t.steps {
			if t.Name == table && !slices.Contains(names, s.name) {
				names = append(names, s.name)
			}
		}
	}
	return names
}
