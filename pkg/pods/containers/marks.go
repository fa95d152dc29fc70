package containers

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// mark is the key of an annotation or label that says something of the original alone:
// the devices, processors and addresses that it was given on its node. A replacement
// that had it would be given the same ones, which its node does not have or which the
// original still holds. What the author of a pod requests is no such mark.
type mark struct {
	// A key has the mark when it begins and ends with these; an exact key has its whole
	// text in both.
	prefix, suffix string
	exact          bool
	// source is who writes it.
	source string
}

func exactly(text, source string) mark { return mark{prefix: text, exact: true, source: source} }

func beginning(text, source string) mark { return mark{prefix: text, source: source} }

func ending(text, source string) mark { return mark{suffix: text, source: source} }

func between(first, last, source string) mark {
	return mark{prefix: first, suffix: last, source: source}
}

// marksOfTheOriginal are known to us. Admins add others by their prefixes
// (ReplacementOptions.DropAnnotationPrefixes).
var marksOfTheOriginal = []mark{
	exactly(corev1.LastAppliedConfigAnnotation, "kubectl apply, which would read it as the replacement's"),
	exactly(v1alpha1.ReclaimedAnnotation, "the reclaim controller of this project"),
	exactly("kubernetes.io/limit-ranger", "admission plugin LimitRanger: which containers it gave defaults"),

	// Networks. With what OVN-Kubernetes and Kube-OVN read back the replacement would be
	// given the address that the original still has.
	exactly("k8s.v1.cni.cncf.io/network-status", "Multus and others, after the Network Plumbing Working Group"),
	exactly("k8s.v1.cni.cncf.io/networks-status", "Multus before version 3.6"),
	exactly("k8s.ovn.org/pod-networks", "OVN-Kubernetes"),
	exactly("ovn.kubernetes.io/routed", "Kube-OVN"),
	exactly("ovn.kubernetes.io/ip_address", "Kube-OVN"),
	exactly("ovn.kubernetes.io/mac_address", "Kube-OVN"),
	exactly("ovn.kubernetes.io/allocated", "Kube-OVN"),
	ending(".ovn.kubernetes.io/allocated", "Kube-OVN, of attached networks"),
	ending(".ovn.kubernetes.io/routed", "Kube-OVN, of attached networks"),
	exactly("cni.projectcalico.org/containerID", "Calico"),
	exactly("cni.projectcalico.org/podIP", "Calico"),
	exactly("cni.projectcalico.org/podIPs", "Calico"),
	exactly("vpc.amazonaws.com/pod-eni", "VPC resource controller of EKS, security groups for pods"),
	exactly("vpc.amazonaws.com/pod-ips", "VPC CNI of EKS, ANNOTATE_POD_IP"),
	exactly("networking.gke.io/pod-ips", "GKE, pods with several networks"),

	// Shared and partitioned devices.
	between("hami.io/", "-devices-allocated", "HAMi, one for each kind of device"),
	between("hami.io/", "-devices-to-allocate", "HAMi, one for each kind of device"),
	between("hami.io/", "-cu-allocated", "HAMi, compute units of AMD"),
	exactly("hami.io/vgpu-node", "HAMi scheduler"),
	exactly("hami.io/vgpu-time", "HAMi scheduler"),
	exactly("hami.io/bind-time", "HAMi scheduler"),
	exactly("hami.io/bind-phase", "HAMi scheduler and device plugin"),
	exactly("4pd.io/vgpu-ids-new", "HAMi under its earlier name, k8s-vgpu-scheduler"),
	exactly("4pd.io/devices-to-allocate", "k8s-vgpu-scheduler"),
	exactly("4pd.io/vgpu-node", "k8s-vgpu-scheduler"),
	exactly("4pd.io/vgpu-time", "k8s-vgpu-scheduler"),
	exactly("4pd.io/bind-time", "k8s-vgpu-scheduler"),
	exactly("4pd.io/bind-phase", "k8s-vgpu-scheduler"),
	exactly("volcano.sh/vgpu-ids-new", "Volcano, deviceshare plugin with vGPU"),
	exactly("volcano.sh/devices-to-allocate", "Volcano, deviceshare plugin with vGPU"),
	exactly("volcano.sh/vgpu-node", "Volcano, deviceshare plugin with vGPU"),
	exactly("volcano.sh/vgpu-time", "Volcano, deviceshare plugin with vGPU"),
	exactly("volcano.sh/bind-time", "Volcano, deviceshare plugin with vGPU"),
	exactly("volcano.sh/bind-phase", "Volcano, deviceshare plugin with vGPU"),
	exactly("volcano.sh/gpu-index", "Volcano, deviceshare plugin with GPU sharing"),
	exactly("volcano.sh/gpu-assigned", "Volcano, device plugin with GPU sharing"),
	exactly("volcano.sh/predicate-time", "Volcano, deviceshare plugin with GPU sharing"),
	exactly("volcano.sh/topology-decision", "Volcano, numaaware plugin: processors by NUMA node"),
	exactly("scheduling.koordinator.sh/device-allocated", "koord-scheduler, deviceshare plugin"),
	exactly("scheduling.koordinator.sh/resource-status", "koord-scheduler, nodenumaresource plugin: processors by number"),
	exactly("scheduling.koordinator.sh/reservation-allocated", "koord-scheduler, reservation plugin"),
	beginning("ALIYUN_COM_GPU_", "gpushare-scheduler-extender and the device plugin of Alibaba Cloud"),
	beginning("GPU_SHARE_COM_GPU_", "forks of gpushare-scheduler-extender"),
	beginning("scheduler.framework.gpushare.", "GPU sharing of Alibaba Cloud (ACK), versions 1 and 2"),
	exactly("gpushare.alibabacloud.com/assume-time", "GPU sharing of Alibaba Cloud (ACK), version 3"),
	exactly("gpushare.alibabacloud.com/assigned", "GPU sharing of Alibaba Cloud (ACK), version 3"),
	beginning("tencent.com/predicate-", "gpu-admission of Tencent's GPU manager"),
	exactly("tencent.com/gpu-assigned", "Tencent's GPU manager"),
	exactly("received-resource-type", "KAI scheduler and Run:ai"),
	exactly("gas-ts", "GPU aware scheduling of Intel"),
	exactly("gas-container-cards", "GPU aware scheduling of Intel"),
	exactly("gas-container-tiles", "GPU aware scheduling of Intel"),
	beginning("huawei.com/Ascend", "Ascend device plugin and Volcano: devices by number"),
	exactly("huawei.com/npu-core", "Ascend device plugin and Volcano, partitioned devices"),
	exactly("huawei.com/kltDev", "Ascend device plugin: devices that the kubelet chose"),
}

