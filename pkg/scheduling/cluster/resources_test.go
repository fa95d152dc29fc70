package cluster

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

const gpu = corev1.ResourceName("example.com/gpu")

func TestResourcesOf(t *testing.T) {
	list := corev1.ResourceList{
		corev1.ResourceCPU:    resource.MustParse("1500m"),
		corev1.ResourceMemory: resource.MustParse("2Gi"),
		gpu:                   resource.MustParse("3"),
	}
	r := ResourcesOf(list)
	want := Resources{MilliCPU: 1500, Memory: 2 << 30, Scalar: map[corev1.ResourceName]int64{gpu: 3}}
	if diff := cmp.Diff(want, r); diff != "" {
		t.Errorf("ResourcesOf (-want +got):\n%s", diff)
	}
}

func TestAddAndSubKeepTheirOperands(t *testing.T) {
	a := Resources{MilliCPU: 100, Memory: 10, Scalar: map[corev1.ResourceName]int64{gpu: 1}}
	b := Resources{MilliCPU: 30, Memory: 4, Scalar: map[corev1.ResourceName]int64{gpu: 2}}
	if diff := cmp.Diff(a, a.Add(b).Sub(b)); diff != "" {
		t.Errorf("a + b - b (-a +got):\n%s", diff)
	}
	if a.Scalar[gpu] != 1 || b.Scalar[gpu] != 2 {
		t.Errorf("operands were changed: %v, %v", a, b)
	}
}

func TestFitsIn(t *testing.T) {
	scalar := func(n int64) map[corev1.ResourceName]int64 { return map[corev1.ResourceName]int64{gpu: n} }
	tests := []struct {
		name    string
		r, room Resources
		want    bool
	}{
		{"nothing in nothing", Resources{}, Resources{}, true},
		{"exactly", Resources{MilliCPU: 5, Memory: 5, Scalar: scalar(1)}, Resources{MilliCPU: 5, Memory: 5, Scalar: scalar(1)}, true},
		{"too much CPU", Resources{MilliCPU: 6}, Resources{MilliCPU: 5}, false},
		{"too much memory", Resources{Memory: 6}, Resources{MilliCPU: 5, Memory: 5}, false},
		{"too many devices", Resources{Scalar: scalar(2)}, Resources{Scalar: scalar(1)}, false},
		{"no such device", Resources{Scalar: scalar(1)}, Resources{MilliCPU: 5}, false},
		{"none of a device that is not there", Resources{Scalar: scalar(0)}, Resources{}, true},
		{"nothing in overdrawn room", Resources{}, Resources{MilliCPU: -1}, true},
		{"something in overdrawn room", Resources{MilliCPU: 1}, Resources{MilliCPU: -1}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.r.FitsIn(tt.room); got != tt.want {
				t.Errorf("FitsIn = %t, want %t", got, tt.want)
			}
		})
	}
}
