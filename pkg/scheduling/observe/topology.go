package observe

import (
	"context"
	"fmt"
	"slices"
	"strings"

	topologyv1alpha2 "github.com/k8stopologyawareschedwg/noderesourcetopology-api/pkg/apis/topology/v1alpha2"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/ai-storage/orchestrator/pkg/scheduling/cluster"
)

// numaZone is the type of a zone that is a NUMA node; sockets and dies are others.
const numaZone = "Node"

// FollowTopology reads NodeResourceTopology objects from now on, which an exporter
// such as Node Feature Discovery's topology updater writes for each node (KEP-1870).
// A cluster without that resource has no NUMA nodes to us.
func (o *Observer) FollowTopology() { o.followsTopology = true }

// readTopology notes what is free on the NUMA nodes of every node that tells.
func (o *Observer) readTopology(ctx context.Context, observation *Observation) error {
	topologies := &topologyv1alpha2.NodeResourceTopologyList{}
	err := o.live.List(ctx, topologies)
	if meta.IsNoMatchError(err) || apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("listing node resource topologies: %w", err)
	}
	observation.Zones = make(map[string][]cluster.Resources, len(topologies.Items))
	for i := range topologies.Items {
		topology := &topologies.Items[i]
		observation.Zones[topology.Name] = freeInZones(topology.Zones)
	}
	return nil
}

// freeInZones is what is available on each NUMA node, in the order of their names,
// node-2 before node-10; nil where one of them does not report CPU and memory,
// since the others are no picture of the whole node.
func freeInZones(zones topologyv1alpha2.ZoneList) []cluster.Resources {
	numa := slices.DeleteFunc(slices.Clone(zones), func(zone topologyv1alpha2.Zone) bool { return zone.Type != numaZone })
	slices.SortFunc(numa, func(a, b topologyv1alpha2.Zone) int {
		if byLength := len(a.Name) - len(b.Name); byLength != 0 {
			return byLength
		}
		return strings.Compare(a.Name, b.Name)
	})
	var free []cluster.Resources
	for _, zone := range numa {
		available := corev1.ResourceList{}
		for _, resource := range zone.Resources {
			available[corev1.ResourceName(resource.Name)] = resource.Available
		}
		for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
			if _, told := available[name]; !told {
				return nil
			}
		}
		free = append(free, cluster.ResourcesOf(available))
	}
	return free
}
