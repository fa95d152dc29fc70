package restapi

import (
	"cmp"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/controllers/migration"
)

// Migration is one migration as the API shows it. Times are RFC 3339.
type Migration struct {
	// ID is a UUID.
	ID         string `json:"id"`
	Name       string `json:"name"`
	Namespace  string `json:"namespace"`
	PodName    string `json:"pod_name"`
	SourceNode string `json:"source_node,omitempty"`
	// TargetNode is the node that was requested, or that the loop expects.
	TargetNode string         `json:"target_node,omitempty"`
	Phase      v1alpha1.Phase `json:"phase"`
	// Reason is a CamelCase word, Message a sentence.
	Reason     string     `json:"reason,omitempty"`
	Message    string     `json:"message,omitempty"`
	CreatedAt  time.Time  `json:"created_at"`
	StartedAt  *time.Time `json:"started_at,omitempty"`
	FinishedAt *time.Time `json:"finished_at,omitempty"`
	// Queued: it waits for its place in the budget, or for its owner to be at rest.
	Queued          bool   `json:"queued"`
	CancelRequested bool   `json:"cancel_requested"`
	NewPod          string `json:"new_pod,omitempty"`
	NewNode         string `json:"new_node,omitempty"`
	// CheckpointMode and CheckpointFallback are as they were requested.
	CheckpointMode     v1alpha1.CheckpointMode     `json:"checkpoint_mode"`
	CheckpointFallback v1alpha1.CheckpointFallback `json:"checkpoint_fallback"`
	CheckpointClaim    string                      `json:"checkpoint_claim,omitempty"`
	// OnlyCopyKept: the claim has the only copy of the state, after a failure.
	OnlyCopyKept bool `json:"only_copy_kept,omitempty"`
	// RecoverFrom is the failed migration whose pod this one starts again.
	RecoverFrom string `json:"recover_from,omitempty"`
	// CheckpointPath is where the containers of the new pod see the claim.
	CheckpointPath string `json:"checkpoint_path,omitempty"`
	// Restored is what the new pod continued with, FallbackReason why only with the
	// volumes where processes were requested.
	Restored        v1alpha1.RestoredState `json:"restored,omitempty"`
	FallbackReason  string                 `json:"fallback_reason,omitempty"`
	Handover        *Handover              `json:"handover,omitempty"`
	DowntimeSeconds *float64               `json:"downtime_seconds,omitempty"`
	CopiedBytes     *int64                 `json:"copied_bytes,omitempty"`
	Containers      []Container            `json:"containers,omitempty"`
	// OriginalResources are those of the pod that moves, OptimizedResources those
	// of its replacement.
	OriginalResources  *Resources  `json:"original_resources,omitempty"`
	OptimizedResources *Resources  `json:"optimized_resources,omitempty"`
	PhaseTimes         []PhaseTime `json:"phase_times,omitempty"`
	PreservePV         bool        `json:"preserve_pv"`
	ForceRestart       bool        `json:"force_restart"`
	TimeoutSeconds     int32       `json:"timeout_seconds"`
	RequestedBy        string      `json:"requested_by,omitempty"`
}

// Handover is the way from the original to its replacement.
type Handover struct {
	Order  v1alpha1.HandoverOrder     `json:"order"`
	Method v1alpha1.ReplacementMethod `json:"method"`
	Reason string                     `json:"reason,omitempty"`
}

// Container is the verdict on one container of the original.
type Container struct {
	Name          string                  `json:"name"`
	Kind          v1alpha1.ContainerKind  `json:"kind"`
	State         v1alpha1.ContainerState `json:"state"`
	ShouldMigrate bool                    `json:"should_migrate"`
	Reason        string                  `json:"reason"`
	Message       string                  `json:"message,omitempty"`
}

// Resources are what a pod requests and was measured to use, as quantities of
// Kubernetes by resource name.
type Resources struct {
	Requests   map[corev1.ResourceName]string `json:"requests,omitempty"`
	Usage      map[corev1.ResourceName]string `json:"usage,omitempty"`
	Source     v1alpha1.UsageSource           `json:"source,omitempty"`
	MeasuredAt *time.Time                     `json:"measured_at,omitempty"`
}

// PhaseTime is how long a migration was in one phase. The last one has no end
// while it lasts.
type PhaseTime struct {
	Phase     v1alpha1.Phase `json:"phase"`
	StartedAt time.Time      `json:"started_at"`
	EndedAt   *time.Time     `json:"ended_at,omitempty"`
	Seconds   *float64       `json:"seconds,omitempty"`
}

