package containers_test

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	. "github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods/containers"
)

func TestSharedClaim(t *testing.T) {
	claims := func(name string) (*corev1.PersistentVolumeClaim, *corev1.PersistentVolume) {
		modes := map[string][]corev1.PersistentVolumeAccessMode{
			"rwo": {corev1.ReadWriteOnce}, "rwop": {corev1.ReadWriteOncePod}, "rox": {corev1.ReadOnlyMany}, "rwx": {corev1.ReadWriteMany},
			"both": {corev1.ReadWriteOnce, corev1.ReadOnlyMany},
		}[name]
		if modes == nil {
			return nil, nil
		}
		return &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PersistentVolumeClaimSpec{AccessModes: modes}}, nil
	}
	using := func(pod, claim string, mount func(volume, path string) func(*corev1.Container)) *PodBuilder {
		return MakePod(pod).Node("a").Volume("v", Claim(claim)).Container("main", Running(), mount("v", "/v"))
	}
	writer := func(claim string) *PodBuilder { return using("writer", claim, Mount) }
	other := func(claim string) *PodBuilder { return using("other", claim, Mount) }
	finished := MakePod("writer").Node("a").RestartPolicy(never).Volume("v", Claim("rwo")).
		Container("prepare", Exited(0), Mount("v", "/v")).Container("main", Running())
	for name, test := range map[string]struct {
		pod, other *PodBuilder
		refused    bool
	}{
		"ReadWriteOnce":                       {writer("rwo"), other("rwo"), true},
		"ReadWriteOncePod":                    {writer("rwop"), other("rwop"), true},
		"ReadWriteMany":                       {writer("rwx"), other("rwx"), false},
		"two claims":                          {writer("rwo"), other("rwop"), false},
		"a claim that does not exist":         {writer("x"), other("x"), false},
		"ReadOnlyMany, both only read":        {using("writer", "rox", MountReadOnly), using("other", "rox", MountReadOnly), false},
		"ReadOnlyMany, this one writes":       {writer("both"), using("other", "both", MountReadOnly), true},
		"ReadOnlyMany, the other writes":      {using("writer", "both", MountReadOnly), other("both"), true},
		"ReadWriteOnce, both only read":       {using("writer", "rwo", MountReadOnly), using("other", "rwo", MountReadOnly), true},
		"the other is on another node":        {writer("rwo"), other("rwo").Node("b"), true},
		"the other has no node yet":           {writer("rwo"), other("rwo").Node(""), false},
		"the other has finished":              {writer("rwo"), other("rwo").Phase(corev1.PodSucceeded), false},
		"the other has failed":                {writer("rwo"), other("rwo").Phase(corev1.PodFailed), false},
		"the other is ending":                 {writer("rwo"), other("rwo").With(func(p *corev1.Pod) { p.DeletionTimestamp = new(metav1.Now()) }), true},
		"the other mounts it in no container": {writer("rwo"), MakePod("other").Node("a").Volume("v", Claim("rwo")).Container("main", Running()), true},
		"this one mounts it in no container":  {MakePod("writer").Node("a").Volume("v", Claim("rwo")).Container("main", Running()), other("rwo"), false},
		"who mounted it has finished":         {finished, other("rwo"), false},
		"the other is of another namespace":   {writer("rwo"), other("rwo").Namespace("elsewhere"), false},
		"the same pod":                        {writer("rwo"), writer("rwo"), false},
		"the replacement of this pod":         {writer("rwo"), other("rwo").Node("b").Annotation(v1alpha1.OriginalUIDAnnotation, "uid-writer"), false},
		"the replacement of another":          {writer("rwo"), other("rwo").Annotation(v1alpha1.OriginalUIDAnnotation, "uid-x"), true},
		"a pod of ours":                       {writer("rwo"), other("rwo").Label(v1alpha1.RoleLabel, v1alpha1.RolePlaceholder), false},
	} {
		t.Run(name, func(t *testing.T) {
			stranger := MakePod("stranger").Node("a").Container("main", Running()).Obj()
			r := containers.SharedClaim(test.pod.Obj(), []corev1.Pod{*stranger, *test.other.Obj()}, claims)
			if (r != nil) != test.refused {
				t.Fatalf("refused: %+v, want %v", r, test.refused)
			}
			if r != nil && (r.Reason != containers.RefusalClaimShared || !strings.Contains(r.Message, "pod other on node")) {
				t.Errorf("refused with %+v, want a sentence that names the other pod", r)
			}
		})
	}
}
