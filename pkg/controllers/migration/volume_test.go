package migration

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// The class of a volume says for all of its volumes that every node has the same path.
func TestClaimsKnowWhatTheirClassSays(t *testing.T) {
	class := func(name, shared string) *storagev1.StorageClass {
		return &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{v1alpha1.SharedPathAnnotation: shared}}}
	}
	for name, want := range map[string]string{"shared": "true", "own": "", "gone": "", "": ""} {
		claim := fixture.MakeClaim("data", corev1.ReadWriteOnce)
		volume := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: claim.Spec.VolumeName}, Spec: corev1.PersistentVolumeSpec{
			StorageClassName:       name,
			PersistentVolumeSource: corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/data"}},
		}}
		scheme := runtime.NewScheme()
		for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, storagev1.AddToScheme} {
			if err := add(scheme); err != nil {
				t.Fatal(err)
			}
		}
		objects := []client.Object{claim, volume, class("shared", "true"), class("own", "false")}
		r := &reconciler{live: fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).Build()}
		pod := fixture.MakePod("p").Volume("data", fixture.Claim("data")).Obj()
		lookup, err := r.claims(t.Context(), pod, "")
		if err != nil {
			t.Fatal(err)
		}
		if _, got := lookup("data"); got == nil || got.Annotations[v1alpha1.SharedPathAnnotation] != want {
			t.Errorf("class %q: volume %+v, want the annotation %q", name, got, want)
		}
	}
}
