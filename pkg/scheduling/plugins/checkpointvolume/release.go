package checkpointvolume

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ai-storage/orchestrator/pkg/pods"
)

// waitReleased waits until no other node has the volume: no pod there uses it,
// and it is attached nowhere else. Pods count too, since a volume that nobody
// has to attach is free when the kubelet has unmounted it, which it does before
// the pod is gone from the API.
func (p *Plugin) waitReleased(ctx context.Context, pod *corev1.Pod, needed attachable, node string) error {
	var holder string
	err := p.waitUntil(ctx, pod, func() (bool, error) {
		user, err := p.userElsewhere(needed.claim, node)
		if err != nil {
			return false, err
		}
		if user != nil {
			holder = fmt.Sprintf("claim %q is still used by pod %q on node %q", needed.claim.Name, user.Name, user.Spec.NodeName)
			return false, nil
		}
		elsewhere, err := p.attachmentsElsewhere(needed.volume, node)
		if err != nil || len(elsewhere) == 0 {
			return err == nil, err
		}
		holder = fmt.Sprintf("volume %q is still attached to node %q", needed.volume.Name, elsewhere[0].Spec.NodeName)
		for _, attachment := range elsewhere {
			if err := p.removeLeftover(ctx, pod, attachment, needed.volume); err != nil {
				return false, err
			}
		}
		return false, nil
	})
	if err != nil && holder != "" {
		return fmt.Errorf("%s: %w", holder, err)
	}
	return err
}

// userElsewhere finds a pod that works with the claim on another node.
func (p *Plugin) userElsewhere(claim types.NamespacedName, node string) (*corev1.Pod, error) {
	all, err := p.pods.Pods(claim.Namespace).List(labels.Everything())
	if err != nil {
		return nil, fmt.Errorf("listing pods: %w", err)
	}
	for _, pod := range all {
		if pods.HoldsPlace(pod) && pod.Spec.NodeName != node && usesClaim(pod, claim) {
			return pod, nil
		}
	}
	return nil, nil
}

func (p *Plugin) attachmentsElsewhere(volume *corev1.PersistentVolume, node string) ([]*storagev1.VolumeAttachment, error) {
	all, err := p.attachments.List(labels.Everything())
	if err != nil {
		return nil, fmt.Errorf("listing volume attachments: %w", err)
	}
	var elsewhere []*storagev1.VolumeAttachment
	for _, attachment := range all {
		source := attachment.Spec.Source.PersistentVolumeName
		if source != nil && *source == volume.Name && attachment.Spec.NodeName != node {
			elsewhere = append(elsewhere, attachment)
		}
	}
	return elsewhere, nil
}

// removeLeftover deletes an attachment that was made for this very pod on a
// node that it did not come to, as a scheduler that crashed leaves behind. The
// attach/detach controller does not know of it and would never remove it.
func (p *Plugin) removeLeftover(ctx context.Context, pod *corev1.Pod, attachment *storagev1.VolumeAttachment, volume *corev1.PersistentVolume) error {
	if !isMadeFor(pod, attachment) || attachment.DeletionTimestamp != nil {
		return nil
	}
	used, err := p.isUsedOn(volume, attachment.Spec.NodeName)
	if err != nil || used {
		return err
	}
	return p.deleteAttachment(ctx, attachment.Name, attachment.UID)
}

func isMadeFor(pod *corev1.Pod, attachment *storagev1.VolumeAttachment) bool {
	owner, ours := parseOwner(attachment)
	return ours && owner == ownerOf(pod)
}
