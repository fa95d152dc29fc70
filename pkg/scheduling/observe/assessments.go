package observe

import (
	"sync"

	corev1 "k8s.io/api/core/v1"

	"github.com/ai-storage/orchestrator/pkg/pods"
	"github.com/ai-storage/orchestrator/pkg/pods/containers"
	"github.com/ai-storage/orchestrator/pkg/scheduling/cluster"
)

// Assessments remember from one cycle to the next what was found out about a
// pod from nothing but its object. Objects of informers are never changed, only
// replaced, so the same pointer means the same content. Nil remembers nothing.
type Assessments struct {
	mu            sync.Mutex
	last, current map[*corev1.Pod]*assessment
}

type assessment struct {
	requests cluster.Resources
	// hasOwnLoad reports that verdicts and refusal are known, too.
	hasOwnLoad bool
	verdicts   containers.Verdicts
	refusal    *containers.Refusal
}

// NewAssessments returns an empty memory.
func NewAssessments() *Assessments { return &Assessments{current: map[*corev1.Pod]*assessment{}} }

// begin forgets pods that the last cycle did not see.
func (a *Assessments) begin() {
	if a != nil {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.last, a.current = a.current, make(map[*corev1.Pod]*assessment, len(a.current))
	}
}

// requests are what the scheduler counts for the pod.
func (a *Assessments) requests(pod *corev1.Pod) cluster.Resources {
	if a == nil {
		return cluster.ResourcesOf(pods.Requests(pod))
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.of(pod).requests
}

func (a *Assessments) of(pod *corev1.Pod) *assessment {
	found := a.current[pod]
	if found == nil {
		if found = a.last[pod]; found == nil {
			found = &assessment{requests: cluster.ResourcesOf(pods.Requests(pod))}
		}
		a.current[pod] = found
	}
	return found
}

// judge says which containers of the pod move, and why it cannot be moved. A pod
// with claims is judged anew every time, since claims change on their own.
func (a *Assessments) judge(pod *corev1.Pod, policy containers.Policy, claims containers.ClaimLookup) (containers.Verdicts, *containers.Refusal) {
	if a == nil {
		return containers.Assess(pod, policy, claims, nil)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	known := a.of(pod)
	if !known.hasOwnLoad {
		known.verdicts, known.refusal = containers.Assess(pod, policy, claims, nil)
		known.hasOwnLoad = !usesClaims(pod)
	}
	return known.verdicts, known.refusal
}

func usesClaims(pod *corev1.Pod) bool {
	for i := range pod.Spec.Volumes {
		if v := &pod.Spec.Volumes[i]; v.PersistentVolumeClaim != nil || v.Ephemeral != nil {
			return true
		}
	}
	return len(pod.Spec.ResourceClaims) > 0
}
