package containers

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// Reasons of a verdict on one container.
const (
	ReasonRunning              = "Running"
	ReasonCompleted            = "Completed"
	ReasonWillRestart          = "WillRestart"
	ReasonMayRestart           = "MayRestart"
	ReasonFailed               = "Failed"
	ReasonCrashLoopBackOff     = "CrashLoopBackOff"
	ReasonRestarting           = "Restarting"
	ReasonNeverStarted         = "NeverStarted"
	ReasonWaitingForInit       = "WaitingForInit"
	ReasonInitCompleted        = "InitCompleted"
	ReasonInitResultNotCarried = "InitResultNotCarried"
	// ReasonInitRunsAgain: the container may have changed more than volumes.
	ReasonInitRunsAgain = "InitRunsAgain"
	ReasonSidecar       = "Sidecar"
	ReasonEphemeral     = "Ephemeral"
	// ReasonGate: the container was added by an earlier migration.
	ReasonGate = "MigrationGate"
	// ReasonLeftOutBefore: an earlier migration left the container out. The
	// owner of the pod does not know that.
	ReasonLeftOutBefore = "LeftOutBefore"
)

// Verdicts says for every container of a pod whether it moves, and whether the
// pod can move at all.
type Verdicts struct {
	// Containers holds init containers, containers and ephemeral containers, in
	// the order of the pod.
	Containers []v1alpha1.ContainerVerdict
	// Refusal is a CamelCase reason; empty when the pod can move.
	Refusal string
	// Message explains the refusal in a sentence.
	Message string
	// Mode is how state is carried; what is carried decides what may be left out.
	Mode v1alpha1.CheckpointMode
}

// Policy is what the author of a migration decides.
type Policy struct {
	// Waiting is for containers that never started; empty means Strip.
	Waiting v1alpha1.WaitingPolicy
	// Mode is how state is carried; empty means Frozen.
	Mode v1alpha1.CheckpointMode
	// MayStop allows the original to stop before the replacement starts.
	MayStop bool
}

// PolicyOf returns the policy of a migration.
func PolicyOf(m *v1alpha1.PodMigration) Policy {
	return Policy{Waiting: m.Spec.Waiting, Mode: m.CheckpointMode(), MayStop: true}
}

// HasWaiting reports whether some container has never started.
func (v Verdicts) HasWaiting() bool {
	return slices.ContainsFunc(v.Containers, func(c v1alpha1.ContainerVerdict) bool {
		return c.State == v1alpha1.StateWaiting && c.Kind != v1alpha1.KindEphemeral
	})
}

// Keeps reports whether the container of this name moves.
func (v Verdicts) Keeps(name string) bool {
	return slices.ContainsFunc(v.Containers, func(c v1alpha1.ContainerVerdict) bool {
		return c.Name == name && c.ShouldMigrate
	})
}

// KeepsAll reports whether every container moves. Ephemeral ones do not count.
func (v Verdicts) KeepsAll() bool {
	return !slices.ContainsFunc(v.Containers, func(c v1alpha1.ContainerVerdict) bool {
		return !c.ShouldMigrate && c.Kind != v1alpha1.KindEphemeral
	})
}

// SameContainers reports whether both verdicts take the same containers along.
func (v Verdicts) SameContainers(other Verdicts) bool {
	return slices.Equal(v.kept(), other.kept())
}

func (v Verdicts) kept() []string {
	var names []string
	for _, c := range v.Containers {
		if c.ShouldMigrate {
			names = append(names, c.Name)
		}
	}
	return names
}

// Judge decides on every container of a pod.
func Judge(pod *corev1.Pod, policy Policy) Verdicts {
	j := &judge{pod: pod, waiting: policy.Waiting, initializing: isInitializing(pod), restartAll: canRestartAll(&pod.Spec)}
	var inits, regulars []v1alpha1.ContainerVerdict
	for i := range pod.Spec.InitContainers {
		inits = append(inits, j.initContainer(&pod.Spec.InitContainers[i]))
	}
	for i := range pod.Spec.Containers {
		regulars = append(regulars, j.container(&pod.Spec.Containers[i]))
	}
	v := Verdicts{Containers: slices.Concat(inits, regulars), Mode: policy.Mode}
	j.keepNeededInits(&v)
	for i := range pod.Spec.EphemeralContainers {
		v.Containers = append(v.Containers, ephemeral(pod, pod.Spec.EphemeralContainers[i].Name))
	}
	v.Containers = append(v.Containers, leftOutBefore(pod)...)
	for _, rule := range verdictRules {
		if r := rule(pod, v); r != nil {
			v.Refusal, v.Message = r.Reason, r.Message
			break
		}
	}
	return v
}

