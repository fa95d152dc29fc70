package checkpointvolume

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/klog/v2"

	"github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods/owners"
)

// expecting is a migration that waits for the next pod of StatefulSet database.
func expecting(phase v1alpha1.Phase) *v1alpha1.PodMigration {
	m := &v1alpha1.PodMigration{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.SchemeGroupVersion.String(), Kind: "PodMigration"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "m", UID: "m"},
	}
	m.Status = v1alpha1.PodMigrationStatus{
		Phase: phase,
		Handover: &v1alpha1.Handover{
			Method: v1alpha1.MethodRecreate, Order: v1alpha1.OrderStopFirst, Identity: "database-1",
			Owner: &metav1.OwnerReference{APIVersion: "apps/v1", Kind: "StatefulSet", Name: "database", UID: "set", Controller: new(true)},
		},
		Conditions: []metav1.Condition{{Type: v1alpha1.ConditionReplacementPending, Status: metav1.ConditionTrue}},
	}
	return m
}

func podOfSet(name string, set types.UID) *corev1.Pod {
	pod := fixture.MakePod(name).Obj()
	pod.Namespace = "default"
	pod.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "StatefulSet", Name: "database", UID: set, Controller: new(true)}}
	return pod
}

// A pod that its owner made while the webhook did not answer waits, until its
// migration no longer expects it. No other pod does.
func TestPodsThatMissedTheWebhookWait(t *testing.T) {
	w := newWorld(t, time.Second)
	raw, err := runtime.DefaultUnstructuredConverter.ToUnstructured(expecting(v1alpha1.PhaseHandingOver))
	if err != nil {
		t.Fatal(err)
	}
	resource := v1alpha1.SchemeGroupVersion.WithResource("podmigrations")
	client := dynamicfake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), map[schema.GroupVersionResource]string{resource: "PodMigrationList"}, &unstructured.Unstructured{Object: raw})
	if w.seals, err = sealsOf(t.Context(), client, func(pods map[string]*corev1.Pod) { w.activated.Activate(klog.Background(), pods) }); err != nil {
		t.Fatal(err)
	}
	plain := podOfSet("database-1", "set")
	eventually(t, "the pod waits", func() bool { return w.PreEnqueue(t.Context(), plain) != nil })

	replacement := podOfSet("database-1", "set")
	replacement.Labels = map[string]string{v1alpha1.MigrationUIDLabel: "m"}
	bare, elsewhere := fixture.MakePod("database-1").Obj(), podOfSet("database-1", "set")
	elsewhere.Namespace = "other"
	for name, pod := range map[string]*corev1.Pod{
		"another ordinal": podOfSet("database-0", "set"), "another set": podOfSet("database-1", "other"),
		"another namespace": elsewhere, "the replacement": replacement, "no owner": bare,
	} {
		if status := w.PreEnqueue(t.Context(), pod); status != nil {
			t.Errorf("%s: %v, want it to pass", name, status)
		}
	}

	// The replacement of the same name, which cannot be there beside it, has passed.
	if w.PreEnqueue(t.Context(), plain) == nil {
		t.Error("the pod does not wait any more")
	}

	rollingBack := expecting(v1alpha1.PhaseHandingOver)
	rollingBack.Status.Conditions[0].Status = metav1.ConditionFalse
	if owners.MustWait(rollingBack, plain) {
		t.Error("the pod waits for a migration that has its replacement")
	}
	rollingBack.Status.Conditions = append(rollingBack.Status.Conditions, metav1.Condition{Type: v1alpha1.ConditionRolledBack, Status: metav1.ConditionFalse})
	if !owners.MustWait(rollingBack, plain) {
		t.Error("the pod does not wait for a migration that is being rolled back")
	}

	finished, err := runtime.DefaultUnstructuredConverter.ToUnstructured(expecting(v1alpha1.PhaseFailed))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Resource(resource).Namespace("default").Update(t.Context(), &unstructured.Unstructured{Object: finished}, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	// As the scheduler does, the pod is asked again whenever it is activated: for the
	// first sight of the migration too, which may come after the pod waits for it.
	asked := 0
	eventually(t, "the pod is activated and passes, when its migration has ended", func() bool {
		activations := len(w.activated.names())
		if activations == asked {
			return false
		}
		asked = activations
		return w.PreEnqueue(t.Context(), plain) == nil
	})
}
