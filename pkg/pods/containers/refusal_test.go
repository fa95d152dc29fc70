package containers_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	. "github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods/containers"
)

func TestAssess(t *testing.T) {
	good := func() *PodBuilder { return MakePod("p").Node("a").Container("main", Running()) }
	scratch := func(mounts ...func(*corev1.Container)) *PodBuilder {
		return MakePod("p").Node("a").RestartPolicy(never).Volume("v", EmptyDir()).Container("main", Running(), mounts...)
	}
	deviceClaim := func(c *corev1.Container) { c.Resources.Claims = []corev1.ResourceClaim{{Name: "gpu"}} }
	devices := func(claim corev1.PodResourceClaim) *PodBuilder {
		return MakePod("p").Node("a").Container("main", Running(), deviceClaim).
			With(func(p *corev1.Pod) { p.Spec.ResourceClaims = []corev1.PodResourceClaim{claim} })
	}
	name, deleted := "shared-gpu", metav1.Now()
	disk := corev1.VolumeSource{ISCSI: &corev1.ISCSIVolumeSource{}}
	tests := []struct {
		name string
		pod  *PodBuilder
		want string
	}{
		{"movable", good(), ""},
		{"mirror", good().Annotation(corev1.MirrorPodAnnotationKey, "x").Controller("Node", "a"), containers.RefusalMirrorPod},
		{"static", good().Annotation("kubernetes.io/config.source", "file"), containers.RefusalMirrorPod},
		{"from the API", good().Annotation("kubernetes.io/config.source", "api"), ""},
		{"DaemonSet", good().Controller("DaemonSet", "ds"), containers.RefusalOwnedByDaemonSet},
		{"ReplicaSet", good().Controller("ReplicaSet", "rs"), ""},
		{"owner that is no controller", good().With(func(p *corev1.Pod) {
			p.OwnerReferences = []metav1.OwnerReference{{Kind: "Experiment", Name: "e"}}
		}), ""},
		{"succeeded", good().Phase(corev1.PodSucceeded), containers.RefusalFinished},
		{"failed", good().Phase(corev1.PodFailed), containers.RefusalFinished},
		{"terminating", good().With(func(p *corev1.Pod) { p.DeletionTimestamp = &deleted }), containers.RefusalTerminating},
		{"not bound", good().Node(""), containers.RefusalNotBound},
		{"nothing remains", MakePod("p").Node("a").RestartPolicy(never).Container("c", Exited(0)), containers.RefusalNothingRemains},
		{"only init containers remain", MakePod("p").Node("a").Volume("v", EmptyDir()).RestartPolicy(never).
			Init("i", Exited(5)).Container("c", Exited(0)), containers.RefusalNothingRemains},
		{"only sidecars remain", MakePod("p").Node("a").RestartPolicy(never).Sidecar("s", Running()).Container("c", Exited(0)), containers.RefusalOnlySidecars},

		{"checkpoint path taken", good().Volume("mine", ConfigMap("m")).Container("b", Running(), Mount("mine", "/migration-checkpoint/")), containers.RefusalMountPathTaken},
		{"checkpoint path taken by a stripped container", good().RestartPolicy(never).Volume("mine", ConfigMap("m")).Container("b", Exited(0), Mount("mine", "/migration-checkpoint")), ""},
		{"checkpoint volume name taken", good().Volume(v1alpha1.CheckpointVolumeName, ConfigMap("m")), containers.RefusalVolumeNameTaken},
		{"our own earlier checkpoint", good().Annotation(v1alpha1.CheckpointClaimAnnotation, "old").Volume(v1alpha1.CheckpointVolumeName, Claim("old")).
			Container("b", Running(), Mount(v1alpha1.CheckpointVolumeName, "/migration-checkpoint")), ""},
		{"a volume with the gate's name", good().Volume(v1alpha1.GateVolumeName, EmptyDir()), containers.RefusalGateTaken},
		{"an earlier gate", good().Volume(v1alpha1.GateVolumeName, EmptyDir()).Init(v1alpha1.GateContainer, Exited(0), Mount(v1alpha1.GateVolumeName, v1alpha1.GateMountPath)), ""},
		{"our own earlier checkpoint in a stripped container", good().RestartPolicy(never).Annotation(v1alpha1.CheckpointClaimAnnotation, "old").Volume(v1alpha1.CheckpointVolumeName, Claim("old")).
			Container("b", Exited(0), Mount(v1alpha1.CheckpointVolumeName, "/migration-checkpoint")), ""},

		{"variable of a stripped container", good().RestartPolicy(never).Container("b", Exited(0)).Container("c", Running(), envOf("b")), containers.RefusalReferenced},
		{"variable of a container that moves too", good().Container("b", Running()).Container("c", Running(), envOf("b")), ""},
		{"variable of its own", good().Container("c", Running(), envOf("")), ""},
		{"variable in a stripped container", good().RestartPolicy(never).Container("b", Exited(0), envOf("main")).Container("c", Exited(0), envOf("b")), ""},
		{"file of a stripped container", good().RestartPolicy(never).Volume("v", downward("b")).Container("b", Exited(0)).Container("c", Running(), MountReadOnly("v", "/v")), containers.RefusalReferenced},
		{"file of a stripped container, projected", good().RestartPolicy(never).Volume("v", projected("b")).Container("b", Exited(0)).Container("c", Running(), MountReadOnly("v", "/v")), containers.RefusalReferenced},
		{"file of a stripped container, read by it alone", good().RestartPolicy(never).Volume("v", downward("b")).Container("b", Exited(0), MountReadOnly("v", "/v")), ""},

		{"host path", good().Volume("v", HostPath("/data")).Container("b", Running(), MountReadOnly("v", "/v")), containers.RefusalHostPath},
		{"host path that may go", good().Annotation(v1alpha1.DiscardableVolumesAnnotation, "x, v").Volume("v", HostPath("/data")).Container("b", Running(), MountReadOnly("v", "/v")), ""},
		{"host path of a stripped container", good().RestartPolicy(never).Volume("v", HostPath("/data")).Container("b", Exited(0), Mount("v", "/v")), ""},
		{"writable emptyDir", scratch(Mount("v", "/v")), containers.RefusalVolumeNotCarried},
		{"writable emptyDir that may go", scratch(Mount("v", "/v")).Annotation(v1alpha1.DiscardableVolumesAnnotation, "v"), ""},
		{"writable emptyDir the autoscaler may drop", scratch(Mount("v", "/v")).Annotation("cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes", "v"), ""},
		{"emptyDir only read", scratch(MountReadOnly("v", "/v")), ""},
		{"emptyDir of nobody", scratch(), ""},
		{"writable memory", MakePod("p").Node("a").Volume("shm", Memory()).Container("main", Running(), Mount("shm", "/dev/shm")), ""},
		{"emptyDir of a container that never started", good().Volume("v", EmptyDir()).Container("b", Waiting("ImagePullBackOff"), Mount("v", "/v")), ""},
		{"finished work is shared", scratch(MountReadOnly("v", "/v")).Container("b", Exited(0), Mount("v", "/v")), containers.RefusalFinishedWork},
		{"finished work is shared in memory", MakePod("p").Node("a").RestartPolicy(never).Volume("v", Memory()).
			Container("main", Running(), MountReadOnly("v", "/v")).Container("b", Exited(0), Mount("v", "/v")), containers.RefusalFinishedWork},
		{"finished work that may go", scratch(MountReadOnly("v", "/v")).Container("b", Exited(0), Mount("v", "/v")).Annotation(v1alpha1.DiscardableVolumesAnnotation, "v"), ""},
		{"finished work of its own", scratch().Container("b", Exited(0), Mount("v", "/v")), ""},

		{"devices of one claim", devices(corev1.PodResourceClaim{Name: "gpu", ResourceClaimName: &name}), containers.RefusalResourceClaim},
		{"devices from a template", devices(corev1.PodResourceClaim{Name: "gpu", ResourceClaimTemplateName: &name}), ""},

		{"ReadWriteMany claim", good().Volume("v", Claim("rwx")).Container("b", Running(), Mount("v", "/v")), ""},
		{"ReadOnlyMany claim", good().Volume("v", Claim("rox")).Container("b", Running(), MountReadOnly("v", "/v")), ""},
		{"ReadOnlyMany claim, written to", good().Volume("v", Claim("rox")).Container("b", Running(), Mount("v", "/v")), containers.RefusalClaimNotShareable},
		{"inline disk", good().Volume("v", disk).Container("b", Running(), Mount("v", "/v")), containers.RefusalInlineDisk},
		{"inline disk of a stripped container", good().RestartPolicy(never).Volume("v", disk).Container("b", Exited(0), Mount("v", "/v")), ""},
		{"inline NFS", good().Volume("v", corev1.VolumeSource{NFS: &corev1.NFSVolumeSource{}}).Container("b", Running(), Mount("v", "/v")), ""},
		{"ReadWriteOnce claim", good().Volume("v", Claim("rwo")).Container("b", Running(), Mount("v", "/v")), containers.RefusalClaimNotShareable},
		{"ReadWriteOncePod claim", good().Volume("v", Claim("rwop")).Container("b", Running(), Mount("v", "/v")), containers.RefusalClaimNotShareable},
		{"ReadWriteOnce block device", good().Volume("v", Claim("rwo")).Container("b", Running(), func(c *corev1.Container) {
			c.VolumeDevices = []corev1.VolumeDevice{{Name: "v", DevicePath: "/dev/x"}}
		}), containers.RefusalClaimNotShareable},
		{"ReadWriteOnce claim of a stripped container", good().RestartPolicy(never).Volume("v", Claim("rwo")).Container("b", Exited(0), Mount("v", "/v")), ""},
		{"local disk", good().Volume("v", Claim("local")).Container("b", Running(), Mount("v", "/v")), containers.RefusalLocalVolume},
		{"no such claim", good().Volume("v", Claim("lost")).Container("b", Running(), Mount("v", "/v")), containers.RefusalClaimNotFound},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, refusal := containers.Assess(test.pod.Obj(), notCarried, lookup, nil)
			got, message := "", "-"
			if refusal != nil {
				got, message = refusal.Reason, refusal.Message
			}
			if got != test.want || message == "" {
				t.Errorf("refusal = %q (%s), want %q", got, message, test.want)
			}
		})
	}
}

