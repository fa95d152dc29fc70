package containers

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods"
)

// Reasons why a pod cannot be moved.
const (
	RefusalMirrorPod         = "MirrorPod"
	RefusalOwnedByDaemonSet  = "OwnedByDaemonSet"
	RefusalTerminating       = "Terminating"
	RefusalFinished          = "Finished"
	RefusalNotBound          = "NotBound"
	RefusalNothingRemains    = "NothingRemains"
	RefusalOnlySidecars      = "OnlySidecarsRemain"
	RefusalMountPathTaken    = "CheckpointPathTaken"
	RefusalVolumeNameTaken   = "CheckpointVolumeNameTaken"
	RefusalReferenced        = "StrippedContainerReferenced"
	RefusalHostPath          = "HostPathVolume"
	RefusalFinishedWork      = "FinishedWorkNotCarried"
	RefusalVolumeNotCarried  = "VolumeNotCarried"
	RefusalHugePages         = "HugePagesNotCarried"
	RefusalGateTaken         = "GateVolumeNameTaken"
	RefusalResourceClaim     = "ResourceClaimNotShareable"
	RefusalInlineDisk        = "InlineDisk"
	RefusalLocalVolume       = "LocalVolume"
	RefusalClaimNotShareable = "ClaimNotShareable"
	RefusalClaimNotFound     = "ClaimNotFound"
	RefusalInitContainers    = "InitContainerUnknown"
	RefusalSandbox           = "SandboxedVolumes"
)

// Refusal says why a pod cannot be moved.
type Refusal struct {
	// Reason is a CamelCase word for programs.
	Reason string
	// Message is a human-readable sentence.
	Message string
}

// ClaimLookup returns a claim of the pod's namespace and the volume that it is
// bound to; nil for what does not exist.
type ClaimLookup func(name string) (*corev1.PersistentVolumeClaim, *corev1.PersistentVolume)

// Assess judges the containers of a pod and returns the first reason not to
// move it; nil when it can be moved. nodes are those of RefuseClaims.
func Assess(pod *corev1.Pod, policy Policy, claims ClaimLookup, nodes []*corev1.Node) (Verdicts, *Refusal) {
	v := Judge(pod, policy)
	if r := Refuse(pod); r != nil {
		return v, r
	}
	if v.Refusal != "" {
		return v, &Refusal{Reason: v.Refusal, Message: v.Message}
	}
	if r := RefuseClaims(pod, v, claims, nodes); r != nil {
		return v, r
	}
	if why := Exclusive(pod, v, claims); why != "" && !policy.MayStop {
		return v, &Refusal{RefusalClaimNotShareable, why}
	}
	return v, nil
}

// Refuse returns the first reason in the pod itself, its owner and its phase,
// not to move it.
func Refuse(pod *corev1.Pod) *Refusal {
	for _, rule := range podRules {
		if r := rule(pod); r != nil {
			return r
		}
	}
	return nil
}

// podRules read the pod alone, the most telling reason first.
var podRules = []func(*corev1.Pod) *Refusal{
	mirrorPod, ownedByDaemonSet, finished, terminating, notBound,
}

// verdictRules also read which containers would move.
var verdictRules = []func(*corev1.Pod, Verdicts) *Refusal{
	initContainerNames, nothingRemains, checkpointPathTaken, gatePathTaken, referenced, hostPath, hugePages, finishedWork, volumeNotCarried,
	inlineDisk, resourceClaim,
}

func mirrorPod(pod *corev1.Pod) *Refusal {
	source, fromKubelet := pod.Annotations["kubernetes.io/config.source"]
	if _, mirror := pod.Annotations[corev1.MirrorPodAnnotationKey]; mirror || fromKubelet && source != "api" {
		return &Refusal{RefusalMirrorPod, "the pod is static: its node's kubelet runs it from a file, and it cannot be moved"}
	}
	return nil
}

func ownedByDaemonSet(pod *corev1.Pod) *Refusal {
	if owner := metav1.GetControllerOf(pod); owner != nil && owner.Kind == "DaemonSet" {
		return &Refusal{RefusalOwnedByDaemonSet, fmt.Sprintf("the pod belongs to DaemonSet %s, which runs one on each node: there is nowhere to move it", owner.Name)}
	}
	return nil
}

