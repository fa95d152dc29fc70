package migration

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/controllers/migration/decide"
)

// recorder is an API server that records what is asked of it.
type recorder struct {
	evictions []policyv1.Eviction
	deletions []metav1.DeleteOptions
	created   []client.Object
	dryRun    bool
}

func (x *recorder) client(t *testing.T, objects ...client.Object) client.Client {
	t.Helper()
	var lists int
	return interceptor.NewClient(cluster(t, &lists, objects...), interceptor.Funcs{
		SubResourceCreate: func(_ context.Context, _ client.Client, _ string, _, sub client.Object, _ ...client.SubResourceCreateOption) error {
			x.evictions = append(x.evictions, *sub.(*policyv1.Eviction))
			return nil
		},
		Delete: func(ctx context.Context, c client.WithWatch, object client.Object, options ...client.DeleteOption) error {
			x.deletions = append(x.deletions, *(&client.DeleteOptions{}).ApplyOptions(options).AsDeleteOptions())
			return c.Delete(ctx, object, options...)
		},
		Create: func(ctx context.Context, c client.WithWatch, object client.Object, options ...client.CreateOption) error {
			x.created = append(x.created, object)
			x.dryRun = x.dryRun || len((&client.CreateOptions{}).ApplyOptions(options).DryRun) > 0
			object.SetUID("from-the-server")
			return c.Create(ctx, object, options...)
		},
	})
}

// stored is a pod as the fake API server knows it, with a resourceVersion.
func stored(t *testing.T, c client.Client, name string) *corev1.Pod {
	t.Helper()
	pod := &corev1.Pod{}
	if err := c.Get(t.Context(), client.ObjectKey{Namespace: "default", Name: name}, pod); err != nil {
		t.Fatal(err)
	}
	return pod
}

// What was judged is what is evicted: a pod of the same name, or one that has changed
// since, is not.
func TestEvictionsHavePreconditions(t *testing.T) {
	tests := map[string]struct {
		action func(pod *corev1.Pod) decide.Action
		dryRun []string
	}{
		"evict": {func(pod *corev1.Pod) decide.Action { return decide.Action{Type: decide.Evict, Pod: pod} }, nil},
		"check": {func(pod *corev1.Pod) decide.Action { return decide.Action{Type: decide.CheckEviction, Pod: pod} }, []string{metav1.DryRunAll}},
		"offer": {func(pod *corev1.Pod) decide.Action {
			return decide.Action{Type: decide.OfferReplacement, Pod: pod, Becomes: pod, Evicts: pod}
		}, []string{metav1.DryRunAll}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var server recorder
			r := &reconciler{client: server.client(t, originalPod())}
			pod := stored(t, r.client, "train")
			if result := r.execute(t.Context(), in(v1alpha1.PhaseHandingOver), test.action(pod)); result.Err != nil {
				t.Fatal(result.Err)
			}
			if pod.UID == "" || pod.ResourceVersion == "" || len(server.evictions) != 1 {
				t.Fatalf("pod %s with UID %q and version %q: %d evictions, want one", pod.Name, pod.UID, pod.ResourceVersion, len(server.evictions))
			}
			want := &metav1.DeleteOptions{DryRun: test.dryRun, Preconditions: &metav1.Preconditions{UID: ptr.To(pod.UID), ResourceVersion: ptr.To(pod.ResourceVersion)}}
			if diff := cmp.Diff(want, server.evictions[0].DeleteOptions); diff != "" || server.evictions[0].Name != "train" {
				t.Errorf("evicted %s with other options (-want +got):\n%s", server.evictions[0].Name, diff)
			}
		})
	}
}

func TestDeletionsAreOfOneObject(t *testing.T) {
	claim := fixture.MakeClaim("checkpoint", corev1.ReadWriteOnce)
	claim.UID = "uid-checkpoint"
	pod, m := originalPod(), in(v1alpha1.PhaseSucceeded)
	for want, action := range map[types.UID]decide.Action{
		pod.UID:   {Type: decide.DeleteReplacement, Pod: pod},
		claim.UID: {Type: decide.DeleteClaim, Claim: claim},
		m.UID:     {Type: decide.DeleteMigration},
	} {
		var server recorder
		r := &reconciler{client: server.client(t, pod.DeepCopy(), claim.DeepCopy(), m.DeepCopy())}
		r.execute(t.Context(), m.DeepCopy(), action)
		if len(server.deletions) != 1 || ptr.Deref(ptr.Deref(server.deletions[0].Preconditions, metav1.Preconditions{}).UID, "") != want {
			t.Errorf("%s: deleted with %+v, want the UID %s as a precondition", action.Type, server.deletions, want)
		}
	}
}

