package observe

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"
	topologyv1alpha2 "github.com/k8stopologyawareschedwg/noderesourcetopology-api/pkg/apis/topology/v1alpha2"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	controllerfake "sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/ai-storage/orchestrator/pkg/scheduling/cluster"
)

func zoneOf(name, kind string, available ...string) topologyv1alpha2.Zone {
	zone := topologyv1alpha2.Zone{Name: name, Type: kind}
	for i := 0; i < len(available); i += 2 {
		zone.Resources = append(zone.Resources, topologyv1alpha2.ResourceInfo{
			Name: available[i], Allocatable: resource.MustParse("1000"), Available: resource.MustParse(available[i+1]),
		})
	}
	return zone
}

func TestFreeInZones(t *testing.T) {
	small := zoneOf("node-0", "Node", "cpu", "1500m", "memory", "1Ki", "nvidia.com/gpu", "2")
	large := zoneOf("node-1", "Node", "cpu", "8", "memory", "2Ki")
	inSmall := cluster.Resources{MilliCPU: 1500, Memory: 1024, Scalar: map[corev1.ResourceName]int64{"nvidia.com/gpu": 2}}
	inLarge := cluster.Resources{MilliCPU: 8000, Memory: 2048}
	tenth := large
	tenth.Name = "node-10"
	for name, test := range map[string]struct {
		zones topologyv1alpha2.ZoneList
		want  []cluster.Resources
	}{
		"by name":              {topologyv1alpha2.ZoneList{large, small}, []cluster.Resources{inSmall, inLarge}},
		"ten comes last":       {topologyv1alpha2.ZoneList{tenth, small}, []cluster.Resources{inSmall, inLarge}},
		"sockets do not count": {topologyv1alpha2.ZoneList{zoneOf("socket-0", "Socket", "cpu", "9"), small}, []cluster.Resources{inSmall}},
		"memory not reported":  {topologyv1alpha2.ZoneList{small, zoneOf("node-1", "Node", "cpu", "8")}, nil},
		"nothing is reported":  {nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, freeInZones(test.zones)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// A cluster without the resource has no NUMA nodes; a missing right must be seen.
func TestReadTopology(t *testing.T) {
	kind := schema.GroupKind{Group: "topology.node.k8s.io", Kind: "NodeResourceTopology"}
	resource := schema.GroupResource{Group: kind.Group, Resource: "noderesourcetopologies"}
	for name, test := range map[string]struct {
		err   error
		zones int
		fails bool
	}{
		"told":        {nil, 2, false},
		"not served":  {&meta.NoKindMatchError{GroupKind: kind}, 0, false},
		"just gone":   {apierrors.NewNotFound(resource, ""), 0, false},
		"not allowed": {apierrors.NewForbidden(resource, "", nil), 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			scheme := runtime.NewScheme()
			if err := topologyv1alpha2.AddToScheme(scheme); err != nil {
				t.Fatal(err)
			}
			live := controllerfake.NewClientBuilder().WithScheme(scheme).WithObjects(&topologyv1alpha2.NodeResourceTopology{
				ObjectMeta: metav1.ObjectMeta{Name: "n1"},
				Zones:      topologyv1alpha2.ZoneList{zoneOf("node-0", "Node", "cpu", "1", "memory", "1"), zoneOf("node-1", "Node", "cpu", "2", "memory", "2")},
			}).WithInterceptorFuncs(interceptor.Funcs{List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, o ...client.ListOption) error {
				if test.err != nil {
					return test.err
				}
				return c.List(ctx, list, o...)
			}}).Build()
			observation := &Observation{Nodes: []*corev1.Node{{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}}}
			err := (&Observer{live: live}).readTopology(t.Context(), observation)
			if (err != nil) != test.fails {
				t.Fatalf("error %v", err)
			}
			if zones := Build(observation, testOptions()).Nodes[0].Zones; len(zones) != test.zones {
				t.Errorf("zones %v", zones)
			}
		})
	}
}
