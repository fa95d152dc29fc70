package checkpointvolume

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
)

const (
	// undoTimeout bounds the requests of Unreserve, which the scheduler waits for.
	undoTimeout = 10 * time.Second

	attachStateKey fwk.StateKey = Name + "/attachment"
)

// attachmentID names one attachment, and no later one of the same name.
type attachmentID struct {
	name string
	uid  types.UID
}

// madeAttachments are the attachments that this scheduling cycle made.
type madeAttachments []attachmentID

func (m madeAttachments) Clone() fwk.StateData { return m }

// attachFailure is an attach that failed for a reason that lies with the node.
type attachFailure struct {
	claim                 types.NamespacedName
	node, volume, message string
}

func (f *attachFailure) Error() string {
	return fmt.Sprintf("attaching volume %q to node %q: %s", f.volume, f.node, f.message)
}

// attachmentName is the name that the attach/detach controller gives the
// attachment (getAttachmentName in k8s.io/kubernetes/pkg/volume/csi), so that
// it finds ours when the pod is bound and takes it over.
func attachmentName(volume *corev1.PersistentVolume, node string) string {
	sum := sha256.Sum256([]byte(volume.Spec.CSI.VolumeHandle + volume.Spec.CSI.Driver + node))
	return fmt.Sprintf("csi-%x", sum)
}

// attach makes sure that there is an attachment of each volume, and waits until
// all are attached. What it made is written to state, for Unreserve.
func (p *Plugin) attach(ctx context.Context, state fwk.CycleState, pod *corev1.Pod, needed []attachable, node string) error {
	attaching, cancel := context.WithTimeout(ctx, p.attachTimeout)
	defer cancel()
	ids := make([]attachmentID, len(needed))
	for i, volume := range needed {
		wanted := newAttachment(pod, volume.volume, node)
		uid, err := p.ensureAttachment(attaching, state, pod, wanted)
		if err != nil {
			return fmt.Errorf("creating attachment %q: %w", wanted.Name, err)
		}
		ids[i] = attachmentID{name: wanted.Name, uid: uid}
	}
	for i, volume := range needed {
		message, err := p.waitAttached(attaching, pod, ids[i])
		if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
			message, err = fmt.Sprintf("not attached within %v", p.attachTimeout), nil
		}
		if err != nil {
			return err
		}
		if message != "" {
			return &attachFailure{claim: volume.claim, node: node, volume: volume.volume.Name, message: message}
		}
	}
	return nil
}

// waitAttached returns what the attacher said when it failed.
func (p *Plugin) waitAttached(ctx context.Context, pod *corev1.Pod, id attachmentID) (failure string, err error) {
	err = p.waitUntil(ctx, pod, func() (bool, error) {
		attachment, err := p.attachment(ctx, id.name, id.uid)
		switch {
		case apierrors.IsNotFound(err) || err == nil && attachment.DeletionTimestamp != nil:
			return false, fmt.Errorf("attachment %q was removed by another client", id.name)
		case err != nil:
			return false, err
		case attachment.Status.AttachError != nil && !attachment.Status.Attached:
			failure = attachment.Status.AttachError.Message
			return true, nil
		}
		return attachment.Status.Attached, nil
	})
	return failure, err
}

func newAttachment(pod *corev1.Pod, volume *corev1.PersistentVolume, node string) *storagev1.VolumeAttachment {
	return &storagev1.VolumeAttachment{
		ObjectMeta: metav1.ObjectMeta{
			Name:        attachmentName(volume, node),
			Annotations: map[string]string{attachedForAnnotation: ownerOf(pod).String()},
		},
		Spec: storagev1.VolumeAttachmentSpec{
			Attacher: volume.Spec.CSI.Driver,
			NodeName: node,
			Source:   storagev1.VolumeAttachmentSource{PersistentVolumeName: &volume.Name},
		},
	}
}

// ensureAttachment creates the attachment, or takes the one that is there, and
// returns its UID. One that is being deleted is waited for.
func (p *Plugin) ensureAttachment(ctx context.Context, state fwk.CycleState, pod *corev1.Pod, wanted *storagev1.VolumeAttachment) (types.UID, error) {
	var uid types.UID
	api := p.client.StorageV1().VolumeAttachments()
	err := p.waitUntil(ctx, pod, func() (bool, error) {
		attachment, err := api.Create(ctx, wanted, metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) {
			attachment, err = api.Get(ctx, wanted.Name, metav1.GetOptions{})
			if apierrors.IsNotFound(err) {
				return false, nil
			}
		}
		if err != nil {
			return false, err
		}
		if attachment.DeletionTimestamp != nil {
			return false, nil
		}
		uid = attachment.UID
		// One left by an earlier attempt for this pod is ours to undo as well.
		if isMadeFor(pod, attachment) {
			recordAttachment(state, attachmentID{name: attachment.Name, uid: uid})
		}
		return true, nil
	})
	return uid, err
}

// attachment reads from the cache. Where that lags behind, and still lacks the
// attachment or holds an earlier one of the same name, the API server is asked.
func (p *Plugin) attachment(ctx context.Context, name string, uid types.UID) (*storagev1.VolumeAttachment, error) {
	cached, err := p.attachments.Get(name)
	if err == nil && cached.UID == uid || ignoreNotFound(err) != nil {
		return cached, err
	}
	current, err := p.client.StorageV1().VolumeAttachments().Get(ctx, name, metav1.GetOptions{})
	if err == nil && current.UID != uid {
		return nil, apierrors.NewNotFound(storagev1.Resource("volumeattachments"), name)
	}
	return current, err
}

func recordAttachment(state fwk.CycleState, id attachmentID) {
	var made madeAttachments
	if data, err := state.Read(attachStateKey); err == nil {
		made = data.(madeAttachments)
	}
	state.Write(attachStateKey, append(made, id))
}

// undoAttachments deletes the attachments that this cycle made, unless the pod
// was bound after all: an answer of the API server may have been lost.
func (p *Plugin) undoAttachments(ctx context.Context, state fwk.CycleState, pod *corev1.Pod, node string) {
	data, err := state.Read(attachStateKey)
	if err != nil {
		return
	}
	state.Delete(attachStateKey)
	logger := klog.LoggerWithValues(klog.FromContext(ctx), "pod", klog.KObj(pod), "node", node)
	// The cycle may have ended because its context did.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	current, err := p.client.CoreV1().Pods(pod.Namespace).Get(ctx, pod.Name, metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		logger.Error(err, "Attachments are kept, since it is unknown whether the pod was bound")
		return
	}
	if err == nil && current.UID == pod.UID && current.Spec.NodeName == node {
		return
	}
	for _, made := range data.(madeAttachments) {
		if err := p.deleteAttachment(ctx, made.name, made.uid); err != nil {
			logger.Error(err, "Attachment could not be removed", "attachment", made.name)
		}
	}
}

func (p *Plugin) deleteAttachment(ctx context.Context, name string, uid types.UID) error {
	err := p.client.StorageV1().VolumeAttachments().Delete(ctx, name, metav1.DeleteOptions{
		Preconditions: &metav1.Preconditions{UID: &uid},
	})
	if ignoreNotFound(err) != nil {
		return fmt.Errorf("deleting attachment %q: %w", name, err)
	}
	return nil
}
