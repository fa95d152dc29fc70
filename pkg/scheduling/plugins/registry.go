package plugins

import (
	"k8s.io/kubernetes/pkg/scheduler/framework/runtime"
	"sigs.k8s.io/scheduler-plugins/pkg/capacityscheduling"
	"sigs.k8s.io/scheduler-plugins/pkg/coscheduling"
	"sigs.k8s.io/scheduler-plugins/pkg/networkaware/networkoverhead"
	"sigs.k8s.io/scheduler-plugins/pkg/networkaware/topologicalsort"
	"sigs.k8s.io/scheduler-plugins/pkg/noderesources"
	"sigs.k8s.io/scheduler-plugins/pkg/noderesourcetopology"
	"sigs.k8s.io/scheduler-plugins/pkg/podstate"
	"sigs.k8s.io/scheduler-plugins/pkg/preemptiontoleration"
	"sigs.k8s.io/scheduler-plugins/pkg/qos"
	"sigs.k8s.io/scheduler-plugins/pkg/sysched"
	"sigs.k8s.io/scheduler-plugins/pkg/trimaran/loadvariationriskbalancing"
	"sigs.k8s.io/scheduler-plugins/pkg/trimaran/lowriskovercommitment"
	"sigs.k8s.io/scheduler-plugins/pkg/trimaran/peaks"
	"sigs.k8s.io/scheduler-plugins/pkg/trimaran/targetloadpacking"

	"github.com/ai-storage/orchestrator/pkg/scheduling/plugins/checkpointvolume"
	"github.com/ai-storage/orchestrator/pkg/scheduling/plugins/rebalance"
)

// Registry returns the factories of our plugins and of the catalogue by name,
// to be merged with those of Kubernetes. A pod has one scheduler, so a cluster
// that wants a plugin of the catalogue needs it in this one.
func Registry() runtime.Registry {
	return runtime.Registry{
		checkpointvolume.Name: checkpointvolume.New,
		rebalance.Name:        rebalance.New,

		capacityscheduling.Name:         capacityscheduling.New,
		coscheduling.Name:               coscheduling.New,
		loadvariationriskbalancing.Name: loadvariationriskbalancing.New,
		lowriskovercommitment.Name:      lowriskovercommitment.New,
		networkoverhead.Name:            networkoverhead.New,
		noderesources.AllocatableName:   noderesources.NewAllocatable,
		noderesourcetopology.Name:       noderesourcetopology.New,
		peaks.Name:                      peaks.New,
		podstate.Name:                   podstate.New,
		preemptiontoleration.Name:       preemptiontoleration.New,
		qos.Name:                        qos.New,
		sysched.Name:                    sysched.New,
		targetloadpacking.Name:          targetloadpacking.New,
		topologicalsort.Name:            topologicalsort.New,
	}
}
