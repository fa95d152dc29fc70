package reclaim

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// workers write to the API server at the same time.
const workers = 4

// Options of the controller.
type Options struct {
	// Pods is the informer of all pods. It may be started before or later.
	Pods coreinformers.PodInformer
	// Enabled allows to shrink. What was shrunk before is given back in any case.
	Enabled bool
	// SchedulerName of the pods that have opted in.
	SchedulerName string
	// Excluded says why the author of a pod does not want it to be touched; empty
	// when nothing is said against it.
	Excluded func(*corev1.Pod) string
	// Namespace limits what is heard of starts; empty hears of all.
	Namespace string
	// Registerer takes the metrics.
	Registerer prometheus.Registerer
}

// SetupWithManager adds the controller, which only the leader runs. Where the
// cluster cannot resize pods it logs that once and adds nothing: there, finished
// containers are left behind when a pod moves.
func SetupWithManager(ctx context.Context, mgr ctrl.Manager, o Options) error {
	discoveryClient, err := discovery.NewDiscoveryClientForConfigAndClient(mgr.GetConfig(), mgr.GetHTTPClient())
	if err != nil {
		return fmt.Errorf("making a discovery client: %w", err)
	}
	supported, err := canResize(discoveryClient)
	if err != nil {
		return fmt.Errorf("asking whether the cluster resizes pods: %w", err)
	}
	if !supported {
		ctrl.LoggerFrom(ctx).WithName("reclaim").Info("The cluster does not resize pods in place (Kubernetes 1.33 does): requests of finished containers come free when their pod moves")
		return nil
	}
	r := &reconciler{
		pods: o.Pods.Lister(), client: mgr.GetClient(), live: mgr.GetAPIReader(), recorder: mgr.GetEventRecorder("ai-storage-rebalancer"),
		enabled: o.Enabled, excluded: o.Excluded, schedulerName: o.SchedulerName, metrics: NewMetrics(o.Registerer),
	}
	kubeClient, err := kubernetes.NewForConfigAndClient(mgr.GetConfig(), mgr.GetHTTPClient())
	if err != nil {
		return fmt.Errorf("making a client for events: %w", err)
	}
	r.starts = newStarts(r.pods, kubeClient.CoreV1(), o.Namespace)
	if err := mgr.Add(r.starts); err != nil {
		return err
	}
	return ctrl.NewControllerManagedBy(mgr).
		Named("reclaim").
		WatchesRawSource(&source.Informer{
			Informer: o.Pods.Informer(), Handler: &handler.EnqueueRequestForObject{},
			Predicates: []predicate.Predicate{predicate.NewPredicateFuncs(r.concerns)},
		}).
		WatchesRawSource(source.Channel(r.starts.pods, &handler.EnqueueRequestForObject{})).
		WithOptions(controller.Options{MaxConcurrentReconciles: workers, RateLimiter: retries()}).
		Complete(r)
}

// retries is quick enough for a pod that waits, and does not press a server
// that is down.
func retries() workqueue.TypedRateLimiter[ctrl.Request] {
	return workqueue.NewTypedItemExponentialFailureRateLimiter[ctrl.Request](100*time.Millisecond, time.Minute)
}

// concerns keeps all pods out of the queue that are never resized.
func (r *reconciler) concerns(object client.Object) bool {
	pod, isPod := object.(*corev1.Pod)
	if !isPod || pod.Status.Phase != corev1.PodRunning {
		return false
	}
	return pod.Spec.SchedulerName == r.schedulerName || pod.Annotations[v1alpha1.ReclaimedAnnotation] != ""
}

// canResize reports whether the API has pods/resize.
func canResize(d discovery.ServerResourcesInterface) (bool, error) {
	list, err := d.ServerResourcesForGroupVersion("v1")
	if err != nil {
		return false, err
	}
	for _, resource := range list.APIResources {
		if resource.Name == "pods/resize" {
			return true, nil
		}
	}
	return false, nil
}

func (r *reconciler) get(key types.NamespacedName) (*corev1.Pod, error) {
	pod, err := r.pods.Pods(key.Namespace).Get(key.Name)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	return pod, err
}
