package simulation

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"
	schedulerconfig "k8s.io/kubernetes/pkg/scheduler/apis/config"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	schedulerplugins "k8s.io/kubernetes/pkg/scheduler/framework/plugins"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/nodevolumelimits"
	frameworkruntime "k8s.io/kubernetes/pkg/scheduler/framework/runtime"
	"k8s.io/kubernetes/pkg/scheduler/metrics"

	"github.com/ai-storage/orchestrator/pkg/apis/config"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/scheduling/cluster"
	"github.com/ai-storage/orchestrator/pkg/scheduling/plugins"
)

// Simulator is the framework of our profile. Sessions share it.
type Simulator struct {
	framework framework.Framework
	claims    corelisters.PersistentVolumeClaimLister

	// follows reports that PreFilter need not be asked anew after every change.
	follows bool

	// mu keeps sessions apart: the plugins were made with one lister, which
	// shows them the session at work.
	mu     sync.Mutex
	lister *lister

	// baseMu guards base.
	baseMu sync.Mutex
	base   base
}

// nodes are those of a snapshot, in order, as the framework sees them.
func (s *Simulator) nodes(snapshot *cluster.Snapshot) []*baseNode {
	s.baseMu.Lock()
	defer s.baseMu.Unlock()
	return s.base.update(snapshot)
}

// New builds the framework of the profile ai-storage-scheduler as
// k8s.io/kubernetes/pkg/scheduler does. It registers informers with the
// factory, which the caller starts afterwards and lets sync before the first
// session. What runs in the background ends with ctx. The kubeConfig is for
// plugins of the catalogue that make clients of their own.
func New(ctx context.Context, cfg *schedulerconfig.KubeSchedulerConfiguration, client kubernetes.Interface, informers informers.SharedInformerFactory, kubeConfig *rest.Config) (*Simulator, error) {
	profile, err := simulatedProfile(cfg)
	if err != nil {
		return nil, err
	}
	registry := schedulerplugins.NewInTreeRegistry()
	if err := registry.Merge(plugins.Registry()); err != nil {
		return nil, fmt.Errorf("merging plugins: %w", err)
	}
	devices, err := newDeviceManager(ctx, client, informers)
	if err != nil {
		return nil, err
	}
	metrics.Register()
	lister := &lister{}
	built, err := frameworkruntime.NewFramework(ctx, registry, profile,
		frameworkruntime.WithComponentConfigVersion(cfg.APIVersion),
		frameworkruntime.WithClientSet(client),
		frameworkruntime.WithKubeConfig(kubeConfig),
		frameworkruntime.WithInformerFactory(informers),
		frameworkruntime.WithEventRecorder(&events.FakeRecorder{}),
		frameworkruntime.WithSharedDRAManager(devices),
		frameworkruntime.WithSharedCSIManager(nodevolumelimits.NewCSIManager(informers.Storage().V1().CSINodes().Lister())),
		frameworkruntime.WithSnapshotSharedLister(lister),
		frameworkruntime.WithParallelism(int(cfg.Parallelism)),
		frameworkruntime.WithPodNominator(noNominations{}),
		frameworkruntime.WithWaitingPods(frameworkruntime.NewWaitingPodsMap()),
		frameworkruntime.WithWorkloadManager(newWorkloadManager()),
	)
	if err != nil {
		return nil, fmt.Errorf("building the framework of profile %q: %w", profile.SchedulerName, err)
	}
	return &Simulator{
		framework: built,
		follows:   followsChanges(built),
		claims:    informers.Core().V1().PersistentVolumeClaims().Lister(),
		lister:    lister,
	}, nil
}

// simulatedProfile is our profile without the plugin that only scores: a
// simulation does not, and the plugin would poll the metrics API.
func simulatedProfile(cfg *schedulerconfig.KubeSchedulerConfiguration) (*schedulerconfig.KubeSchedulerProfile, error) {
	for i := range cfg.Profiles {
		if cfg.Profiles[i].SchedulerName != v1alpha1.SchedulerName {
			continue
		}
		profile := cfg.Profiles[i].DeepCopy()
		if profile.Plugins == nil {
			return nil, fmt.Errorf("profile %q has no plugins: its defaults were not filled in", profile.SchedulerName)
		}
		for _, set := range []*schedulerconfig.PluginSet{&profile.Plugins.MultiPoint, &profile.Plugins.PreScore, &profile.Plugins.Score} {
			set.Enabled = slices.DeleteFunc(set.Enabled, func(p schedulerconfig.Plugin) bool { return p.Name == config.RebalanceName })
		}
		return profile, nil
	}
	return nil, fmt.Errorf("no profile has schedulerName %q", v1alpha1.SchedulerName)
}