// A write that was decided on an older version of a pod or a claim fails.
func TestChangesHaveALock(t *testing.T) {
	claim := fixture.MakeClaim("checkpoint", corev1.ReadWriteOnce)
	for _, kind := range []decide.ActionType{decide.MarkOriginal, decide.SetRollbackBarrier, decide.ReleaseOriginal, decide.ReadoptOriginal,
		decide.RemoveSchedulingGate, decide.DiscardPod, decide.OrphanClaim, decide.AdoptClaim, decide.KeepPreviousClaim} {
		var server recorder
		r := &reconciler{client: server.client(t, originalPod(), claim.DeepCopy())}
		pod, old := stored(t, r.client, "train"), claim.DeepCopy()
		becomes := pod.DeepCopy()
		becomes.Labels = map[string]string{"a": "b"}
		old.ResourceVersion, old.OwnerReferences = "1", []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: "train", UID: pod.UID}}
		pod.ResourceVersion = "1"
		if result := r.execute(t.Context(), in(v1alpha1.PhaseHandingOver), decide.Action{Type: kind, Pod: pod, Becomes: becomes, Claim: old}); result.Err == nil {
			t.Errorf("%s: an older version was changed", kind)
		}
	}
}

// The objects of a decision are those that Settle and the events are about: taking the
// action does not change them.
func TestExecuteChangesNoObjectOfItsAction(t *testing.T) {
	created := func() *corev1.Pod { return fixture.MakePod("new").Container("serve", nil).Obj() }
	newClaim := func() *corev1.PersistentVolumeClaim { return fixture.MakeClaim("new", corev1.ReadWriteOnce) }
	for name, make := range map[string]func(pod *corev1.Pod, claim *corev1.PersistentVolumeClaim) decide.Action{
		"claim": func(*corev1.Pod, *corev1.PersistentVolumeClaim) decide.Action {
			return decide.Action{Type: decide.CreateClaim, Claim: newClaim()}
		},
		"carrier": func(*corev1.Pod, *corev1.PersistentVolumeClaim) decide.Action {
			return decide.Action{Type: decide.CreateCarrier, Pod: created()}
		},
		"placeholder": func(*corev1.Pod, *corev1.PersistentVolumeClaim) decide.Action {
			return decide.Action{Type: decide.CreatePlaceholder, Pod: created()}
		},
		"replacement": func(*corev1.Pod, *corev1.PersistentVolumeClaim) decide.Action {
			return decide.Action{Type: decide.CreateReplacement, Pod: created()}
		},
		"probe": func(*corev1.Pod, *corev1.PersistentVolumeClaim) decide.Action {
			return decide.Action{Type: decide.ProbeWebhook, Pod: created()}
		},
		"adopt": func(pod *corev1.Pod, claim *corev1.PersistentVolumeClaim) decide.Action {
			return decide.Action{Type: decide.AdoptClaim, Pod: pod, Claim: claim}
		},
		"orphan": func(pod *corev1.Pod, claim *corev1.PersistentVolumeClaim) decide.Action {
			return decide.Action{Type: decide.OrphanClaim, Pod: pod, Claim: claim}
		},
		"mark": func(pod *corev1.Pod, _ *corev1.PersistentVolumeClaim) decide.Action {
			becomes := pod.DeepCopy()
			becomes.Labels = map[string]string{"a": "b"}
			return decide.Action{Type: decide.MarkOriginal, Pod: pod, Becomes: becomes}
		},
	} {
		t.Run(name, func(t *testing.T) {
			var server recorder
			owned := fixture.MakeClaim("checkpoint", corev1.ReadWriteOnce)
			owned.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: "train", UID: originalPod().UID}}
			r := &reconciler{client: server.client(t, originalPod(), owned)}
			claim := &corev1.PersistentVolumeClaim{}
			if err := r.client.Get(t.Context(), client.ObjectKeyFromObject(owned), claim); err != nil {
				t.Fatal(err)
			}
			a := make(stored(t, r.client, "train"), claim)
			pod, becomes, before := a.Pod.DeepCopy(), a.Becomes.DeepCopy(), a.Claim.DeepCopy()
			result := r.execute(t.Context(), in(v1alpha1.PhaseHandingOver), a)
			if result.Err != nil {
				t.Fatal(result.Err)
			}
			if diff := cmp.Diff([]any{pod, becomes, before}, []any{a.Pod, a.Becomes, a.Claim}); diff != "" {
				t.Errorf("an object was changed:\n%s", diff)
			}
			if (result.Created != nil) != (name == "replacement") || result.Created != nil && result.Created.UID != "from-the-server" {
				t.Errorf("created %v, want the replacement as the API server has it", result.Created)
			}
			if server.dryRun != (name == "probe") {
				t.Errorf("created in a dry run: %t", server.dryRun)
			}
		})
	}
}
