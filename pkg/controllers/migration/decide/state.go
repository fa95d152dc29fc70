package decide

import (
	"fmt"
	"math"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods"
	"github.com/ai-storage/orchestrator/pkg/pods/containers"
	"github.com/ai-storage/orchestrator/pkg/pods/owners"
)

// State is what the controller sees of one migration at one moment.
type State struct {
	Now       time.Time
	Migration *v1alpha1.PodMigration
	// Pod has the name of the original; it may be another pod by now.
	Pod *corev1.Pod
	// Replacement and Claim have the names that the migration gives; they may
	// be those of another client.
	Replacement *corev1.Pod
	Claim       *corev1.PersistentVolumeClaim
	// PreviousClaim is the checkpoint claim that the original brought along.
	PreviousClaim *corev1.PersistentVolumeClaim
	// Placeholder has the name that the migration gives to its placeholder.
	Placeholder *corev1.Pod
	// Siblings are the pods of the same controller. Only read where that creates the
	// replacement.
	Siblings []corev1.Pod
	// Owner is the controller of the pod.
	Owner owners.Owner
	// Budgets names the PodDisruptionBudgets that match the pod. Only read while Pending.
	Budgets []string
	// SourceDown and DestinationDown are for how long the node of the original, and
	// that of its replacement or placeholder, has not been Ready; zero when it is, NodeGone
	// when there is no such node.
	SourceDown, DestinationDown time.Duration
	// AgentImage is the image of the node agent; empty where there is none.
	AgentImage string
	// PullSecrets are those that pods with that image name beside the ones of the original,
	// MissingPullSecrets those of them that the namespace does not have. The latter are only
	// read while Pending.
	PullSecrets, MissingPullSecrets []string
	// ComingNode is how an autoscaler said that it makes a node for the pod of WithoutPlace;
	// "" when it did not.
	ComingNode string
	// Stored is the pod as the API server has stored it, with fields that our types do not
	// know. Only read while Pending, and until the last copy is asked for.
	Stored map[string]any
	// Nodes are those of the cluster, where a volume of the pod says which nodes reach it;
	// Handler is the runtime handler of the pod's RuntimeClass; Neighbours are the pods of
	// the namespace, where the pod has claims. Only read while Pending.
	Nodes      []*corev1.Node
	Handler    string
	Neighbours []corev1.Pod
	// DropAnnotations are prefixes of annotations that say something of the original alone,
	// beside the known ones.
	DropAnnotations []string
	// Claims finds the claims of the pod. Only read before the replacement exists.
	Claims containers.ClaimLookup
	// Others are the unfinished migrations of the namespace. Only read while Pending.
	Others []v1alpha1.PodMigration
	// Failed is the migration that spec.recoverFrom names. Only read while Pending.
	Failed *v1alpha1.PodMigration
	// TargetNodeExists reports whether spec.targetNode exists. Only read while Pending.
	TargetNodeExists bool
	// HasStorageClass reports whether the class of the checkpoint claim exists: the one that
	// is named, or a default one. Only read while Pending.
	HasStorageClass bool
	// CarriesProcesses reports whether the node of the pod can dump processes. Only read
	// while Pending.
	CarriesProcesses bool
	// Strays are pods that carry the mark of a finished migration, and that it did not
	// leave: a controller that was believed dead made them late.
	Strays []corev1.Pod
	// StrayClaim is a checkpoint claim that was made late; nil when there is none.
	StrayClaim *corev1.PersistentVolumeClaim
	// Limits bound the waiting.
	Limits Limits
}

// NodeGone is for how long a node has not been Ready that does not exist.
const NodeGone = time.Duration(math.MaxInt64)

// Limits bound how long the controller waits, beside spec.timeoutSeconds.
type Limits struct {
	// UnschedulableGrace is how long the scheduler may find no place for the
	// replacement before the migration is rolled back.
	UnschedulableGrace time.Duration
	// MeasureTimeout is how long the use of the replacement is waited for.
	MeasureTimeout time.Duration
	// AgentGrace is how long a node agent may be silent after it was asked, and a
	// node not Ready.
	AgentGrace time.Duration
	// StartGrace is how long a container may fail to be started, because its
	// image cannot be pulled or its configuration is wrong.
	StartGrace time.Duration
	// Settling is how long a replacement that nothing probes has to be Ready before its
	// original may end.
	Settling time.Duration
}