func finished(pod *corev1.Pod) *Refusal {
	if pods.IsTerminal(pod) {
		return &Refusal{RefusalFinished, fmt.Sprintf("the pod has finished (%s): there is nothing left to move", pod.Status.Phase)}
	}
	return nil
}

func terminating(pod *corev1.Pod) *Refusal {
	if pod.DeletionTimestamp != nil {
		return &Refusal{RefusalTerminating, "the pod is being deleted"}
	}
	return nil
}

func notBound(pod *corev1.Pod) *Refusal {
	if pod.Spec.NodeName == "" {
		return &Refusal{RefusalNotBound, "the pod is not on a node yet: its scheduler still has to place it"}
	}
	return nil
}

func nothingRemains(_ *corev1.Pod, v Verdicts) *Refusal {
	sidecars := false
	for _, c := range v.Containers {
		if c.ShouldMigrate && c.Kind == v1alpha1.KindContainer {
			return nil
		}
		sidecars = sidecars || c.ShouldMigrate && c.Kind == v1alpha1.KindSidecar
	}
	if sidecars {
		return &Refusal{RefusalOnlySidecars, "only sidecars would remain: every other container has finished or never started"}
	}
	return &Refusal{RefusalNothingRemains, "no container would remain: every container has finished or never started"}
}

func checkpointPathTaken(pod *corev1.Pod, v Verdicts) *Refusal {
	ours := ""
	if PreviousCheckpoint(pod) != "" {
		ours = v1alpha1.CheckpointVolumeName
	}
	for _, volume := range pod.Spec.Volumes {
		if volume.Name == v1alpha1.CheckpointVolumeName && ours == "" {
			return &Refusal{RefusalVolumeNameTaken, fmt.Sprintf("the pod has a volume of its own named %s, the name that the checkpoint needs", volume.Name)}
		}
	}
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		for _, m := range c.VolumeMounts {
			if v.Keeps(c.Name) && m.Name != ours && isCheckpointPath(m.MountPath) {
				return &Refusal{RefusalMountPathTaken, fmt.Sprintf("container %s mounts its own volume %s at %s, where the checkpoint goes", c.Name, m.Name, v1alpha1.CheckpointMountPath)}
			}
		}
	}
	return nil
}

func hostPath(pod *corev1.Pod, v Verdicts) *Refusal {
	mayGo := discardable(pod)
	for _, volume := range pod.Spec.Volumes {
		if volume.HostPath == nil || mayGo[volume.Name] {
			continue
		}
		if user := userOf(pod, v.withoutRunsAgain(), volume.Name); user != "" {
			return &Refusal{RefusalHostPath, fmt.Sprintf("container %s uses %s of its node through volume %s. %s", user, volume.HostPath.Path, volume.Name, howToDiscard(volume.Name))}
		}
	}
	return nil
}

// withoutRunsAgain leaves out the init containers that run again from their beginning:
// what they write to a node they write to the next one, too.
func (v Verdicts) withoutRunsAgain() Verdicts {
	v.Containers = slices.DeleteFunc(slices.Clone(v.Containers), func(c v1alpha1.ContainerVerdict) bool { return c.Reason == ReasonInitRunsAgain })
	return v
}

// finishedWork refuses when a finished container left its product where a kept
// container looks for it, and the product would stay behind.
func finishedWork(pod *corev1.Pod, v Verdicts) *Refusal {
	mayGo := discardable(pod)
	for _, c := range v.Containers {
		if c.ShouldMigrate || c.Kind != v1alpha1.KindContainer || c.State != v1alpha1.StateCompleted {
			continue
		}
		if v.Mode == v1alpha1.CheckpointNone {
			continue
		}
		lost := slices.DeleteFunc(productsLeftBehind(pod, v, c.Name), func(name string) bool { return mayGo[name] })
		if len(lost) > 0 {
			return &Refusal{RefusalFinishedWork, fmt.Sprintf(
				"container %s has finished and its result may be in %s, which another container uses and which is not carried to another node. %s", c.Name, volumeList(lost), howToDiscard(lost[0]))}
		}
	}
	return nil
}

