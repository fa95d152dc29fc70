package observe

import (
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods"
	"github.com/ai-storage/orchestrator/pkg/pods/containers"
	"github.com/ai-storage/orchestrator/pkg/pods/owners"
	"github.com/ai-storage/orchestrator/pkg/scheduling/budget"
	"github.com/ai-storage/orchestrator/pkg/scheduling/cluster"
)

// podCheck is one pod with all that the rules look at.
type podCheck struct {
	pod         *corev1.Pod
	key         cluster.PodKey
	usage       *cluster.Usage
	observation *Observation
	history     migrationHistory
	users       claimUsers
	options     Options
	// verdicts are those of the rule movable. They cost more than the rules
	// before it, which most pods of a cluster do not pass.
	verdicts containers.Verdicts
}

// rules in the order in which they are asked; the first that objects is the
// reason that people see. A rule returns "" when it has nothing against a move.
var rules = []func(*podCheck) string{
	optedIn,
	notExcluded,
	notMigrating,
	allowedByOwner,
	sharesNoClaim,
	movable,
	oldEnough,
	belowPriorityCeiling,
	cooledDown,
	disruptable,
	measured,
}

func buildPod(pod *corev1.Pod, requests cluster.Resources, observation *Observation, history migrationHistory, users claimUsers, options Options) *cluster.Pod {
	usage := podUsage(pod, requests, observation, options)
	key := cluster.PodKey{Namespace: pod.Namespace, Name: pod.Name}
	p := &cluster.Pod{
		Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID, NodeName: pod.Spec.NodeName,
		Workload: budget.WorkloadOf(pod.Namespace, pod.Name, metav1.GetControllerOf(pod)),
		Requests: requests, Measured: usage, Object: pod,
	}
	e := &podCheck{
		pod: pod, key: key, usage: usage, observation: observation, history: history, users: users, options: options,
	}
	for _, rule := range rules {
		if p.Immovable = rule(e); p.Immovable != "" {
			return p
		}
	}
	p.Immovable = giveReplacement(p, e.verdicts)
	return p
}

// giveReplacement says how the replacement is built and what it requests. It is
// built only when it is needed, unless containers stay behind: then what
// it requests is not known before. It returns why there can be none.
func giveReplacement(p *cluster.Pod, verdicts containers.Verdicts) (why string) {
	var err error
	p.Replacement = sync.OnceValue(func() (replacement *corev1.Pod) {
		replacement, err = containers.BuildReplacement(p.Object, verdicts, containers.ReplacementOptions{})
		return replacement
	})
	if verdicts.KeepsAll() && !wasResized(p.Object) {
		p.StrippedRequests = p.Requests
		return ""
	}
	if verdicts.KeepsAll() {
		p.StrippedRequests = cluster.ResourcesOf(pods.SpecRequests(p.Object))
		return ""
	}
	if replacement := p.Replacement(); err == nil {
		p.StrippedRequests = cluster.ResourcesOf(pods.Requests(replacement))
		return ""
	}
	p.Replacement = nil
	return err.Error()
}

// wasResized reports whether a container may have other requests than its spec
// requests: then the replacement, which knows only the spec, has others, too.
func wasResized(pod *corev1.Pod) bool {
	hasResources := func(s corev1.ContainerStatus) bool { return s.Resources != nil }
	return slices.ContainsFunc(pod.Status.ContainerStatuses, hasResources) ||
		slices.ContainsFunc(pod.Status.InitContainerStatuses, hasResources) || pod.Status.Resources != nil
}

func optedIn(e *podCheck) string {
	if e.pod.Spec.SchedulerName != e.options.SchedulerName {
		return "the pod has not opted in with schedulerName " + e.options.SchedulerName
	}
	return ""
}

func notExcluded(e *podCheck) string { return owners.Excluded(e.pod) }

func notMigrating(e *podCheck) string {
	if e.history.migrating[e.key] {
		return "a migration of the pod is in flight"
	}
	return ""
}