// original returns the pod that was accepted; nil when it no longer exists.
func (s *State) original() *corev1.Pod {
	accepted := s.Migration.Status.Original
	if s.Pod == nil || accepted == nil || s.Pod.UID != accepted.UID {
		return nil
	}
	return s.Pod
}

// replacement returns the pod that this migration created; nil when there is none.
func (s *State) replacement() *corev1.Pod {
	if s.Replacement == nil || !v1alpha1.OwnedBy(s.Replacement.Labels, s.Migration.UID) {
		return nil
	}
	return s.Replacement
}

// claim returns the checkpoint claim that this migration created.
func (s *State) claim() *corev1.PersistentVolumeClaim {
	if s.Claim == nil || !v1alpha1.OwnedBy(s.Claim.Labels, s.Migration.UID) {
		return nil
	}
	return s.Claim
}

// WithoutPlace is the replacement or the placeholder for which the scheduler has found no
// place for longer than the grace, before anything was stopped; nil when there is none.
func (s *State) WithoutPlace() *corev1.Pod {
	if s.IsCommitted() {
		return nil
	}
	for _, pod := range []*corev1.Pod{s.replacement(), s.placeholder()} {
		if pod == nil || pod.Spec.NodeName != "" || len(pod.Spec.SchedulingGates) > 0 {
			continue
		}
		c := pods.Condition(pod, corev1.PodScheduled)
		if c != nil && c.Status == corev1.ConditionFalse && c.Reason == corev1.PodReasonUnschedulable && s.waited(c.LastTransitionTime) >= s.Limits.UnschedulableGrace {
			return pod
		}
	}
	return nil
}

// placeholder returns the placeholder that this migration created.
func (s *State) placeholder() *corev1.Pod {
	if s.Placeholder == nil || !v1alpha1.OwnedBy(s.Placeholder.Labels, s.Migration.UID) {
		return nil
	}
	return s.Placeholder
}

// DestinationNode is where the replacement is, or where its place is held; "" before.
func (s *State) DestinationNode() string {
	if r := s.replacement(); r != nil && r.Spec.NodeName != "" {
		return r.Spec.NodeName
	}
	if p := s.placeholder(); p != nil {
		return p.Spec.NodeName
	}
	if s.IsCommitted() {
		return s.Migration.HeldNode()
	}
	return ""
}

// source and destination return the reports of the node agents about this attempt.
func (s *State) source() *v1alpha1.SourceReport {
	c := s.Migration.Status.Checkpoint
	if c == nil || c.Source == nil || c.Source.Attempt != c.Attempt {
		return nil
	}
	return c.Source
}

// The pod of the destination is the placeholder while what was sealed waits for the
// replacement.
func (s *State) destination() *v1alpha1.DestinationReport {
	c, pod := s.Migration.Status.Checkpoint, s.Migration.DestinationPod()
	if c == nil || c.Destination == nil || pod == nil || c.Destination.Attempt != c.Attempt || c.Destination.PodUID != pod.UID {
		return nil
	}
	return c.Destination
}

func (s *State) isTrue(condition string) bool {
	return meta.IsStatusConditionTrue(s.Migration.Status.Conditions, condition)
}

func (s *State) conditionReason(condition string) string {
	if c := meta.FindStatusCondition(s.Migration.Status.Conditions, condition); c != nil {
		return c.Reason
	}
	return ""
}

// since is how long a condition has had its status.
func (s *State) since(condition string) time.Duration {
	if c := meta.FindStatusCondition(s.Migration.Status.Conditions, condition); c != nil {
		return s.Now.Sub(c.LastTransitionTime.Time)
	}
	return 0
}

// waited is for how long something has been so that another client wrote down, by its clock,
// or for how long the pod has had its place, or none, by ours, whichever is shorter. The
// clocks may be minutes apart: where ours is ahead nothing ends early, and where it is behind
// the deadline is the bound.
func (s *State) waited(since metav1.Time) time.Duration {
	waited := s.Now.Sub(since.Time)
	if meta.FindStatusCondition(s.Migration.Status.Conditions, v1alpha1.ConditionPlaced) != nil {
		waited = min(waited, s.since(v1alpha1.ConditionPlaced))
	}
	return waited
}