// labelsOfTheOriginal are the same for labels.
var labelsOfTheOriginal = []mark{
	exactly("runai-gpu-group", "KAI scheduler and Run:ai: the device that pods share"),
	beginning("runai-gpu-group/", "KAI scheduler and Run:ai: the devices that pods share"),
}

// has reports whether a key is that of a mark.
func (m mark) has(of string) bool {
	if m.exact {
		return of == m.prefix
	}
	return strings.HasPrefix(of, m.prefix) && strings.HasSuffix(of, m.suffix)
}

// dropMarks removes what says something of the original alone from its annotations,
// with all that begins with one of more prefixes, and from its labels.
func dropMarks(meta *metav1.ObjectMeta, more []string) {
	for _, m := range marksOfTheOriginal {
		deleteKeys(meta.Annotations, m.has)
	}
	for _, prefix := range more {
		deleteKeys(meta.Annotations, func(key string) bool { return prefix != "" && strings.HasPrefix(key, prefix) })
	}
	for _, m := range labelsOfTheOriginal {
		deleteKeys(meta.Labels, m.has)
	}
}

// annotationsOfContainers begin annotations whose keys end in the name of a container.
// The API server refuses an AppArmor profile for a container that the pod does not have.
var annotationsOfContainers = []string{
	corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix,
	"container.seccomp.security.alpha.kubernetes.io/",
}

// annotationsNamingAContainer are those that kubectl reads: which container to show.
var annotationsNamingAContainer = []string{"kubectl.kubernetes.io/default-container", "kubectl.kubernetes.io/default-logs-container"}

// dropMarksOfStripped removes annotations on containers that stay behind, and
// their names from the lists of the author.
func dropMarksOfStripped(annotations map[string]string, v Verdicts) {
	for _, c := range v.Containers {
		if c.ShouldMigrate {
			continue
		}
		for _, prefix := range annotationsOfContainers {
			delete(annotations, prefix+c.Name)
		}
		// NRI plugins: key/container.name (github.com/containerd/nri, README).
		deleteKeys(annotations, func(key string) bool { return strings.HasSuffix(key, "/container."+c.Name) })
		for _, key := range annotationsNamingAContainer {
			if annotations[key] == c.Name {
				delete(annotations, key)
			}
		}
	}
	withoutStripped(annotations, v)
}

func deleteKeys(values map[string]string, which func(key string) bool) {
	for key := range values {
		if which(key) {
			delete(values, key)
		}
	}
}
