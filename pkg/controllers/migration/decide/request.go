package decide

import (
	"github.com/ai-storage/orchestrator/pkg/pods/containers"
)

// Request decides a request that is not stored yet, as Next will when it is
// pending. The refusal says why the processes of the pod would not move along,
// where that was asked for; without a fallback the decision is a refusal as well.
func Request(s State) (Decision, *containers.Refusal) {
	d := walk(newBuilder(&s), table(&s))
	if s.Pod == nil {
		return d, nil
	}
	_, stay := plannedMode(&s, containers.Judge(s.Pod, containers.PolicyOf(s.Migration)))
	return d, stay
}