// viewOf shows a PodMigration.
func viewOf(m *v1alpha1.PodMigration) Migration {
	s := &m.Status
	v := Migration{
		ID: string(m.UID), Name: m.Name, Namespace: m.Namespace, PodName: m.Spec.PodName,
		SourceNode: m.Spec.SourceNode, TargetNode: cmp.Or(m.Spec.TargetNode, m.Spec.PlannedNode),
		Phase: m.CurrentPhase(), Reason: migration.ReasonOf(m), Message: s.Message,
		CreatedAt: m.CreationTimestamp.UTC(), StartedAt: utc(s.Times.Started), FinishedAt: utc(s.Times.Finished),
		Queued: isQueued(m), CancelRequested: m.Spec.Cancel, CheckpointClaim: s.CheckpointClaim,
		CheckpointMode:     cmp.Or(m.Spec.Checkpoint.Mode, v1alpha1.CheckpointFrozen),
		CheckpointFallback: cmp.Or(m.Spec.Checkpoint.Fallback, v1alpha1.FallbackNone),
		OriginalResources:  resourcesOf(s.Before), OptimizedResources: resourcesOf(s.After), PhaseTimes: phaseTimesOf(m),
		PreservePV: m.Spec.Checkpoint.ReclaimPolicy == v1alpha1.ClaimRetain, ForceRestart: m.Spec.ForceRestart, TimeoutSeconds: m.Spec.TimeoutSeconds,
		OnlyCopyKept: m.KeepsOnlyCopy(), RecoverFrom: m.Spec.RecoverFrom,
		RequestedBy: m.Annotations[v1alpha1.RequestedByAnnotation],
	}
	if s.Original != nil {
		v.SourceNode = s.Original.NodeName
	}
	if s.CheckpointClaim != "" {
		v.CheckpointPath = v1alpha1.CheckpointMountPath
	}
	if r := s.Replacement; r != nil && r.UID != "" {
		v.NewPod, v.NewNode = r.Name, r.NodeName
	}
	if h := s.Handover; h != nil {
		v.Handover = &Handover{Order: h.Order, Method: h.Method, Reason: h.Reason}
	}
	if s.Downtime != nil {
		v.DowntimeSeconds = new(s.Downtime.Seconds())
	}
	if c := s.Checkpoint; c != nil {
		v.Restored, v.FallbackReason = c.Restored, c.FallbackReason
		if c.Source != nil {
			v.CopiedBytes = new(c.Source.Bytes)
		}
	}
	for _, c := range s.Containers {
		v.Containers = append(v.Containers, Container{Name: c.Name, Kind: c.Kind, State: c.State, ShouldMigrate: c.ShouldMigrate, Reason: c.Reason, Message: c.Message})
	}
	return v
}

// isQueued reports whether the controller has seen a migration and lets it wait.
func isQueued(m *v1alpha1.PodMigration) bool {
	return m.CurrentPhase() == v1alpha1.PhasePending && meta.IsStatusConditionFalse(m.Status.Conditions, v1alpha1.ConditionAccepted)
}

func resourcesOf(r *v1alpha1.ResourceRecord) *Resources {
	if r == nil {
		return nil
	}
	resources := &Resources{Requests: quantities(r.Requests), Usage: quantities(r.Usage), Source: r.Source}
	if r.MeasuredAt != nil {
		resources.MeasuredAt = new(r.MeasuredAt.UTC())
	}
	return resources
}

func quantities(list corev1.ResourceList) map[corev1.ResourceName]string {
	shown := make(map[corev1.ResourceName]string, len(list))
	for name, quantity := range list {
		shown[name] = quantity.String()
	}
	return shown
}

// phaseTimesOf lists the phases that a migration went through before it ended.
func phaseTimesOf(m *v1alpha1.PodMigration) []PhaseTime {
	var phases []PhaseTime
	for _, span := range m.PhaseSpans() {
		if span.Phase.IsFinished() {
			break
		}
		p := PhaseTime{Phase: span.Phase, StartedAt: span.Start.UTC()}
		if !span.End.IsZero() {
			p.EndedAt, p.Seconds = new(span.End.UTC()), new(span.End.Sub(span.Start).Seconds())
		}
		phases = append(phases, p)
	}
	return phases
}

func utc(t *metav1.MicroTime) *time.Time {
	if t == nil {
		return nil
	}
	return new(t.UTC())
}