// isRollingBack reports whether a rollback was begun.
func (s *State) isRollingBack() bool {
	return meta.IsStatusConditionFalse(s.Migration.Status.Conditions, v1alpha1.ConditionRolledBack)
}

// WantsStop reports whether a user asked to end the migration.
func (s *State) WantsStop() bool {
	return s.Migration.Spec.Cancel || s.Migration.DeletionTimestamp != nil
}

// IsCommitted reports whether a migration can only go forward.
func (s *State) IsCommitted() bool { return s.isTrue(v1alpha1.ConditionCommitted) }

// isOffered reports whether the replacement was offered to the ReplicaSet, which
// then deletes the original.
func (s *State) isOffered(r *corev1.Pod) bool {
	return s.adopts() && s.Owner.ReplicaSet != nil && owners.IsAdopted(r, s.Owner)
}

// barrier is what the annotation of the original holds once this attempt to end it is
// withdrawn, or rolled back.
func (s *State) barrier() string {
	h := s.Migration.Status.Handover
	if h == nil || h.Withdrawals == 0 {
		return string(s.Migration.UID)
	}
	return fmt.Sprintf("%s/%d", s.Migration.UID, h.Withdrawals)
}

func (s *State) hasBarrier() bool {
	o := s.original()
	return o != nil && o.Annotations[v1alpha1.RollbackBarrierAnnotation] == s.barrier()
}

// originalEnded reports whether the original no longer runs: it is gone, or its
// containers have ended and nothing but finalizers of others keeps the object. The
// name, and a claim of one node, are free only when it is gone.
func (s *State) originalEnded() bool {
	o := s.original()
	if o == nil {
		return true
	}
	return !s.keepsName() && !hasHoldFinalizer(o) && o.Spec.NodeName != "" && isKeptByOthers(o)
}

// needsClaim reports whether the migration has a checkpoint claim.
func (s *State) needsClaim() bool { return s.Migration.Status.CheckpointClaim != "" }

// carries reports whether state is carried to the replacement.
func (s *State) carries() bool {
	return s.Migration.Status.Checkpoint.Carries()
}

// adopts reports whether the ReplicaSet of the original is to adopt the replacement.
func (s *State) adopts() bool {
	h := s.Migration.Status.Handover
	return h != nil && h.Method == v1alpha1.MethodAdopt
}

// stopsFirst reports whether the original ends before the replacement starts.
func (s *State) stopsFirst() bool {
	h := s.Migration.Status.Handover
	return h != nil && h.Order == v1alpha1.OrderStopFirst
}

// order is the order of the handover; StartFirst before there is one.
func (s *State) order() v1alpha1.HandoverOrder {
	if s.stopsFirst() {
		return v1alpha1.OrderStopFirst
	}
	return v1alpha1.OrderStartFirst
}

func (s *State) method() v1alpha1.ReplacementMethod {
	if h := s.Migration.Status.Handover; h != nil {
		return h.Method
	}
	return v1alpha1.MethodCreate
}

// keepsName reports whether the replacement has the name of the original.
func (s *State) keepsName() bool {
	h := s.Migration.Status.Handover
	return h != nil && owners.KindOf(h.Owner) == owners.KindStatefulSet
}

// noDeadline is how far the deadline is of a migration that was not accepted.
const noDeadline = time.Hour

// deadline is the moment at which an uncommitted migration is rolled back.
func (s *State) deadline() time.Time {
	started := s.Migration.Status.Times.Started
	if started == nil {
		return s.Now.Add(noDeadline)
	}
	return started.Add(time.Duration(s.Migration.Spec.TimeoutSeconds) * time.Second)
}

// storedVerdicts are those that the replacement is built from.
func (s *State) storedVerdicts() containers.Verdicts {
	return containers.Verdicts{Containers: s.Migration.Status.Containers, Mode: s.Migration.CheckpointMode()}
}
