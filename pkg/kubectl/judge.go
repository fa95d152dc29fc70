package kubectl

import (
	"context"
	"fmt"
	"io"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods/containers"
	"github.com/ai-storage/orchestrator/pkg/pods/owners"
)

// judgement is what will most likely become of a request.
type judgement struct {
	pod      *corev1.Pod
	verdicts []v1alpha1.ContainerVerdict
	// refusal is nil when the pod can be moved.
	refusal *containers.Refusal
	// waits says what the migration would wait for; "" when nothing.
	waits string
	// stays is why the processes of the pod would not move along, where that was
	// requested; "" when they would.
	stays string
	// unchecked is why not everything could be looked at; nil when it was.
	unchecked error
}

// judgeRequest looks at a request as the controller will. Where the caller may not
// read all that the controller reads, it says so and judges by the pod alone.
func (s *session) judgeRequest(ctx context.Context, request *v1alpha1.PodMigration) (judgement, error) {
	pod := &corev1.Pod{}
	if err := s.client.Get(ctx, client.ObjectKey{Namespace: request.Namespace, Name: request.Spec.PodName}, pod); err != nil {
		return judgement{}, err
	}
	j := judgement{pod: pod, verdicts: containers.Judge(pod, containers.PolicyOf(request)).Containers}
	result, err := s.judge.Check(ctx, request)
	switch {
	case apierrors.IsForbidden(err):
		j.unchecked, j.refusal = err, refusalOfPod(pod, request)
	case err != nil:
		return judgement{}, err
	default:
		j.refusal, j.waits, j.stays = result.Refusal, result.Waits, result.Stays
	}
	return j, nil
}

func refusalOfPod(pod *corev1.Pod, request *v1alpha1.PodMigration) *containers.Refusal {
	if r := containers.Refuse(pod); r != nil {
		return r
	}
	verdicts := containers.Judge(pod, containers.PolicyOf(request))
	if verdicts.Refusal != "" {
		return &containers.Refusal{Reason: verdicts.Refusal, Message: verdicts.Message}
	}
	if c := request.Spec.Checkpoint; c.Mode == v1alpha1.CheckpointProcess && c.Fallback != v1alpha1.FallbackFreshStart {
		if r := containers.RefuseProcesses(pod, verdicts); r != nil {
			return r
		}
	}
	return owners.RefuseKind(pod)
}

// write shows a judgement.
func (j judgement) write(w io.Writer) {
	fmt.Fprintf(w, "Pod %s/%s on node %s:\n\n", j.pod.Namespace, j.pod.Name, orNone(j.pod.Spec.NodeName))
	writeVerdicts(w, "MOVES", j.verdicts)
	switch {
	case j.refusal != nil:
		fmt.Fprintf(w, "\nCannot be moved (%s): %s\n", j.refusal.Reason, j.refusal.Message)
	case j.waits != "":
		fmt.Fprintf(w, "\nCan be moved, and waits first: %s\n", j.waits)
	default:
		fmt.Fprintln(w, "\nCan be moved.")
	}
	j.warn(w)
}

// warn says what the user did not request, or should know.
func (j judgement) warn(w io.Writer) {
	if j.stays != "" {
		fmt.Fprintf(w, "Its processes cannot move, its containers will start afresh: %s\n", j.stays)
	}
	if j.unchecked != nil {
		fmt.Fprintf(w, "Not everything could be checked beforehand: %v\n", j.unchecked)
	}
}

// writeVerdicts is a table of containers.
func writeVerdicts(w io.Writer, column string, verdicts []v1alpha1.ContainerVerdict) {
	table := newTable(w)
	fmt.Fprintf(table, "CONTAINER\tKIND\tSTATE\t%s\tREASON\tMESSAGE\n", column)
	for _, v := range verdicts {
		answer := "no"
		if v.ShouldMigrate {
			answer = "yes"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", v.Name, v.Kind, v.State, answer, v.Reason, v.Message)
	}
	table.Flush()
}
