package checkpointvolume

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	storagelisters "k8s.io/client-go/listers/storage/v1"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/utils/clock"

	"github.com/ai-storage/orchestrator/pkg/apis/config"
	"github.com/ai-storage/orchestrator/pkg/apis/config/validation"
)

// Name of the plugin in a scheduler configuration.
const Name = config.CheckpointVolumeName

// pollInterval is the time between two looks at the caches while PreBind
// waits. It costs no API request.
const pollInterval = 200 * time.Millisecond

// Plugin brings the volumes of replacements to chosen nodes.
type Plugin struct {
	client        kubernetes.Interface
	clock         clock.PassiveClock
	pods          corelisters.PodLister
	nodes         corelisters.NodeLister
	claims        corelisters.PersistentVolumeClaimLister
	volumes       corelisters.PersistentVolumeLister
	classes       storagelisters.StorageClassLister
	attachments   storagelisters.VolumeAttachmentLister
	drivers       storagelisters.CSIDriverLister
	driversOnNode storagelisters.CSINodeLister

	attachTimeout time.Duration
	pollInterval  time.Duration
	failed        *failedNodes
	reserved      *reservations
	seals         *seals
	// nodeInfos and filters are those of the profile: what the scheduler sees of the nodes
	// in this cycle, and what it asks of each.
	nodeInfos func() fwk.NodeInfoLister
	filters   filters
	// startSweeping is called when the first pod gets a node, which happens in
	// the scheduler that leads, and nowhere else.
	startSweeping func()
}

var (
	_ fwk.PreEnqueuePlugin  = (*Plugin)(nil)
	_ fwk.PreFilterPlugin   = (*Plugin)(nil)
	_ fwk.FilterPlugin      = (*Plugin)(nil)
	_ fwk.PostFilterPlugin  = (*Plugin)(nil)
	_ fwk.ReservePlugin     = (*Plugin)(nil)
	_ fwk.PreBindPlugin     = (*Plugin)(nil)
	_ fwk.PostBindPlugin    = (*Plugin)(nil)
	_ fwk.SignPlugin        = (*Plugin)(nil)
	_ fwk.EnqueueExtensions = (*Plugin)(nil)
)

// New validates the arguments and returns the plugin. The scheduler itself
// validates the arguments of Kubernetes' plugins only.
func New(ctx context.Context, object runtime.Object, handle fwk.Handle) (fwk.Plugin, error) {
	args, ok := object.(*config.CheckpointVolumeArgs)
	if !ok {
		return nil, fmt.Errorf("want arguments of type CheckpointVolumeArgs, got %T", object)
	}
	if errs := validation.ValidateCheckpointVolumeArgs(nil, args); len(errs) > 0 {
		return nil, errs.ToAggregate()
	}
	filters, ok := handle.(filters)
	if !ok {
		return nil, fmt.Errorf("plugin %s needs to run the filters of its profile, which %T does not let it", Name, handle)
	}
	registerMetrics()
	activate := func(pods map[string]*corev1.Pod) {
		if ctx.Err() == nil {
			handle.Activate(klog.FromContext(ctx), pods)
		}
	}
	seals, err := newSeals(ctx, handle.KubeConfig(), activate)
	if err != nil {
		return nil, err
	}
	core := handle.SharedInformerFactory().Core().V1()
	storage := handle.SharedInformerFactory().Storage().V1()
	plugin := &Plugin{
		client:        handle.ClientSet(),
		clock:         clock.RealClock{},
		pods:          core.Pods().Lister(),
		nodes:         core.Nodes().Lister(),
		claims:        core.PersistentVolumeClaims().Lister(),
		volumes:       core.PersistentVolumes().Lister(),
		classes:       storage.StorageClasses().Lister(),
		attachments:   storage.VolumeAttachments().Lister(),
		drivers:       storage.CSIDrivers().Lister(),
		driversOnNode: storage.CSINodes().Lister(),
		attachTimeout: args.AttachTimeout.Duration,
		pollInterval:  pollInterval,
		failed:        newFailedNodes(clock.RealClock{}, args.FailedNodeBackoff.Duration, activate),
		reserved:      newReservations(activate),
		seals:         seals,
		nodeInfos:     func() fwk.NodeInfoLister { return handle.SnapshotSharedLister().NodeInfos() },
		filters:       filters,
	}
	plugin.startSweeping = sync.OnceFunc(func() {
		go wait.UntilWithContext(ctx, plugin.sweep, sweepInterval)
	})
	return plugin, nil
}

// Name returns the name of the plugin.
func (p *Plugin) Name() string { return Name }

// SignPod lets pods that the plugin has nothing to do with share a scheduling
// result (KEP-5598). A replacement is one of a kind: its nodes depend on its
// own past.
func (p *Plugin) SignPod(_ context.Context, pod *corev1.Pod) ([]fwk.SignFragment, *fwk.Status) {
	if isConcerned(pod) {
		return nil, fwk.NewStatus(fwk.Unschedulable, "the pod takes over from another one")
	}
	return nil, nil
}
