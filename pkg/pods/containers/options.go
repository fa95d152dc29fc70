package containers

import (
	"cmp"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// OptionsOf are what the replacement of an accepted migration is bound to, whoever
// creates it: the controller, the owner with the admission webhook, or a plugin of the
// scheduler that only imagines it. agentImage is the image of the node agent.
func OptionsOf(m *v1alpha1.PodMigration, agentImage string) ReplacementOptions {
	s := &m.Status
	options := ReplacementOptions{
		Name: s.Replacement.Name, MigrationUID: m.UID, ClaimName: s.CheckpointClaim,
		TargetNode: m.Spec.TargetNode, PlannedNode: m.Spec.PlannedNode,
		WaitForOriginal: s.Handover != nil && s.Handover.Order == v1alpha1.OrderStopFirst,
		SourceNode:      s.Original.NodeName, OriginalUID: s.Original.UID,
		Root: cmp.Or(RootOf(s.Replacement.Name, m.UID, m.CreationTimestamp.Time), s.Original.Name),
	}
	if s.Checkpoint != nil {
		options.PreviousClaim = s.Checkpoint.PreviousClaim
	}
	if s.Checkpoint.Carries() {
		options.GateImage = agentImage
	}
	switch held := m.HeldNode(); {
	case held != "" && s.Checkpoint.Carries() && s.CheckpointClaim == "":
		// Nothing but a disk of that node has the state.
		options.TargetNode = held
	case held != "":
		options.PlannedNode = held
	}
	return options
}
