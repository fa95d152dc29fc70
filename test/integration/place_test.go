package integration

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/controllers/migration"
	"github.com/ai-storage/orchestrator/pkg/controllers/migration/decide"
	"github.com/ai-storage/orchestrator/pkg/scheduling/plugins/checkpointvolume"
)

// placedByOurs is a world whose pods the real scheduler places, on nodes of its own.
func placedByOurs(t *testing.T) (w *world, nodes map[string]string) {
	t.Helper()
	w = newWorld(t)
	w.change(func(w *world) { w.place = func(*corev1.Pod) string { return "" } })
	nodes = map[string]string{}
	for _, name := range []string{"n1", "n2", "n3"} {
		nodes[name] = makeNode(t, w.namespace, name)
		makeReady(t, nodes[name])
	}
	return w, nodes
}

// makeReady plays the kubelet of a node: its label, and that it is Ready.
func makeReady(t *testing.T, name string) {
	t.Helper()
	node := &corev1.Node{}
	if err := k8s.Get(t.Context(), client.ObjectKey{Name: name}, node); err != nil {
		t.Fatal(err)
	}
	changed := node.DeepCopy()
	changed.Labels[corev1.LabelHostname] = name
	if err := k8s.Patch(t.Context(), changed, client.MergeFrom(node)); err != nil {
		t.Fatal(err)
	}
	node = changed.DeepCopy()
	changed.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()}}
	if err := k8s.Status().Patch(t.Context(), changed, client.MergeFrom(node)); err != nil {
		t.Fatal(err)
	}
}

func cordon(t *testing.T, name string) {
	t.Helper()
	change(t, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}, func(n *corev1.Node) { n.Spec.Unschedulable = true })
}

// on is a running pod of an app on a node of the test.
func (w *world) on(name, app, node string, with func(*corev1.Pod)) *corev1.Pod {
	w.t.Helper()
	pod := fixture.MakePod(name).Node(node).Container("c", fixture.Running(), fixture.Requests("100m", "64Mi")).Obj()
	pod.Labels = map[string]string{"app": app}
	pod.Spec.SchedulerName = v1alpha1.SchedulerName
	pod.Spec.NodeSelector = map[string]string{"test": w.namespace}
	if with != nil {
		with(pod)
	}
	return w.createOriginal(pod)
}

// stopFirst asks for a move that stops the pod first.
func (w *world) stopFirst(pod string) *v1alpha1.PodMigration {
	w.t.Helper()
	m := newMigration(w.namespace, "m", pod)
	m.Spec.ForceRestart = true
	return w.request(m)
}

