package checkpointvolume

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

const (
	// attachedForAnnotation names the pod that an attachment was made for, as
	// namespace/name/uid. A scheduler that starts after a crash finds what the
	// last one left by it.
	attachedForAnnotation = v1alpha1.GroupName + "/attached-for"

	sweepInterval = time.Minute
	// sweepGrace is added to the time that a PreBind may take, before an
	// attachment counts as left behind.
	sweepGrace = time.Minute
)

// attachmentOwner is the pod that an attachment was made for.
type attachmentOwner struct {
	types.NamespacedName
	uid types.UID
}

func ownerOf(pod *corev1.Pod) attachmentOwner {
	return attachmentOwner{NamespacedName: types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name}, uid: pod.UID}
}

func (b attachmentOwner) String() string { return b.NamespacedName.String() + "/" + string(b.uid) }

func parseOwner(attachment *storagev1.VolumeAttachment) (attachmentOwner, bool) {
	parts := strings.Split(attachment.Annotations[attachedForAnnotation], "/")
	if len(parts) != 3 {
		return attachmentOwner{}, false
	}
	return attachmentOwner{NamespacedName: types.NamespacedName{Namespace: parts[0], Name: parts[1]}, uid: types.UID(parts[2])}, true
}

// sweep removes attachments that a scheduler made and did not undo, since it
// crashed. The attach/detach controller knows only those of pods that were bound.
func (p *Plugin) sweep(ctx context.Context) {
	logger := klog.FromContext(ctx)
	all, err := p.attachments.List(labels.Everything())
	if err != nil {
		logger.Error(err, "Attachments could not be listed")
		return
	}
	for _, attachment := range all {
		orphan, err := p.isOrphan(ctx, attachment)
		if err == nil && orphan {
			err = p.deleteAttachment(ctx, attachment.Name, attachment.UID)
		}
		if err != nil {
			logger.Error(err, "Attachment could not be checked or removed", "attachment", attachment.Name)
		} else if orphan {
			logger.Info("Removed an attachment that was left behind",
				"attachment", attachment.Name, "node", attachment.Spec.NodeName, "pod", attachment.Annotations[attachedForAnnotation])
		}
	}
}

// isOrphan reports whether an attachment of ours serves nobody. A pod that still
// waits for a node may come back to it, and cleans up by itself if it does not.
func (p *Plugin) isOrphan(ctx context.Context, attachment *storagev1.VolumeAttachment) (bool, error) {
	owner, ours := parseOwner(attachment)
	if !ours || attachment.DeletionTimestamp != nil || attachment.Spec.Source.PersistentVolumeName == nil {
		return false, nil
	}
	if p.clock.Since(attachment.CreationTimestamp.Time) < p.attachTimeout+sweepGrace {
		return false, nil
	}
	served := func(pod *corev1.Pod) bool {
		return pod.UID == owner.uid && (pod.Spec.NodeName == "" || pod.Spec.NodeName == attachment.Spec.NodeName)
	}
	// The cache may lag behind: it is believed only where nothing is removed.
	if cached, err := p.pods.Pods(owner.Namespace).Get(owner.Name); err == nil && served(cached) {
		return false, nil
	}
	pod, err := p.client.CoreV1().Pods(owner.Namespace).Get(ctx, owner.Name, metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return false, fmt.Errorf("reading pod %s: %w", owner.NamespacedName, err)
	}
	if err == nil && served(pod) {
		return false, nil
	}
	volume, err := p.volumes.Get(*attachment.Spec.Source.PersistentVolumeName)
	if err != nil {
		// A volume stays for as long as it is attached: it must be too new.
		return false, ignoreNotFound(err)
	}
	used, err := p.isUsedOn(volume, attachment.Spec.NodeName)
	return !used && err == nil, err
}

// isUsedOn reports whether pods, the kubelet or the attach/detach controller
// still have to do with the volume on the node.
func (p *Plugin) isUsedOn(volume *corev1.PersistentVolume, node string) (bool, error) {
	if ref := volume.Spec.ClaimRef; ref != nil {
		used, err := p.isClaimUsedOn(types.NamespacedName{Namespace: ref.Namespace, Name: ref.Name}, node)
		if used || err != nil {
			return used, err
		}
	}
	object, err := p.nodes.Get(node)
	if err != nil || volume.Spec.CSI == nil {
		return false, ignoreNotFound(err)
	}
	// The name that kubelet and controller write for a CSI volume
	// (GetUniqueVolumeName in k8s.io/kubernetes/pkg/volume/util).
	name := corev1.UniqueVolumeName("kubernetes.io/csi/" + volume.Spec.CSI.Driver + "^" + volume.Spec.CSI.VolumeHandle)
	attached := slices.ContainsFunc(object.Status.VolumesAttached, func(a corev1.AttachedVolume) bool { return a.Name == name })
	return attached || slices.Contains(object.Status.VolumesInUse, name), nil
}

// isClaimUsedOn reports whether a pod on the node uses the claim. An attachment
// must not be taken from under it.
func (p *Plugin) isClaimUsedOn(claim types.NamespacedName, node string) (bool, error) {
	pods, err := p.pods.Pods(claim.Namespace).List(labels.Everything())
	if err != nil {
		return false, fmt.Errorf("listing pods: %w", err)
	}
	return slices.ContainsFunc(pods, func(pod *corev1.Pod) bool {
		return pod.Spec.NodeName == node && usesClaim(pod, claim)
	}), nil
}