type judge struct {
	pod          *corev1.Pod
	waiting      v1alpha1.WaitingPolicy
	initializing bool
	restartAll   bool
}

func (j *judge) container(c *corev1.Container) v1alpha1.ContainerVerdict {
	f := find(j.pod.Status.ContainerStatuses, c.Name)
	v := v1alpha1.ContainerVerdict{Name: c.Name, Kind: v1alpha1.KindContainer, State: f.state, ShouldMigrate: true}
	switch {
	case f.state == v1alpha1.StateCompleted && wouldRestart(&j.pod.Spec, c, false, 0):
		v.Reason, v.Message = ReasonWillRestart, "finished with exit code 0, and its restart policy starts it again"
	case f.state == v1alpha1.StateCompleted && j.restartAll:
		v.Reason, v.Message = ReasonMayRestart, "finished with exit code 0, but a restart rule of the pod may run all containers again"
	case f.state == v1alpha1.StateCompleted:
		v.ShouldMigrate, v.Reason = false, ReasonCompleted
		v.Message = "finished with exit code 0 and will not restart: left out, its requests are freed"
	case f.state == v1alpha1.StateWaiting && !f.hasRun:
		j.neverStarted(&v)
	default:
		v.Reason, v.Message = f.reason, f.message
	}
	return v
}

// neverStarted applies the waiting policy. A container that waits for the init
// containers of its own pod is not stuck, it is next: it always moves.
func (j *judge) neverStarted(v *v1alpha1.ContainerVerdict) {
	switch {
	case j.initializing:
		v.Reason, v.Message = ReasonWaitingForInit, "waits for the init containers of the pod"
	case j.waiting == v1alpha1.WaitingKeep:
		v.Reason, v.Message = ReasonNeverStarted, "has never started; kept because the policy for waiting containers is Keep"
	default:
		v.ShouldMigrate, v.Reason = false, ReasonNeverStarted
		v.Message = "has never started; left out because the policy for waiting containers is Strip"
	}
}

func (j *judge) initContainer(c *corev1.Container) v1alpha1.ContainerVerdict {
	f := find(j.pod.Status.InitContainerStatuses, c.Name)
	v := v1alpha1.ContainerVerdict{Name: c.Name, Kind: v1alpha1.KindInit, State: f.state, ShouldMigrate: true}
	switch {
	case v1alpha1.IsGateContainer(c.Name):
		v.ShouldMigrate, v.Reason, v.Message = false, ReasonGate, "belongs to an earlier migration"
	case isSidecar(c):
		v.Kind, v.Reason, v.Message = v1alpha1.KindSidecar, ReasonSidecar, "sidecars move with their pod"
	case f.state == v1alpha1.StateCompleted && wouldRestart(&j.pod.Spec, c, true, 0):
		v.Reason, v.Message = ReasonWillRestart, "finished with exit code 0, and a restart rule starts it again"
	case f.state == v1alpha1.StateCompleted && j.restartAll:
		v.Reason, v.Message = ReasonMayRestart, "finished with exit code 0, but a restart rule of the pod may run all containers again"
	case f.state == v1alpha1.StateCompleted:
		if why := runsAgain(j.pod, c); why != "" {
			v.Reason, v.Message = ReasonInitRunsAgain, runsAgainMessage(why)
			break
		}
		v.ShouldMigrate, v.Reason, v.Message = false, ReasonInitCompleted, "finished its initialisation: left out, it does not run again"
	case f.state == v1alpha1.StateWaiting && !f.hasRun:
		v.Reason, v.Message = ReasonWaitingForInit, "its turn has not come yet"
	default:
		v.Reason, v.Message = f.reason, f.message
	}
	return v
}