// aPlaceThatTheReplacementCannotHave: the only free node has a pod that keeps pods with
// the labels of the original away, or is one too many for its spread. The placeholder has
// none of these labels.
func aPlaceThatTheReplacementCannotHave(t *testing.T) {
	selector := func(app string) *metav1.LabelSelector {
		return &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}
	}
	spread := func(pod *corev1.Pod) {
		pod.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{
			MaxSkew: 1, TopologyKey: corev1.LabelHostname, WhenUnsatisfiable: corev1.DoNotSchedule, LabelSelector: selector("batch"),
		}}
	}
	for name, row := range map[string]struct {
		original, other func(*corev1.Pod)
		app, words      string
	}{
		"anti-affinity of another pod": {
			app: "web", words: "existing pods anti-affinity rules",
			other: func(pod *corev1.Pod) {
				pod.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{
					RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{TopologyKey: corev1.LabelHostname, LabelSelector: selector("batch")}},
				}}
			},
		},
		// n1 has the original, n2 one, and n3, which is full, none.
		"spread": {app: "batch", original: spread, other: spread, words: "topology spread constraints"},
	} {
		t.Run(name, func(t *testing.T) {
			w, nodes := placedByOurs(t)
			original := w.on("batch", "batch", nodes["n1"], row.original)
			w.on("other", row.app, nodes["n2"], row.other)
			full := w.on("full", "full", nodes["n3"], func(pod *corev1.Pod) { pod.Spec.Containers[0].Resources.Requests["cpu"] = resource.MustParse("3950m") })
			w.controller(migration.Options{UnschedulableGrace: 3 * time.Second})
			w.stopFirst("batch")
			m := w.waitForEnd("m")
			rolledBack := meta.FindStatusCondition(m.Status.Conditions, v1alpha1.ConditionRolledBack)
			if m.Status.Phase != v1alpha1.PhaseFailed || rolledBack == nil || rolledBack.Reason != decide.ReasonUnschedulable {
				t.Fatalf("phase %s, message %q, condition %+v", m.Status.Phase, m.Status.Message, rolledBack)
			}
			for _, want := range []string{checkpointvolume.ReasonNotForReplacement, row.words} {
				if !strings.Contains(m.Status.Message, want) {
					t.Errorf("message %q lacks %q", m.Status.Message, want)
				}
			}
			now := &corev1.Pod{}
			if err := k8s.Get(t.Context(), client.ObjectKeyFromObject(original), now); err != nil || now.UID != original.UID || now.DeletionTimestamp != nil {
				t.Errorf("the original: %v, deleted %v", err, now.DeletionTimestamp)
			}
			// With another node free, it is that one.
			w.must(k8s.Delete(t.Context(), full))
			m2 := newMigration(w.namespace, "again", "batch")
			m2.Spec.ForceRestart = true
			w.request(m2)
			if m = w.waitForPhase("again", v1alpha1.PhaseSucceeded); m.Status.Replacement.NodeName != nodes["n3"] {
				t.Errorf("moved to %s, want %s", m.Status.Replacement.NodeName, nodes["n3"])
			}
		})
	}
}

// aNodeThatAnAutoscalerMakes: all nodes are full. An autoscaler says that it makes one,
// which takes longer than the grace; the pod goes there.
func aNodeThatAnAutoscalerMakes(t *testing.T) {
	w, nodes := placedByOurs(t)
	w.on("train", "train", nodes["n1"], nil)
	cordon(t, nodes["n2"])
	cordon(t, nodes["n3"])
	w.controller(migration.Options{UnschedulableGrace: 8 * time.Second})
	w.request(newMigration(w.namespace, "m", "train"))
	var waits *corev1.Pod
	eventually(t, 30*time.Second, func(ctx context.Context) error {
		var list corev1.PodList
		if err := k8s.List(ctx, &list, client.InNamespace(w.namespace)); err != nil {
			return err
		}
		for i := range list.Items {
			for _, c := range list.Items[i].Status.Conditions {
				if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
					waits = &list.Items[i]
					return nil
				}
			}
		}
		return fmt.Errorf("no pod waits among %d", len(list.Items))
	})
	w.must(k8s.Create(t.Context(), &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Namespace: w.namespace, Name: "scale-up"},
		InvolvedObject: corev1.ObjectReference{Kind: "Pod", Namespace: w.namespace, Name: waits.Name, UID: waits.UID},
		Reason:         "TriggeredScaleUp", Message: "pod triggered scale-up: [{pool 3->4 (max: 9)}]", Type: corev1.EventTypeNormal,
		Source: corev1.EventSource{Component: "cluster-autoscaler"}, LastTimestamp: metav1.Now(), Count: 1,
	}))
	eventually(t, 30*time.Second, func(ctx context.Context) error {
		m := &v1alpha1.PodMigration{}
		if err := k8s.Get(ctx, client.ObjectKey{Namespace: w.namespace, Name: "m"}, m); err != nil {
			return err
		}
		if !strings.Contains(m.Status.Message, "TriggeredScaleUp: pod triggered scale-up") {
			return fmt.Errorf("phase %s: %s", m.Status.Phase, m.Status.Message)
		}
		return nil
	})
	made := makeNode(t, w.namespace, "made")
	if m := w.waitForPhase("m", v1alpha1.PhaseSucceeded); m.Status.Replacement.NodeName != made {
		t.Errorf("moved to %s, want the node that was made", m.Status.Replacement.NodeName)
	}
}
