package containers

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// isRegion reports whether a label names a part of a cluster that a node can be added to:
// a volume that is bound to such a part is not bound to a node, even where the part has
// only one. Storage drivers have labels of their own beside topology.kubernetes.io/zone,
// such as topology.ebs.csi.aws.com/zone.
func isRegion(label string) bool {
	name := label[strings.LastIndex(label, "/")+1:]
	return name == "zone" || name == "region"
}

// localVolume refuses a claim whose volume the replacement cannot reach, or would find
// with other content: a disk or a path of the source node. Nodes are those of the cluster;
// without them a volume counts as one of the source node when its node affinity names
// nothing but that node.
func localVolume(pod *corev1.Pod, volume string, claim *corev1.PersistentVolumeClaim, pv *corev1.PersistentVolume, nodes []*corev1.Node) *Refusal {
	if pv == nil {
		return nil
	}
	subject := fmt.Sprintf("claim %s, volume %s of the pod, is bound to PersistentVolume %s", claim.Name, volume, pv.Name)
	source := pod.Spec.NodeName
	switch {
	case pv.Spec.Local != nil:
		return &Refusal{RefusalLocalVolume, fmt.Sprintf("%s, a local disk of the node: no other node has it", subject)}
	case namesOnly(pv, source) || ReachableOnlyFrom(pv, source, nodes):
		return &Refusal{RefusalLocalVolume, fmt.Sprintf("%s, which only node %s can reach (nodeAffinity of the volume)", subject, source)}
	case pv.Spec.HostPath != nil && !isShared(claim, pv) && !isOurCheckpoint(claim) && !MayLose(pod, volume):
		return &Refusal{RefusalLocalVolume, fmt.Sprintf(
			"%s, path %s of the node: another node has other files there. If every node has the same, annotate the PersistentVolume, its claim or its StorageClass with %s=true. %s",
			subject, pv.Spec.HostPath.Path, v1alpha1.SharedPathAnnotation, howToDiscard(volume))}
	}
	return nil
}

// isShared reports whether who provides a volume says that its path is the same on every
// node.
func isShared(claim *corev1.PersistentVolumeClaim, pv *corev1.PersistentVolume) bool {
	return claim.Annotations[v1alpha1.SharedPathAnnotation] == "true" || pv.Annotations[v1alpha1.SharedPathAnnotation] == "true"
}

// isOurCheckpoint reports whether an earlier migration made a claim. Its content has been
// written on one node and read on another.
func isOurCheckpoint(claim *corev1.PersistentVolumeClaim) bool {
	return claim.Labels[v1alpha1.ComponentLabel] == v1alpha1.ComponentLabelValue
}

// WithSharedPath returns a volume with the annotation v1alpha1.SharedPathAnnotation of its
// StorageClass, which counts for all volumes of the class; the volume itself when
// the class has none or does not exist (nil).
func WithSharedPath(pv *corev1.PersistentVolume, class *storagev1.StorageClass) *corev1.PersistentVolume {
	if pv == nil || class == nil || class.Annotations[v1alpha1.SharedPathAnnotation] != "true" {
		return pv
	}
	pv = pv.DeepCopy()
	metav1.SetMetaDataAnnotation(&pv.ObjectMeta, v1alpha1.SharedPathAnnotation, "true")
	return pv
}

// ReachableOnlyFrom reports whether of all nodes of a cluster only the named one can reach
// a volume, by the node affinity of the volume. Zones and regions do not count: another
// node may join them. Without a node affinity every node reaches a volume.
func ReachableOnlyFrom(pv *corev1.PersistentVolume, node string, nodes []*corev1.Node) bool {
	terms := termsOf(pv)
	if len(terms) == 0 {
		return false
	}
	reaches := func(n *corev1.Node) bool {
		return slices.ContainsFunc(terms, func(t corev1.NodeSelectorTerm) bool { return matchesNode(t, n) })
	}
	source := slices.IndexFunc(nodes, func(n *corev1.Node) bool { return n.Name == node })
	if source < 0 || !reaches(nodes[source]) {
		return false
	}
	return !slices.ContainsFunc(nodes, func(n *corev1.Node) bool { return n.Name != node && reaches(n) })
}

// namesOnly reports whether every term of the node affinity of a volume names one host: by
// the label of host names, by the name of the node, or by a label of a driver whose value
// is the name of the node, as topology.topolvm.io/node is.
func namesOnly(pv *corev1.PersistentVolume, node string) bool {
	terms := termsOf(pv)
	hosts := map[string]bool{}
	for _, term := range terms {
		host := ""
		for _, r := range slices.Concat(term.MatchFields, term.MatchExpressions) {
			if r.Operator != corev1.NodeSelectorOpIn || len(r.Values) != 1 {
				continue
			}
			if r.Key == corev1.LabelHostname || r.Key == metav1.ObjectNameField || r.Values[0] == node && !isRegion(r.Key) {
				host = r.Values[0]
			}
		}
		if host == "" {
			return false
		}
		hosts[host] = true
	}
	return len(hosts) == 1
}

// termsOf lists the terms of the node affinity of a volume that match any node.
func termsOf(pv *corev1.PersistentVolume) []corev1.NodeSelectorTerm {
	if pv == nil || pv.Spec.NodeAffinity == nil || pv.Spec.NodeAffinity.Required == nil {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(pv.Spec.NodeAffinity.Required.NodeSelectorTerms), isEmptyTerm)
}

// matchesNode reports whether a node fulfils a term, zones and regions aside.
func matchesNode(term corev1.NodeSelectorTerm, node *corev1.Node) bool {
	fulfils := func(r corev1.NodeSelectorRequirement, values labels.Set) bool {
		requirement, err := labels.NewRequirement(r.Key, operators[r.Operator], r.Values)
		return err == nil && requirement.Matches(values)
	}
	for _, r := range term.MatchFields {
		if !fulfils(r, labels.Set{metav1.ObjectNameField: node.Name}) {
			return false
		}
	}
	for _, r := range term.MatchExpressions {
		if !isRegion(r.Key) && !fulfils(r, node.Labels) {
			return false
		}
	}
	return true
}

var operators = map[corev1.NodeSelectorOperator]selection.Operator{
	corev1.NodeSelectorOpIn: selection.In, corev1.NodeSelectorOpNotIn: selection.NotIn,
	corev1.NodeSelectorOpExists: selection.Exists, corev1.NodeSelectorOpDoesNotExist: selection.DoesNotExist,
	corev1.NodeSelectorOpGt: selection.GreaterThan, corev1.NodeSelectorOpLt: selection.LessThan,
}