// keepNeededInits takes finished init containers along whose product is in a
// volume that stays behind. Keeping one can make another one necessary, so it
// continues until nothing changes.
func (j *judge) keepNeededInits(v *Verdicts) {
	for changed := true; changed; {
		changed = false
		for i := range v.Containers {
			c := &v.Containers[i]
			if c.Kind != v1alpha1.KindInit || c.ShouldMigrate || c.Reason == ReasonGate {
				continue
			}
			if lost := productsLeftBehind(j.pod, *v, c.Name); len(lost) > 0 {
				c.ShouldMigrate, c.Reason = true, ReasonInitResultNotCarried
				c.Message = fmt.Sprintf("finished, but runs again: its result in %s is not carried to another node", volumeList(lost))
				changed = true
			}
		}
	}
}

func ephemeral(pod *corev1.Pod, name string) v1alpha1.ContainerVerdict {
	return v1alpha1.ContainerVerdict{
		Name: name, Kind: v1alpha1.KindEphemeral, State: find(pod.Status.EphemeralContainerStatuses, name).state,
		Reason: ReasonEphemeral, Message: "ephemeral containers are for debugging and stay behind",
	}
}

// finding is what the status of a container tells.
type finding struct {
	state   v1alpha1.ContainerState
	reason  string
	message string
	// hasRun reports whether the container has ever started.
	hasRun bool
}

func find(statuses []corev1.ContainerStatus, name string) finding {
	i := slices.IndexFunc(statuses, func(s corev1.ContainerStatus) bool { return s.Name == name })
	if i < 0 {
		return finding{state: v1alpha1.StateWaiting, reason: ReasonNeverStarted, message: "has never started"}
	}
	status := &statuses[i]
	switch {
	case status.State.Running != nil:
		return finding{state: v1alpha1.StateRunning, reason: ReasonRunning, message: "is running", hasRun: true}
	case status.State.Terminated != nil:
		return terminated(status.State.Terminated)
	default:
		return findWaiting(status)
	}
}

func terminated(t *corev1.ContainerStateTerminated) finding {
	if t.ExitCode == 0 {
		return finding{state: v1alpha1.StateCompleted, reason: ReasonCompleted, message: "finished with exit code 0", hasRun: true}
	}
	return finding{state: v1alpha1.StateFailed, reason: ReasonFailed, message: exitSentence(t) + "; it is tried again on the destination", hasRun: true}
}

func findWaiting(status *corev1.ContainerStatus) finding {
	var reason string
	if status.State.Waiting != nil {
		reason = status.State.Waiting.Reason
	}
	last := status.LastTerminationState.Terminated
	switch {
	case reason == ReasonCrashLoopBackOff:
		message := "keeps ending soon after its start"
		if last != nil {
			message = exitSentence(last) + " again and again"
		}
		return finding{state: v1alpha1.StateFailed, reason: ReasonCrashLoopBackOff, message: message + "; it is tried again on the destination", hasRun: true}
	case last != nil && last.ExitCode != 0:
		return finding{state: v1alpha1.StateFailed, reason: ReasonFailed, message: exitSentence(last) + "; it is tried again on the destination", hasRun: true}
	case last != nil || status.RestartCount > 0:
		return finding{state: v1alpha1.StateWaiting, reason: ReasonRestarting, message: "has run before and is about to start again", hasRun: true}
	default:
		return finding{state: v1alpha1.StateWaiting, reason: ReasonNeverStarted, message: "has never started"}
	}
}

func exitSentence(t *corev1.ContainerStateTerminated) string {
	sentence := fmt.Sprintf("failed with exit code %d", t.ExitCode)
	if t.Reason != "" && t.Reason != "Error" {
		sentence += " (" + t.Reason + ")"
	}
	return sentence
}

// isInitializing reports whether init containers of the pod still have work to
// do before its containers may start.
func isInitializing(pod *corev1.Pod) bool {
	for i := range pod.Spec.Containers {
		f := find(pod.Status.ContainerStatuses, pod.Spec.Containers[i].Name)
		if f.hasRun {
			return false
		}
	}
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		f := find(pod.Status.InitContainerStatuses, c.Name)
		if isSidecar(c) {
			if f.state != v1alpha1.StateRunning {
				return true
			}
		} else if f.state != v1alpha1.StateCompleted {
			return true
		}
	}
	return false
}

func volumeList(names []string) string {
	if len(names) == 1 {
		return "volume " + names[0]
	}
	return "volumes " + strings.Join(names, ", ")
}