// memoryOf refers to the memory limit of a container.
func memoryOf(container string) *corev1.ResourceFieldSelector {
	return &corev1.ResourceFieldSelector{ContainerName: container, Resource: "limits.memory"}
}

func envOf(container string) func(*corev1.Container) {
	return func(c *corev1.Container) {
		c.Env = []corev1.EnvVar{{Name: "PLAIN", Value: "x"}, {Name: "MEMORY", ValueFrom: &corev1.EnvVarSource{ResourceFieldRef: memoryOf(container)}}}
	}
}

func downward(container string) corev1.VolumeSource {
	return corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{
		Items: []corev1.DownwardAPIVolumeFile{{Path: "memory", ResourceFieldRef: memoryOf(container)}}}}
}

func projected(container string) corev1.VolumeSource {
	return corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
		{DownwardAPI: &corev1.DownwardAPIProjection{Items: downward(container).DownwardAPI.Items}}}}}
}

func lookup(name string) (*corev1.PersistentVolumeClaim, *corev1.PersistentVolume) {
	switch name {
	case "rwx", "old":
		return MakeClaim(name, corev1.ReadWriteMany), nil
	case "rox":
		return MakeClaim(name, corev1.ReadOnlyMany), nil
	case "rwo":
		return MakeClaim(name, corev1.ReadWriteOnce), nil
	case "rwop":
		return MakeClaim(name, corev1.ReadWriteOncePod), nil
	case "local":
		pv := &corev1.PersistentVolume{Spec: corev1.PersistentVolumeSpec{
			PersistentVolumeSource: corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: "/mnt/disk"}}}}
		return MakeClaim(name, corev1.ReadWriteMany), pv
	}
	return nil, nil
}
