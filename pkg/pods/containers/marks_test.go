package containers_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	. "github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/pkg/pods/containers"
)

func TestAddressesOfTheOriginalStayWithIt(t *testing.T) {
	pod := MakePod("p").Node("a").Container("main", Running()).
		Annotation("k8s.ovn.org/pod-networks", `{"default":{"ip_addresses":["10.1.0.5/23"]}}`).
		Annotation("ovn.kubernetes.io/allocated", "true").Annotation("ovn.kubernetes.io/ip_address", "10.1.0.5").
		Annotation("cni.projectcalico.org/podIP", "10.1.0.5/32").
		Annotation("k8s.v1.cni.cncf.io/networks", "macvlan").Obj()
	got := build(t, pod, containers.ReplacementOptions{}).Annotations
	for key, value := range got {
		if strings.Contains(value, "10.1.0.5") || key == "ovn.kubernetes.io/allocated" {
			t.Errorf("the replacement has annotation %s=%s of the original", key, value)
		}
	}
	if got["k8s.v1.cni.cncf.io/networks"] != "macvlan" {
		t.Error("the networks that the pod requests are lost")
	}
}

// A replacement with the devices and processors of the original would be given what its
// node does not have. What the author asks for goes along.
func TestAssignmentsOfTheOriginalStayWithIt(t *testing.T) {
	dropped := []string{
		"hami.io/vgpu-devices-allocated", "hami.io/vgpu-devices-to-allocate", "hami.io/Ascend910A-devices-allocated", "hami.io/amd-cu-allocated",
		"hami.io/vgpu-node", "hami.io/vgpu-time", "hami.io/bind-time", "hami.io/bind-phase", "4pd.io/vgpu-ids-new", "4pd.io/vgpu-node",
		"volcano.sh/vgpu-ids-new", "volcano.sh/devices-to-allocate", "volcano.sh/vgpu-node", "volcano.sh/bind-phase", "volcano.sh/gpu-index",
		"volcano.sh/predicate-time", "volcano.sh/topology-decision",
		"scheduling.koordinator.sh/device-allocated", "scheduling.koordinator.sh/resource-status", "scheduling.koordinator.sh/reservation-allocated",
		"ALIYUN_COM_GPU_MEM_IDX", "ALIYUN_COM_GPU_MEM_ASSUME_TIME", "scheduler.framework.gpushare.allocation", "gpushare.alibabacloud.com/assigned",
		"tencent.com/predicate-gpu-idx-0", "tencent.com/gpu-assigned", "received-resource-type", "gas-container-cards", "huawei.com/AscendReal",
		"vpc.amazonaws.com/pod-eni", "networking.gke.io/pod-ips", "k8s.v1.cni.cncf.io/network-status", "k8s.v1.cni.cncf.io/networks-status",
		"macvlan.default.ovn.kubernetes.io/allocated", "kubernetes.io/limit-ranger", "acme.example/slot", "acme.example/slot-time",
	}
	kept := []string{
		"hami.io/gpu-scheduler-policy", "hami.io/resource-pool", "nvidia.com/use-gputype", "volcano.sh/vgpu-mode", "volcano.sh/numa-topology-policy",
		"scheduling.koordinator.sh/resource-spec", "gpu-fraction", "gas-allow", "tencent.com/vcuda-core-limit", "k8s.v1.cni.cncf.io/networks",
		"ovn.kubernetes.io/logical_switch", "acme.example/team", "-devices-allocated",
	}
	b := MakePod("p").Node("a").Container("main", Running()).Label("runai-gpu-group", "g").Label("runai-gpu-group/0", "g").Label("gpu-index", "x")
	for _, key := range slices.Concat(dropped, kept) {
		b.Annotation(key, "x")
	}
	r := build(t, b.Obj(), containers.ReplacementOptions{Name: "r", DropAnnotationPrefixes: []string{"acme.example/slot", ""}})
	for _, key := range dropped {
		if _, has := r.Annotations[key]; has {
			t.Errorf("the replacement has annotation %s of the original", key)
		}
	}
	for _, key := range kept {
		if r.Annotations[key] != "x" {
			t.Errorf("annotation %s of the author is lost", key)
		}
	}
	if diff := cmp.Diff(map[string]string{"gpu-index": "x"}, withoutOurs(r.Labels)); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
	}
}

// withoutOurs leaves out the marks of a migration.
func withoutOurs(values map[string]string) map[string]string {
	values = maps.Clone(values)
	maps.DeleteFunc(values, func(key, _ string) bool { return strings.HasPrefix(key, "migration.ai-storage/") })
	return values
}

// Annotations on containers that stay behind stay behind, in a copy and in the next pod of
// an owner. The API server accepts what is left.
func TestAnnotationsOnStrippedContainersStayBehind(t *testing.T) {
	apparmor, seccomp := corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix, "container.seccomp.security.alpha.kubernetes.io/"
	pod := func() *PodBuilder {
		return MakePod("p").Node("a").RestartPolicy(never).Controller("Job", "j").
			Annotation(apparmor+"batch", "runtime/default").Annotation(apparmor+"fetch", "runtime/default").Annotation(apparmor+"serve", "runtime/default").
			Annotation(seccomp+"batch", "x").Annotation("devices.nri.io/container.batch", "x").Annotation("devices.nri.io/container.serve", "y").
			Annotation("kubectl.kubernetes.io/default-container", "batch").Annotation("kubectl.kubernetes.io/default-logs-container", "serve")
	}
	original := pod().Init("fetch", Exited(0)).Container("batch", Exited(0)).Container("serve", Running()).Obj()
	next := pod().Node("").Init("fetch", nil).Container("batch", nil).Container("serve", nil).Obj()
	verdicts := containers.Judge(original, containers.Policy{})
	want := map[string]string{apparmor + "serve": "runtime/default", "devices.nri.io/container.serve": "y", "kubectl.kubernetes.io/default-logs-container": "serve"}

	built := build(t, original, options)
	rewritten, err := containers.Rewrite(next, verdicts, options)
	if err != nil {
		t.Fatal(err)
	}
	for name, r := range map[string]*corev1.Pod{"built": built, "rewritten": rewritten} {
		if diff := cmp.Diff(want, withoutOurs(r.Annotations)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		create(t, r)
	}
}