// policyOf is what a migration by the loop would ask for. Without node agents, what is on
// scratch volumes would be lost.
func (o *Options) policyOf(pod *corev1.Pod) containers.Policy {
	policy := containers.Policy{Waiting: v1alpha1.WaitingStrip, Mode: v1alpha1.CheckpointApplication}
	if o.CarriesState {
		policy.Mode = containers.PreferredMode(pod)
	}
	return policy
}

// keepsMemory tells why the processes of a pod that wants to move with them cannot;
// moving without would lose what they did.
func keepsMemory(e *podCheck) string {
	switch {
	case containers.PreferredMode(e.pod) != v1alpha1.CheckpointProcess:
	case !e.options.CarriesState:
		return "the pod is to move with its memory (runtimeClassName " + v1alpha1.ProcessRuntimeClass + "), for which the loop needs node agents (--node-agent-image of the rebalancer)"
	default:
		if refusal := containers.RefuseProcesses(e.pod, e.verdicts); refusal != nil {
			return "its processes cannot move: " + refusal.Message
		}
	}
	return ""
}

// allowedByOwner asks the owner what the controller of migrations will ask it, and
// what the loop alone has to respect: it stops no pod, and takes none from its group.
func allowedByOwner(e *podCheck) string {
	owner := e.observation.Owner(e.pod)
	if refusal := owners.Refuse(e.pod, owner); refusal != nil {
		return refusal.Message
	}
	if why := owners.StopsFirst(owner); why != "" {
		return "the pod would have to stop before it moves: " + why
	}
	if why := owners.NeedsOptIn(e.pod, owner); why != "" {
		return why
	}
	// The migration would wait, and fail where the rollout never ends.
	return owners.InFlight(owner)
}

// sharesNoClaim keeps a pod on the node of those that use the same volume.
func sharesNoClaim(e *podCheck) string {
	if refusal := e.users.refusal(e.pod, e.observation.Claims); refusal != nil {
		return refusal.Message
	}
	return ""
}

func movable(e *podCheck) string {
	var refusal *containers.Refusal
	e.verdicts, refusal = e.options.Assessments.judge(e.pod, e.options.policyOf(e.pod), e.observation.Claims(e.pod.Namespace))
	switch {
	case refusal != nil:
		return refusal.Message
	case e.verdicts.HasWaiting():
		return "a container of the pod has not started yet"
	}
	return keepsMemory(e)
}

func oldEnough(e *podCheck) string {
	if e.observation.At.Sub(e.pod.CreationTimestamp.Time) < e.options.MinimumPodAge {
		return fmt.Sprintf("the pod is younger than %s", e.options.MinimumPodAge)
	}
	return ""
}

func belowPriorityCeiling(e *podCheck) string {
	if priority := e.pod.Spec.Priority; priority != nil && *priority > e.options.PriorityCeiling {
		return fmt.Sprintf("the priority of the pod is above %d", e.options.PriorityCeiling)
	}
	return ""
}

func cooledDown(e *podCheck) string {
	c := e.history.cooldown(e.pod, e.options)
	left := c.Until.Sub(e.observation.At)
	switch {
	case left <= 0:
		return ""
	case c.Migrations == 1:
		return fmt.Sprintf("the workload was moved, or should have been, and stays for another %s", left.Round(time.Second))
	}
	return fmt.Sprintf("the workload was moved, or should have been, %d times and stays for another %s", c.Migrations, left.Round(time.Second))
}

// disruptable asks what the Eviction API will ask. It refuses a pod that more
// than one budget covers, whatever they allow.
func disruptable(e *podCheck) string {
	covering := 0
	for _, pdb := range e.observation.Budgets {
		if pdb.Namespace != e.pod.Namespace {
			continue
		}
		selector, err := metav1.LabelSelectorAsSelector(pdb.Spec.Selector)
		if err == nil && !selector.Matches(labels.Set(e.pod.Labels)) {
			continue
		}
		if pdb.Status.DisruptionsAllowed <= 0 {
			return "disruption budget " + pdb.Name + " allows no disruption now"
		}
		covering++
	}
	if covering > 1 {
		return "more than one disruption budget covers the pod, so it cannot be evicted"
	}
	return ""
}

func measured(e *podCheck) string {
	if e.usage == nil {
		return "the pod has no fresh measurement"
	}
	return ""
}
