package observe

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"
	metricsfake "k8s.io/metrics/pkg/client/clientset/versioned/fake"
	clocktesting "k8s.io/utils/clock/testing"
	controllerfake "sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/scheduling/cluster"
)

// A metrics API that is absent lets requests stand in. One that is down adds
// nothing, and one that refuses us must be seen.
func TestWhatTheMetricsAPIAnswers(t *testing.T) {
	nodes := schema.GroupResource{Group: "metrics.k8s.io", Resource: "nodes"}
	for name, tt := range map[string]struct {
		err      error
		measured int
		source   string
		fails    bool
	}{
		"measurements": {nil, 1, "", false},
		"not there":    {apierrors.NewNotFound(nodes, ""), 0, cluster.SourceRequests, false},
		"down":         {apierrors.NewServiceUnavailable("the backend is down"), 0, "", false},
		"forbidden":    {apierrors.NewForbidden(nodes, "", nil), 0, "", true},
	} {
		t.Run(name, func(t *testing.T) {
			metrics := metricsfake.NewSimpleClientset()
			metrics.PrependReactor("list", "nodes", func(clienttesting.Action) (bool, runtime.Object, error) {
				return true, &metricsv1beta1.NodeMetricsList{Items: []metricsv1beta1.NodeMetrics{{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}}}, tt.err
			})
			scheme := runtime.NewScheme()
			if err := v1alpha1.AddToScheme(scheme); err != nil {
				t.Fatal(err)
			}
			factory := informers.NewSharedInformerFactory(fake.NewClientset(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}), 0)
			observer := NewObserver(factory, controllerfake.NewClientBuilder().WithScheme(scheme).Build(), metrics.MetricsV1beta1(), clocktesting.NewFakePassiveClock(now))
			factory.Start(t.Context().Done())
			factory.WaitForCacheSync(t.Context().Done())
			observation, err := observer.Observe(t.Context())
			if (err != nil) != tt.fails {
				t.Fatalf("error %v", err)
			}
			if err == nil && (len(observation.NodeMetrics) != tt.measured || observation.Source != tt.source || len(observation.Nodes) != 1 || !observation.At.Equal(now)) {
				t.Errorf("%d measurements, source %q, %d nodes at %s", len(observation.NodeMetrics), observation.Source, len(observation.Nodes), observation.At)
			}
		})
	}
}

// Where there is a Prometheus, it is asked alone.
func TestObserverAsksPrometheusInstead(t *testing.T) {
	metrics := metricsfake.NewSimpleClientset()
	metrics.PrependReactor("list", "*", func(clienttesting.Action) (bool, runtime.Object, error) {
		t.Error("the metrics API was asked")
		return true, &metricsv1beta1.NodeMetricsList{}, nil
	})
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	factory := informers.NewSharedInformerFactory(fake.NewClientset(), 0)
	observer := NewObserver(factory, controllerfake.NewClientBuilder().WithScheme(scheme).Build(), metrics.MetricsV1beta1(),
		clocktesting.NewFakePassiveClock(now.Add(time.Hour)))
	prometheus, _ := newTestPrometheus(t, "")
	observer.MeasureWith(prometheus)
	observation, err := observer.Observe(t.Context())
	if err != nil || len(observation.NodeMetrics) != 11 {
		t.Errorf("%v, %d measurements", err, len(observation.NodeMetrics))
	}
}

// The class of a volume says for all of its volumes that every node has the same path.
func TestObserverReadsWhatClassesSayOfTheirVolumes(t *testing.T) {
	claim := fixture.MakeClaim("data", corev1.ReadWriteOnce)
	volume := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: claim.Spec.VolumeName}, Spec: corev1.PersistentVolumeSpec{StorageClassName: "shared"}}
	class := &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "shared", Annotations: map[string]string{v1alpha1.SharedPathAnnotation: "true"}}}
	factory := informers.NewSharedInformerFactory(fake.NewClientset(claim, volume, class), 0)
	observer := NewObserver(factory, nil, nil, clocktesting.NewFakePassiveClock(now))
	factory.Start(t.Context().Done())
	factory.WaitForCacheSync(t.Context().Done())
	if _, got := observer.claimLookup("default")("data"); got == nil || got.Annotations[v1alpha1.SharedPathAnnotation] != "true" {
		t.Errorf("volume %+v", got)
	}
}
