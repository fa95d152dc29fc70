package checkpointvolume

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	fwk "k8s.io/kube-scheduler/framework"
)

// Why a node is not taken. These are human-readable, in pod events.
const (
	ReasonSourceNode   = "node(s) are the source of the migration"
	ReasonAttachFailed = "node(s) failed to attach a volume of the pod lately"
	ReasonNoDriver     = "node(s) do not run the CSI driver of a volume of the pod"
	// ReasonNotForReplacement begins what the filters say of a replacement.
	ReasonNotForReplacement = "node(s) would not take the replacement"
)

const filterStateKey fwk.StateKey = Name + "/filter"

// filterState is what Filter asks of every node. What it has of other pods is what they
// will be after the migration, so that clones may share it.
type filterState struct {
	sourceNode string
	claims     []claimNeeds
	// imagined is the replacement that a placeholder holds a place for; nil for other pods.
	imagined *imagined
}

// claimNeeds is what a claim asks of a node.
type claimNeeds struct {
	key types.NamespacedName
	// driver is the CSI driver of the volume; empty for other volumes.
	driver string
}

func (s *filterState) Clone() fwk.StateData { return s }

// PreFilter looks the claims up once for all nodes.
func (p *Plugin) PreFilter(ctx context.Context, state fwk.CycleState, pod *corev1.Pod, _ []fwk.NodeInfo) (*fwk.PreFilterResult, *fwk.Status) {
	if !isConcerned(pod) {
		return nil, fwk.NewStatus(fwk.Skip)
	}
	s := &filterState{sourceNode: sourceNode(pod)}
	for _, key := range claimsOf(pod) {
		driver, err := p.driverOf(key)
		if err != nil {
			return nil, fwk.AsStatus(err)
		}
		s.claims = append(s.claims, claimNeeds{key: key, driver: driver})
	}
	if isPlaceholder(pod) {
		var status *fwk.Status
		if s.imagined, status = p.imagine(ctx, pod); !status.IsSuccess() {
			return nil, status
		}
	}
	state.Write(filterStateKey, s)
	return nil, nil
}

// PreFilterExtensions returns nil: other pods do not change the answer.
func (p *Plugin) PreFilterExtensions() fwk.PreFilterExtensions { return nil }

// Filter keeps the pod off its source node, off nodes that failed to attach one
// of its volumes, and off nodes that do not run a volume's driver. Where a
// volume can be reached at all is checked by VolumeBinding and VolumeZone, and
// whether the node can attach it by NodeVolumeLimits. A placeholder is kept off nodes that
// its replacement could not use. The node that is nominated
// for the pod is judged like any other: what is wrong with it now would be wrong
// after binding too.
func (p *Plugin) Filter(ctx context.Context, state fwk.CycleState, pod *corev1.Pod, info fwk.NodeInfo) *fwk.Status {
	data, err := state.Read(filterStateKey)
	if err != nil {
		return fwk.AsStatus(fmt.Errorf("reading what PreFilter found: %w", err))
	}
	s := data.(*filterState)
	node := info.Node().Name
	if node == s.sourceNode {
		return fwk.NewStatus(fwk.UnschedulableAndUnresolvable, ReasonSourceNode)
	}
	for _, claim := range s.claims {
		if p.failed.isOut(attachKey{claim: claim.key, node: node}, pod) {
			return fwk.NewStatus(fwk.UnschedulableAndUnresolvable, ReasonAttachFailed)
		}
		if claim.driver == "" {
			continue
		}
		runs, err := p.runsDriver(node, claim.driver)
		if err != nil {
			return fwk.AsStatus(err)
		}
		if !runs {
			return fwk.NewStatus(fwk.UnschedulableAndUnresolvable, ReasonNoDriver)
		}
	}
	if s.imagined != nil {
		return p.judge(ctx, s.imagined, info)
	}
	return nil
}

// driverOf returns the CSI driver of a claim: that of its volume, or the one
// that would provision it. It is empty for volumes that are not CSI, and for a
// claim that is not there, which VolumeBinding reports.
func (p *Plugin) driverOf(key types.NamespacedName) (string, error) {
	claim, err := p.claims.PersistentVolumeClaims(key.Namespace).Get(key.Name)
	if err != nil {
		return "", ignoreNotFound(err)
	}
	if claim.Spec.VolumeName != "" {
		volume, err := p.volumes.Get(claim.Spec.VolumeName)
		if err != nil || volume.Spec.CSI == nil {
			return "", ignoreNotFound(err)
		}
		return volume.Spec.CSI.Driver, nil
	}
	if claim.Spec.StorageClassName == nil {
		return "", nil
	}
	class, err := p.classes.Get(*claim.Spec.StorageClassName)
	if err != nil {
		return "", ignoreNotFound(err)
	}
	// A provisioner is a CSI driver when it is registered as one.
	if _, err := p.drivers.Get(class.Provisioner); err != nil {
		return "", ignoreNotFound(err)
	}
	return class.Provisioner, nil
}

func (p *Plugin) runsDriver(node, driver string) (bool, error) {
	csiNode, err := p.driversOnNode.Get(node)
	if err != nil {
		return false, ignoreNotFound(err)
	}
	return hasDriver(csiNode, driver), nil
}

func hasDriver(csiNode *storagev1.CSINode, driver string) bool {
	for i := range csiNode.Spec.Drivers {
		if csiNode.Spec.Drivers[i].Name == driver {
			return true
		}
	}
	return false
}

func ignoreNotFound(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