// volumeNotCarried refuses when a container that moves may have written to a
// volume that stays behind.
func volumeNotCarried(pod *corev1.Pod, v Verdicts) *Refusal {
	mayGo := discardable(pod)
	for i := range pod.Spec.Volumes {
		volume := &pod.Spec.Volumes[i]
		if !staysBehind(volume) || isCarried(pod, volume, v.Mode) || volume.HostPath != nil || mayGo[volume.Name] || v.mayLose(volume) {
			continue
		}
		for _, c := range v.Containers {
			hasWritten := c.State != v1alpha1.StateWaiting || c.Reason == ReasonRestarting
			if c.ShouldMigrate && c.Kind != v1alpha1.KindInit && hasWritten && canWrite(pod, volume, c.Name) {
				return &Refusal{RefusalVolumeNotCarried, fmt.Sprintf(
					"container %s may have written to volume %s, which is not carried to another node. %s", c.Name, volume.Name, howToDiscard(volume.Name))}
			}
		}
	}
	return nil
}

// inlineDisk refuses disks that the pod names itself, without a claim: most can
// be attached to one node only, and nothing says which.
func inlineDisk(pod *corev1.Pod, v Verdicts) *Refusal {
	for i := range pod.Spec.Volumes {
		volume := &pod.Spec.Volumes[i]
		if user := userOf(pod, v, volume.Name); isInlineDisk(volume) && user != "" {
			return &Refusal{RefusalInlineDisk, fmt.Sprintf("container %s uses a disk through volume %s without a claim: it cannot be attached to two nodes while the pod moves", user, volume.Name)}
		}
	}
	return nil
}

// hugePages refuses what cannot be copied: pages in such a volume are mapped,
// never read or written.
func hugePages(pod *corev1.Pod, v Verdicts) *Refusal {
	mayGo := discardable(pod)
	for i := range pod.Spec.Volumes {
		volume := &pod.Spec.Volumes[i]
		if !isHugePages(volume) || mayGo[volume.Name] || v.Mode == v1alpha1.CheckpointNone {
			continue
		}
		if user := userOf(pod, v, volume.Name); user != "" {
			return &Refusal{RefusalHugePages, fmt.Sprintf("container %s uses huge pages through volume %s, which cannot be copied. %s", user, volume.Name, howToDiscard(volume.Name))}
		}
	}
	return nil
}

// gatePathTaken keeps the names that the gate of a replacement needs.
func gatePathTaken(pod *corev1.Pod, _ Verdicts) *Refusal {
	gated := slices.ContainsFunc(pod.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == v1alpha1.GateContainer })
	if !gated && slices.ContainsFunc(pod.Spec.Volumes, func(volume corev1.Volume) bool { return volume.Name == v1alpha1.GateVolumeName }) {
		return &Refusal{RefusalGateTaken, fmt.Sprintf("the pod has a volume of its own named %s, the name that the gate of its replacement needs", v1alpha1.GateVolumeName)}
	}
	return nil
}

// resourceClaim refuses claims that name one set of devices: the original and
// its replacement cannot hold them on two nodes. Claims made from a template
// are recreated for the replacement.
func resourceClaim(pod *corev1.Pod, v Verdicts) *Refusal {
	for _, claim := range pod.Spec.ResourceClaims {
		if claim.ResourceClaimName == nil {
			continue
		}
		for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
			uses := slices.ContainsFunc(c.Resources.Claims, func(r corev1.ResourceClaim) bool { return r.Name == claim.Name })
			if uses && v.Keeps(c.Name) {
				return &Refusal{RefusalResourceClaim, fmt.Sprintf("container %s holds the devices of ResourceClaim %s, which a second pod on another node cannot hold too", c.Name, *claim.ResourceClaimName)}
			}
		}
	}
	return nil
}

// userOf returns the first kept container that uses a volume; empty when none.
func userOf(pod *corev1.Pod, v Verdicts, volume string) string {
	for _, c := range v.Containers {
		if c.ShouldMigrate && mounts(pod, volume, c.Name) {
			return c.Name
		}
	}
	return ""
}

func howToDiscard(volume string) string {
	return fmt.Sprintf("If its content may be lost, annotate the pod with %s=%s", v1alpha1.DiscardableVolumesAnnotation, volume)
}
