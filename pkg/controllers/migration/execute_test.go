package migration

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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

func executorFor(c client.Client, m *v1alpha1.PodMigration) executor {
	return executor{reconciler: &reconciler{client: c}, migration: m}
}

// What was judged is what is evicted: a pod of the same name, or one that has changed
// since, is not.
func TestEvictionIsOfWhatWasJudged(t *testing.T) {
	for name, dryRun := range map[string][]string{"evict": nil, "ask": {metav1.DryRunAll}} {
		t.Run(name, func(t *testing.T) {
			var server recorder
			c := server.client(t, originalPod())
			pod := stored(t, c, "train")
			if result := (decide.EvictPod{Pod: pod, DryRun: dryRun != nil}).Do(t.Context(), executorFor(c, in(v1alpha1.PhaseHandingOver))); result.Err != nil {
				t.Fatal(result.Err)
			}
			if pod.UID == "" || pod.ResourceVersion == "" || len(server.evictions) != 1 {
				t.Fatalf("pod %s with UID %q and version %q: %d evictions, want one", pod.Name, pod.UID, pod.ResourceVersion, len(server.evictions))
			}
			want := &metav1.DeleteOptions{DryRun: dryRun, Preconditions: &metav1.Preconditions{UID: ptr.To(pod.UID), ResourceVersion: ptr.To(pod.ResourceVersion)}}
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
	for _, object := range []decide.Object{pod, claim, m} {
		var server recorder
		c := server.client(t, pod.DeepCopy(), claim.DeepCopy(), m.DeepCopy())
		decide.DeleteObject{Object: object}.Do(t.Context(), executorFor(c, m.DeepCopy()))
		if len(server.deletions) != 1 || ptr.Deref(ptr.Deref(server.deletions[0].Preconditions, metav1.Preconditions{}).UID, "") != object.GetUID() {
			t.Errorf("%T: deleted with %+v, want its UID %s as a precondition", object, server.deletions, object.GetUID())
		}
	}
}

// A write that was decided on an older version of an object fails.
func TestChangesHaveALock(t *testing.T) {
	for _, object := range []client.Object{originalPod(), fixture.MakeClaim("checkpoint", corev1.ReadWriteOnce), in(v1alpha1.PhasePreparing)} {
		var server recorder
		c := server.client(t, object)
		older := object.DeepCopyObject().(client.Object)
		if err := c.Get(t.Context(), client.ObjectKeyFromObject(object), older); err != nil {
			t.Fatal(err)
		}
		older.SetResourceVersion("1")
		becomes := older.DeepCopyObject().(client.Object)
		becomes.SetLabels(map[string]string{"a": "b"})
		for name, action := range map[string]decide.Action{
			"change":            decide.ChangeObject{From: older, To: becomes},
			"change when asked": decide.ProbeAdmission{Probe: fixture.MakePod("probe").Label(v1alpha1.MigrationUIDLabel, "m").Container("serve", nil).Obj(), From: podFrom(older), To: podFrom(becomes)},
		} {
			if probe, isProbe := action.(decide.ProbeAdmission); isProbe && probe.From == nil {
				continue
			}
			if result := action.Do(t.Context(), executorFor(c, in(v1alpha1.PhaseHandingOver))); result.Err == nil {
				t.Errorf("%s of %T: an older version was changed", name, object)
			}
		}
	}
}

func podFrom(object client.Object) *corev1.Pod {
	pod, _ := object.(*corev1.Pod)
	return pod
}

// The objects of a decision are those that Settle and the events are about: taking the
// action does not change them.
func TestActionsChangeNoObjectOfTheirs(t *testing.T) {
	created := fixture.MakePod("new").Container("serve", nil).Obj()
	newClaim := fixture.MakeClaim("new", corev1.ReadWriteOnce)
	for name, create := range map[string]func(pod *corev1.Pod) decide.Action{
		"claim": func(*corev1.Pod) decide.Action { return decide.CreateObject{Object: newClaim.DeepCopy()} },
		"pod":   func(*corev1.Pod) decide.Action { return decide.CreateObject{Object: created.DeepCopy()} },
		"probe": func(*corev1.Pod) decide.Action { return decide.ProbeAdmission{Probe: created.DeepCopy()} },
		"change": func(pod *corev1.Pod) decide.Action {
			becomes := pod.DeepCopy()
			becomes.Labels = map[string]string{"a": "b"}
			return decide.ChangeObject{From: pod, To: becomes}
		},
		"status": func(pod *corev1.Pod) decide.Action {
			becomes := pod.DeepCopy()
			becomes.Status.NominatedNodeName = "b"
			return decide.ChangeStatus{From: pod, To: becomes}
		},
	} {
		t.Run(name, func(t *testing.T) {
			var server recorder
			c := server.client(t, originalPod())
			action := create(stored(t, c, "train"))
			before := fmt.Sprintf("%#v", flat(action))
			result := action.Do(t.Context(), executorFor(c, in(v1alpha1.PhaseHandingOver)))
			if result.Err != nil {
				t.Fatal(result.Err)
			}
			if after := fmt.Sprintf("%#v", flat(action)); after != before {
				t.Errorf("an object was changed:\n%s\n%s", before, after)
			}
			if (result.Created != nil) != (name == "pod") || result.Created != nil && result.Created.UID != "from-the-server" {
				t.Errorf("created %v, want the pod as the API server has it", result.Created)
			}
			if server.dryRun != (name == "probe") {
				t.Errorf("created in a dry run: %t", server.dryRun)
			}
		})
	}
}

// flat is all of an action, objects included.
func flat(action decide.Action) string {
	text, err := json.Marshal(action)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// What is done to the migration itself is what its status is written over.
func TestTheMigrationTakesTheAnswer(t *testing.T) {
	var server recorder
	m := in(v1alpha1.PhasePreparing)
	c := server.client(t, m)
	if err := c.Get(t.Context(), client.ObjectKeyFromObject(m), m); err != nil {
		t.Fatal(err)
	}
	protected := m.DeepCopy()
	protected.Finalizers = append(protected.Finalizers, "example.com/another")
	judged := m.DeepCopy()
	if result := (decide.ChangeObject{From: judged, To: protected}).Do(t.Context(), executorFor(c, m)); result.Err != nil {
		t.Fatal(result.Err)
	}
	if m.ResourceVersion == judged.ResourceVersion || len(m.Finalizers) != len(protected.Finalizers) {
		t.Errorf("version %s, finalizers %v, want those of the API server", m.ResourceVersion, m.Finalizers)
	}
}
