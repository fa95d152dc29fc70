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
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
)

const (
	// undoTimeout bounds the requests of Unreserve, which the scheduler waits for.
	undoTimeout = 10 * time.Second

	attachStateKey fwk.StateKey = Name + "/attachment"
)

// madeAttachment is the attachment that this scheduling cycle made.
type madeAttachment struct {
	name string
	uid  types.UID
}

func (m *madeAttachment) Clone() fwk.StateData { return m }

// attachFailure is an attach that failed for a reason that lies with the node.
type attachFailure struct {
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

// waitReleased waits until no other node has the volume.
func (p *Plugin) waitReleased(ctx context.Context, pod *corev1.Pod, volume *corev1.PersistentVolume, node string) error {
	var holder string
	err := p.waitUntil(ctx, pod, func() (bool, error) {
		elsewhere, err := p.attachmentsElsewhere(volume, node)
		if err != nil || len(elsewhere) == 0 {
			return err == nil, err
		}
		holder = elsewhere[0].Spec.NodeName
		for _, attachment := range elsewhere {
			if err := p.removeLeftover(ctx, pod, attachment, volume); err != nil {
				return false, err
			}
		}
		return false, nil
	})
	if err != nil && holder != "" {
		return fmt.Errorf("volume %q is still attached to node %q: %w", volume.Name, holder, err)
	}
	return err
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
	owner, ours := parseBeneficiary(attachment)
	return ours && owner == beneficiaryOf(pod)
}

// attach makes sure that an attachment exists and waits until it is attached.
// What it made is written to state, for Unreserve.
func (p *Plugin) attach(ctx context.Context, state fwk.CycleState, pod *corev1.Pod, volume *corev1.PersistentVolume, node string) error {
	ctx, cancel := context.WithTimeout(ctx, p.attachTimeout)
	defer cancel()
	wanted := newAttachment(pod, volume, node)
	uid, err := p.ensureAttachment(ctx, state, pod, wanted)
	if err != nil {
		return fmt.Errorf("creating attachment %q: %w", wanted.Name, err)
	}
	fail := func(message string) error {
		return &attachFailure{node: node, volume: volume.Name, message: message}
	}
	err = p.waitUntil(ctx, pod, func() (bool, error) {
		attachment, err := p.attachment(ctx, wanted.Name, uid)
		switch {
		case apierrors.IsNotFound(err) || err == nil && attachment.DeletionTimestamp != nil:
			return false, fmt.Errorf("attachment %q was removed by somebody else", wanted.Name)
		case err != nil:
			return false, err
		case attachment.Status.Attached:
			return true, nil
		case attachment.Status.AttachError != nil:
			return false, fail(attachment.Status.AttachError.Message)
		}
		return false, nil
	})
	if errors.Is(err, context.DeadlineExceeded) {
		return fail(fmt.Sprintf("not attached within %v", p.attachTimeout))
	}
	return err
}

func newAttachment(pod *corev1.Pod, volume *corev1.PersistentVolume, node string) *storagev1.VolumeAttachment {
	return &storagev1.VolumeAttachment{
		ObjectMeta: metav1.ObjectMeta{
			Name:        attachmentName(volume, node),
			Annotations: map[string]string{attachedForAnnotation: beneficiaryOf(pod).String()},
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
			state.Write(attachStateKey, &madeAttachment{name: attachment.Name, uid: uid})
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

// undoAttachment deletes the attachment that this cycle made, unless the pod
// was bound after all: an answer of the API server may have been lost.
func (p *Plugin) undoAttachment(ctx context.Context, state fwk.CycleState, pod *corev1.Pod, node string) {
	data, err := state.Read(attachStateKey)
	if err != nil {
		return
	}
	state.Delete(attachStateKey)
	made := data.(*madeAttachment)
	logger := klog.LoggerWithValues(klog.FromContext(ctx), "pod", klog.KObj(pod), "node", node, "attachment", made.name)
	// The cycle may have ended because its context did.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	current, err := p.client.CoreV1().Pods(pod.Namespace).Get(ctx, pod.Name, metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		logger.Error(err, "Attachment is kept, since it is unknown whether the pod was bound")
		return
	}
	if err == nil && current.UID == pod.UID && current.Spec.NodeName == node {
		return
	}
	if err := p.deleteAttachment(ctx, made.name, made.uid); err != nil {
		logger.Error(err, "Attachment could not be removed")
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
