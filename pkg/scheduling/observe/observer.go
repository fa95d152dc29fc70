package observe

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	corelisters "k8s.io/client-go/listers/core/v1"
	policylisters "k8s.io/client-go/listers/policy/v1"
	storagelisters "k8s.io/client-go/listers/storage/v1"
	"k8s.io/klog/v2"
	metricsclient "k8s.io/metrics/pkg/client/clientset/versioned/typed/metrics/v1beta1"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods/containers"
	"github.com/ai-storage/orchestrator/pkg/scheduling/cluster"
)

// Observer reads a cluster: nodes, pods, their owners and disruption budgets from informers,
// migrations past every cache, since budgets are counted from them,
// measurements from the metrics API or from Prometheus, and NUMA nodes when asked to.
type Observer struct {
	nodes      corelisters.NodeLister
	pods       corelisters.PodLister
	budgets    policylisters.PodDisruptionBudgetLister
	claims     corelisters.PersistentVolumeClaimLister
	volumes    corelisters.PersistentVolumeLister
	classes    storagelisters.StorageClassLister
	live       client.Reader
	metrics    metricsclient.MetricsV1beta1Interface
	prometheus *Prometheus
	clock      clock.PassiveClock
	// followsTopology reports whether anything asks for NUMA nodes.
	followsTopology bool
	owners          ownerListers
}

// NewObserver registers its informers with the factory, which the caller starts.
// The reader asks the API server itself.
func NewObserver(factory informers.SharedInformerFactory, live client.Reader, metrics metricsclient.MetricsV1beta1Interface, clock clock.PassiveClock) *Observer {
	return &Observer{
		nodes:   factory.Core().V1().Nodes().Lister(),
		pods:    factory.Core().V1().Pods().Lister(),
		budgets: factory.Policy().V1().PodDisruptionBudgets().Lister(),
		claims:  factory.Core().V1().PersistentVolumeClaims().Lister(),
		volumes: factory.Core().V1().PersistentVolumes().Lister(),
		classes: factory.Storage().V1().StorageClasses().Lister(),
		live:    live,
		metrics: metrics,
		clock:   clock,
		owners:  newOwnerListers(factory),
	}
}

// MeasureWith asks Prometheus from now on, and not the metrics API.
func (o *Observer) MeasureWith(prometheus *Prometheus) { o.prometheus = prometheus }

// Observe reads everything once. In a cluster without a metrics API, requests
// stand in for measurements. A source of measurements that is down for a while
// adds none to the observation, which is no reason to plan by other figures.
func (o *Observer) Observe(ctx context.Context) (*Observation, error) {
	observation := &Observation{Claims: o.claimLookup, Owner: o.owners.owner}
	var err error
	if observation.Nodes, err = o.nodes.List(labels.Everything()); err != nil {
		return nil, fmt.Errorf("listing nodes: %w", err)
	}
	if observation.Pods, err = o.pods.List(labels.Everything()); err != nil {
		return nil, fmt.Errorf("listing pods: %w", err)
	}
	if observation.Budgets, err = o.budgets.List(labels.Everything()); err != nil {
		return nil, fmt.Errorf("listing pod disruption budgets: %w", err)
	}
	migrations := &v1alpha1.PodMigrationList{}
	if err := o.live.List(ctx, migrations); err != nil {
		return nil, fmt.Errorf("listing migrations: %w", err)
	}
	observation.Migrations = migrations.Items
	if o.followsTopology {
		if err := o.readTopology(ctx, observation); err != nil {
			return nil, err
		}
	}
	observation.At = o.clock.Now()
	if o.prometheus != nil {
		o.prometheus.Read(ctx, observation)
		return observation, nil
	}
	if err := o.readMetrics(ctx, observation); err != nil {
		return nil, err
	}
	observation.At = o.clock.Now()
	return observation, nil
}

// claimLookup finds claims in the informers; their listers fail only where
// nothing is found.
func (o *Observer) claimLookup(namespace string) containers.ClaimLookup {
	return func(name string) (*corev1.PersistentVolumeClaim, *corev1.PersistentVolume) {
		claim, err := o.claims.PersistentVolumeClaims(namespace).Get(name)
		if err != nil {
			return nil, nil
		}
		volume, err := o.volumes.Get(claim.Spec.VolumeName)
		if err != nil {
			return claim, nil
		}
		class, err := o.classes.Get(volume.Spec.StorageClassName)
		if err != nil {
			return claim, volume
		}
		return claim, containers.WithSharedPath(volume, class)
	}
}

func (o *Observer) readMetrics(ctx context.Context, observation *Observation) error {
	nodes, err := o.metrics.NodeMetricses().List(ctx, metav1.ListOptions{})
	if apierrors.IsNotFound(err) {
		klog.FromContext(ctx).Info("The cluster has no metrics API, requests stand in for use", "err", err)
		observation.Source = cluster.SourceRequests
		return nil
	}
	// A missing right, unlike an outage, does not end by itself: it must be seen.
	if apierrors.IsServiceUnavailable(err) {
		klog.FromContext(ctx).Info("The metrics API does not answer", "err", err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading node metrics: %w", err)
	}
	pods, err := o.metrics.PodMetricses(metav1.NamespaceAll).List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("reading pod metrics: %w", err)
	}
	observation.NodeMetrics, observation.PodMetrics = nodes.Items, pods.Items
	return nil
}
