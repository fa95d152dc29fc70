package checkpointvolume

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
)

// errPodGone ends every wait: nobody needs the volume any more.
var errPodGone = errors.New("the pod is gone")

// attachable is a volume that has to be attached to the chosen node.
type attachable struct {
	claim  types.NamespacedName
	volume *corev1.PersistentVolume
}

// PreBindPreFlight tells the scheduler whether PreBind has anything to do.
func (p *Plugin) PreBindPreFlight(_ context.Context, _ fwk.CycleState, pod *corev1.Pod, _ string) *fwk.Status {
	if len(claimsOf(pod)) == 0 {
		return fwk.NewStatus(fwk.Skip)
	}
	return nil
}

// PreBind brings the volumes of the pod to the chosen node and returns when
// they are attached. It runs after that of VolumeBinding, which binds claims. An
// error sends the pod back to the queue; a node at fault is left out then.
func (p *Plugin) PreBind(ctx context.Context, state fwk.CycleState, pod *corev1.Pod, node string) *fwk.Status {
	claims := claimsOf(pod)
	if len(claims) == 0 {
		return nil
	}
	started := time.Now()
	needed, err := p.waitAttachable(ctx, pod, claims, node)
	waited(stepFree, started)
	if err == nil && len(needed) > 0 {
		started = time.Now()
		err = p.attach(ctx, state, pod, needed, node)
		waited(stepAttach, started)
	}
	var failed *attachFailure
	if errors.As(err, &failed) {
		attachFailures.Inc()
		p.failed.remember(attachKey{claim: failed.claim, node: node})
		klog.FromContext(ctx).Info("Volume could not be attached, the node is left out for a while",
			"pod", klog.KObj(pod), "node", node, "volume", failed.volume, "backoff", p.failed.backoff)
	}
	if err != nil {
		return fwk.AsStatus(err)
	}
	return nil
}

// waitAttachable waits until all claims are bound and no other node has what
// only one may have, and returns the volumes that have to be attached. It has
// a time limit of its own: a slow release is not the fault of the chosen node.
func (p *Plugin) waitAttachable(ctx context.Context, pod *corev1.Pod, claims []types.NamespacedName, node string) ([]attachable, error) {
	ctx, cancel := context.WithTimeout(ctx, p.attachTimeout)
	defer cancel()
	if err := p.checkPodExists(ctx, pod); err != nil {
		return nil, err
	}
	var needed []attachable
	for _, key := range claims {
		volume, shared, err := p.waitBound(ctx, pod, key)
		if err != nil {
			return nil, fmt.Errorf("waiting for claim %s to be bound: %w", key, err)
		}
		if !shared {
			if err := p.waitReleased(ctx, pod, attachable{claim: key, volume: volume}, node); err != nil {
				return nil, err
			}
		}
		isNeeded, err := p.needsAttach(volume)
		if err != nil {
			return nil, err
		}
		if isNeeded {
			needed = append(needed, attachable{claim: key, volume: volume})
		}
	}
	return needed, nil
}

// checkPodExists asks the API server, since waits before PreBind can be long
// and an attachment for a pod that is gone would stay behind.
func (p *Plugin) checkPodExists(ctx context.Context, pod *corev1.Pod) error {
	current, err := p.client.CoreV1().Pods(pod.Namespace).Get(ctx, pod.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return errPodGone
	}
	if err != nil {
		return fmt.Errorf("reading the pod: %w", err)
	}
	if current.UID != pod.UID || current.DeletionTimestamp != nil {
		return errPodGone
	}
	return nil
}

// waitUntil polls the caches until done says so. The pod being deleted, and
// ctx, end it too.
func (p *Plugin) waitUntil(ctx context.Context, pod *corev1.Pod, done func() (bool, error)) error {
	return wait.PollUntilContextCancel(ctx, p.pollInterval, true, func(context.Context) (bool, error) {
		current, err := p.pods.Pods(pod.Namespace).Get(pod.Name)
		if apierrors.IsNotFound(err) {
			return false, errPodGone
		}
		if err != nil {
			return false, err
		}
		if current.UID != pod.UID || current.DeletionTimestamp != nil {
			return false, errPodGone
		}
		return done()
	})
}

// waitBound returns the volume of the claim, and whether nodes may share it.
func (p *Plugin) waitBound(ctx context.Context, pod *corev1.Pod, key types.NamespacedName) (*corev1.PersistentVolume, bool, error) {
	var volume *corev1.PersistentVolume
	var shared bool
	err := p.waitUntil(ctx, pod, func() (bool, error) {
		claim, err := p.claims.PersistentVolumeClaims(key.Namespace).Get(key.Name)
		if err != nil {
			return false, err
		}
		if claim.Status.Phase != corev1.ClaimBound || claim.Spec.VolumeName == "" {
			return false, nil
		}
		shared = isShared(claim)
		volume, err = p.volumes.Get(claim.Spec.VolumeName)
		return err == nil, ignoreNotFound(err)
	})
	return volume, shared, err
}

// needsAttach reports whether the volume has to be attached to a node
// before it can be mounted there. A driver that says nothing of it does
// (CSIDriverSpec.attachRequired). In-tree volumes that Kubernetes hands to a CSI
// driver are attached after binding, as usual.
func (p *Plugin) needsAttach(volume *corev1.PersistentVolume) (bool, error) {
	if volume.Spec.CSI == nil {
		return false, nil
	}
	driver, err := p.drivers.Get(volume.Spec.CSI.Driver)
	if apierrors.IsNotFound(err) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("reading CSI driver %q: %w", volume.Spec.CSI.Driver, err)
	}
	return driver.Spec.AttachRequired == nil || *driver.Spec.AttachRequired, nil
}
