package containers

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// CarrierName is the name of the carrier of a migration.
func CarrierName(root string, migration types.UID, created time.Time) string {
	return fitName("", root, "-carrier-"+timestamp(migration, created))
}

// BuildCarrier returns the pod that mounts the checkpoint claim on the node of
// the original, so that the node agent can reach it there. It does nothing.
func BuildCarrier(original *corev1.Pod, name, claim string, migration types.UID, image string) *corev1.Pod {
	root := RootName(original)
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: original.Namespace, Name: name,
			Labels: map[string]string{
				v1alpha1.MigrationUIDLabel: string(migration),
				v1alpha1.RoleLabel:         v1alpha1.RoleCarrier,
				v1alpha1.OriginalPodLabel:  v1alpha1.LabelValue(root),
			},
			Annotations: map[string]string{v1alpha1.ExcludeAnnotation: "true", v1alpha1.OriginalPodLabel: root},
		},
		Spec: corev1.PodSpec{
			SchedulerName: v1alpha1.SchedulerName,
			// The source node may be cordoned, or under pressure: that may be why the
			// pod leaves it.
			Tolerations: []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
			Affinity: &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
				RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
					MatchFields: []corev1.NodeSelectorRequirement{onNodeName(corev1.NodeSelectorOpIn, original.Spec.NodeName)},
				}}},
			}},
			AutomountServiceAccountToken:  new(false),
			EnableServiceLinks:            new(false),
			TerminationGracePeriodSeconds: new(int64(1)),
			ImagePullSecrets:              original.Spec.ImagePullSecrets,
			Containers: []corev1.Container{{
				Name: "carrier", Image: image, Args: []string{"pause"}, SecurityContext: restricted(), Resources: carrierResources(original),
				VolumeMounts: []corev1.VolumeMount{{Name: v1alpha1.CheckpointVolumeName, MountPath: v1alpha1.CheckpointMountPath}},
			}},
			Volumes: []corev1.Volume{{
				Name: v1alpha1.CheckpointVolumeName,
				VolumeSource: corev1.VolumeSource{
					PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim},
				},
			}},
		},
	}
}

// carrierResources are few, and both requested and limited, so that the carrier passes a
// quota on either. Where the original names no CPU or memory the namespace has no such
// quota, and the carrier requests nothing: its node may be full.
func carrierResources(original *corev1.Pod) corev1.ResourceRequirements {
	named := original.Spec.Resources != nil
	eachContainer(&original.Spec, func(c *corev1.Container) {
		for _, list := range []corev1.ResourceList{c.Resources.Requests, c.Resources.Limits} {
			_, cpu := list[corev1.ResourceCPU]
			_, memory := list[corev1.ResourceMemory]
			named = named || cpu || memory
		}
	})
	if !named {
		return corev1.ResourceRequirements{}
	}
	return corev1.ResourceRequirements{Requests: leastResources(), Limits: leastResources()}
}
