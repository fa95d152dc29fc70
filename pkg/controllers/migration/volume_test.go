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

// The class of a checkpoint claim is the one that is named, or any that is a default.
func TestTheClassOfAClaim(t *testing.T) {
	class := func(name string, annotations ...string) *storagev1.StorageClass {
		c := &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: name}}
		for i := 0; i < len(annotations); i += 2 {
			metav1.SetMetaDataAnnotation(&c.ObjectMeta, annotations[i], annotations[i+1])
		}
		return c
	}
	const isDefault, wasDefault = "storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"
	defaults := []client.Object{class("a", isDefault, "true"), class("b", isDefault, "true")}
	scheme := runtime.NewScheme()
	if err := storagev1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		classes []client.Object
		spec    v1alpha1.CheckpointSpec
		want    bool
	}{
		"no class":                           {nil, v1alpha1.CheckpointSpec{}, false},
		"no default":                         {[]client.Object{class("a")}, v1alpha1.CheckpointSpec{}, false},
		"no default any more":                {[]client.Object{class("a", isDefault, "false")}, v1alpha1.CheckpointSpec{}, false},
		"a default":                          {defaults[:1], v1alpha1.CheckpointSpec{}, true},
		"several defaults":                   {defaults, v1alpha1.CheckpointSpec{}, true},
		"a default, in the old way":          {[]client.Object{class("a", wasDefault, "true")}, v1alpha1.CheckpointSpec{}, true},
		"named, and no default":              {[]client.Object{class("a")}, v1alpha1.CheckpointSpec{StorageClassName: new("a")}, true},
		"named, and another one the default": {defaults, v1alpha1.CheckpointSpec{StorageClassName: new("c")}, false},
		"a volume that was made by hand":     {nil, v1alpha1.CheckpointSpec{StorageClassName: new("")}, true},
		"no claim is wanted":                 {defaults, v1alpha1.CheckpointSpec{Claim: v1alpha1.ClaimNever}, false},
		"one to be kept is":                  {defaults, v1alpha1.CheckpointSpec{Claim: v1alpha1.ClaimNever, ReclaimPolicy: v1alpha1.ClaimRetain}, true},
	} {
		r := &reconciler{live: fake.NewClientBuilder().WithScheme(scheme).WithObjects(test.classes...).Build()}
		if got, err := r.hasClass(t.Context(), test.spec); err != nil || got != test.want {
			t.Errorf("%s: %t, error %v, want %t", name, got, err, test.want)
		}
	}
}
