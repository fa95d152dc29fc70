package containers

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// LeftOutAnnotation lists, on a replacement that has a controller, the containers
// that this migration and those before it have left out, as name/kind. The next
// pod of the controller has them again.
const LeftOutAnnotation = v1alpha1.GroupName + "/left-out"

// Rewrite returns the replacement that is made of a pod which the owner of the
// original is about to create: the same containers, checkpoint, gates, place and
// marks that BuildReplacement gives to a copy of the original. What makes it a pod
// of its owner stays: labels, references, finalizers, host name and token.
//
// A pod without a name gets that of the replacement. kube-apiserver generates
// names after mutating admission
// (k8s.io/apiserver/pkg/registry/generic/registry/store.go, create), and a name
// that was given it does not change: so of two pods that are rewritten for one
// migration the second is refused with AlreadyExists.
//
// It fails when the pod is not one of those that were judged; then the pod must
// stay as it is.
func Rewrite(pod *corev1.Pod, v Verdicts, o ReplacementOptions) (*corev1.Pod, error) {
	if err := rewritable(pod, v, o); err != nil {
		return nil, fmt.Errorf("pod %s/%s%s cannot take over: %w", pod.Namespace, pod.Name, pod.GenerateName, err)
	}
	v = keepWhatRunsAgain(pod, v)
	replacement := pod.DeepCopy()
	if replacement.Name == "" {
		replacement.Name = o.Name
	}
	nothing := func(string) bool { return false }
	replacement.Spec = *stripped(pod, v, nothing)
	if owner := metav1.GetControllerOf(pod); owner != nil && owner.Kind == "StatefulSet" {
		keepClaims(&replacement.Spec, pod)
	}
	takeOver(replacement, pod, v, o)
	return replacement, nil
}

func rewritable(pod *corev1.Pod, v Verdicts, o ReplacementOptions) error {
	if err := matchVerdicts(pod, v); err != nil {
		return err
	}
	for _, c := range v.Containers {
		if c.ShouldMigrate && containerOf(pod, c.Name) == nil {
			return fmt.Errorf("container %s, which moves, is not in it", c.Name)
		}
	}
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		if image, known := o.Images[c.Name]; known && image != c.Image && v.Keeps(c.Name) {
			return fmt.Errorf("container %s has image %s, the original has %s", c.Name, c.Image, image)
		}
	}
	for _, volume := range pod.Spec.Volumes {
		claim := cmp.Or(o.PreviousClaim, o.ClaimName)
		isOther := volume.Name == v1alpha1.CheckpointVolumeName && claim != "" && !isClaim(volume, claim)
		if isOther || volume.Name == v1alpha1.GateVolumeName || o.PreviousClaim != "" && volume.Name == v1alpha1.CopyVolumeName {
			return fmt.Errorf("it has a volume %s of its own", volume.Name)
		}
	}
	switch {
	case pod.Spec.NodeName != "":
		return fmt.Errorf("it is bound to node %s at birth", pod.Spec.NodeName)
	case pod.Name == "" && o.Name == "":
		return fmt.Errorf("there is no name for it")
	}
	return nil
}

// keepClaims keeps the claims that only containers used which are left out. A
// StatefulSet misses those of its templates, and tries in vain to add them
// (k8s.io/kubernetes/pkg/controller/statefulset, storageMatches).
func keepClaims(spec *corev1.PodSpec, pod *corev1.Pod) {
	for _, volume := range pod.Spec.Volumes {
		kept := slices.ContainsFunc(spec.Volumes, func(v corev1.Volume) bool { return v.Name == volume.Name })
		if volume.PersistentVolumeClaim != nil && !kept {
			spec.Volumes = append(spec.Volumes, *volume.DeepCopy())
		}
	}
}

// leftOut writes down which containers a replacement lacks that its owner knows.
func leftOut(pod *corev1.Pod, v Verdicts) string {
	var entries []string
	for _, c := range slices.Concat(v.Containers, leftOutBefore(pod)) {
		if c.ShouldMigrate || c.Kind == v1alpha1.KindEphemeral || c.Reason == ReasonGate {
			continue
		}
		if entry := c.Name + "/" + string(c.Kind); !slices.Contains(entries, entry) {
			entries = append(entries, entry)
		}
	}
	return strings.Join(entries, ",")
}

// leftOutBefore returns verdicts on the containers that earlier migrations left
// out, and that the owner's next pod has again.
func leftOutBefore(pod *corev1.Pod) []v1alpha1.ContainerVerdict {
	var verdicts []v1alpha1.ContainerVerdict
	for entry := range strings.SplitSeq(pod.Annotations[LeftOutAnnotation], ",") {
		name, kind, found := strings.Cut(entry, "/")
		isNamed := slices.ContainsFunc(verdicts, func(v v1alpha1.ContainerVerdict) bool { return v.Name == name }) ||
			slices.ContainsFunc(pod.Spec.EphemeralContainers, func(c corev1.EphemeralContainer) bool { return c.Name == name })
		if !found || isNamed || containerOf(pod, name) != nil {
			continue
		}
		switch kind := v1alpha1.ContainerKind(kind); kind {
		case v1alpha1.KindContainer, v1alpha1.KindInit, v1alpha1.KindSidecar:
			verdicts = append(verdicts, v1alpha1.ContainerVerdict{
				Name: name, Kind: kind, State: v1alpha1.StateCompleted,
				Reason: ReasonLeftOutBefore, Message: "was left out by an earlier migration",
			})
		}
	}
	return verdicts
}

// RootOf returns the root that the name of a replacement was made of; "" when
// the migration did not choose the name.
func RootOf(replacement string, migration types.UID, created time.Time) string {
	root, found := strings.CutSuffix(replacement, "-migrated-"+timestamp(migration, created))
	if !found {
		return ""
	}
	return root
}
