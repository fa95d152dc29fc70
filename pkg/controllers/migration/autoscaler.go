package migration

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/controllers/migration/decide"
)

// What autoscalers say of a pod for which there is no place, as the reason of an event.
const (
	// eventTriggeredScaleUp: the cluster autoscaler has asked for a node for the pod
	// (k8s.io/autoscaler/cluster-autoscaler/processors/status/eventing_scale_up_processor.go).
	eventTriggeredScaleUp = "TriggeredScaleUp"
	// eventNotTriggerScaleUp: no node that the cluster autoscaler can make would take it.
	eventNotTriggerScaleUp = "NotTriggerScaleUp"
	// eventNominated: Karpenter has a node, or a claim for one, for the pod
	// (sigs.k8s.io/karpenter/pkg/controllers/provisioning/scheduling/events.go).
	eventNominated = "Nominated"
)

// gatherComingNode reads whether an autoscaler makes a node for a pod of the migration that
// has no place. It is asked only when the grace is over, and for events of that pod alone.
// A user of the namespace can write such events too: what they gain is that a migration of
// theirs waits until its timeout.
func (r *reconciler) gatherComingNode(ctx context.Context, s *decide.State) error {
	pod := s.WithoutPlace()
	if pod == nil {
		return nil
	}
	list := &corev1.EventList{}
	selector := fields.OneTermEqualSelector("involvedObject.uid", string(pod.UID))
	if err := r.live.List(ctx, list, client.InNamespace(pod.Namespace), client.MatchingFieldsSelector{Selector: selector}); err != nil {
		return fmt.Errorf("reading whether an autoscaler makes a node for pod %s: %w", pod.Name, err)
	}
	s.ComingNode = comingNode(list.Items)
	return nil
}

// comingNode is what the last word of an autoscaler promises; "" when it promises nothing.
func comingNode(events []corev1.Event) (promise string) {
	var last time.Time
	for i := range events {
		e := &events[i]
		at := happened(e)
		if at.Before(last) {
			continue
		}
		switch e.Reason {
		case eventTriggeredScaleUp, eventNominated:
			last, promise = at, fmt.Sprintf("%s: %s", e.Reason, e.Message)
		case eventNotTriggerScaleUp:
			last, promise = at, ""
		}
	}
	return promise
}

// happened is the moment of an event, of either API.
func happened(e *corev1.Event) time.Time {
	at := e.CreationTimestamp.Time
	for _, other := range []time.Time{e.EventTime.Time, e.LastTimestamp.Time} {
		if other.After(at) {
			at = other
		}
	}
	if e.Series != nil && e.Series.LastObservedTime.After(at) {
		at = e.Series.LastObservedTime.Time
	}
	return at
}
