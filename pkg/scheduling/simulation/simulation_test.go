package simulation

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/component-helpers/resource"
	st "k8s.io/kubernetes/pkg/scheduler/testing"

	"github.com/ai-storage/orchestrator/pkg/apis/config/load"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/scheduling/cluster"
)

func newSimulator(t testing.TB, objects ...runtime.Object) *Simulator {
	t.Helper()
	configuration, err := load.File("../../../config/scheduler-configuration.yaml")
	if err != nil {
		t.Fatal(err)
	}
	client := fake.NewClientset(objects...)
	factory := informers.NewSharedInformerFactory(client, 0)
	ctx, cancel := context.WithCancel(context.Background())
	simulator, err := New(ctx, configuration.Scheduler, client, factory, nil)
	if err != nil {
		t.Fatal(err)
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	t.Cleanup(func() {
		cancel()
		factory.Shutdown()
	})
	return simulator
}

func node(name string) *cluster.Node {
	object := st.MakeNode().Name(name).Label(corev1.LabelHostname, name).
		Capacity(map[corev1.ResourceName]string{"cpu": "4", "memory": "8Gi", "pods": "20"}).Obj()
	return &cluster.Node{Name: name, Object: object}
}

func running(object *corev1.Pod) *cluster.Pod {
	return &cluster.Pod{
		Namespace: object.Namespace, Name: object.Name, UID: object.UID, NodeName: object.Spec.NodeName,
		Requests: cluster.ResourcesOf(resource.PodRequests(object, resource.PodResourcesOptions{})), Object: object,
	}
}

func pod(name string) *st.PodWrapper {
	return st.MakePod().Namespace("default").Name(name).UID("uid-" + name).SchedulerName(v1alpha1.SchedulerName)
}

func cpu(amount string) map[corev1.ResourceName]string {
	return map[corev1.ResourceName]string{"cpu": amount}
}

func mustFit(t *testing.T, session *Session, pod *corev1.Pod, nodeName string) Verdict {
	t.Helper()
	verdict, err := session.Fits(context.Background(), pod, nodeName)
	if err != nil {
		t.Fatal(err)
	}
	return verdict
}

func TestFits(t *testing.T) {
	tainted := node("n2")
	tainted.Object.Spec.Taints = []corev1.Taint{{Key: "gpu", Effect: corev1.TaintEffectNoSchedule}}
	cordoned := node("n3")
	cordoned.Object.Spec.Unschedulable = true
	snapshot := cluster.NewSnapshot(time.Time{},
		[]*cluster.Node{node("n0"), node("n1"), tainted, cordoned},
		[]*cluster.Pod{
			running(pod("big").Req(cpu("3")).Node("n0").Obj()),
			running(pod("other").Label("app", "loner").Node("n1").Obj()),
			running(pod("port").HostPort(8080).Node("n1").Obj()),
		})
	fromSource := pod("moved").Annotation(v1alpha1.SourceNodeAnnotation, "n1").Obj()
	required := pod("pinned").NodeAffinityIn("zone", []string{"a"}, st.NodeSelectorTypeMatchExpressions).Obj()
	apart := loner("apart")

	for _, tc := range []struct {
		name string
		pod  *corev1.Pod
		node string
		want Verdict
	}{
		{"room", pod("p").Req(cpu("1")).Obj(), "n0", Verdict{Fits: true}},
		{"no room", pod("p").Req(cpu("1001m")).Obj(), "n0", Verdict{Plugin: "NodeResourcesFit", Reason: "Insufficient cpu"}},
		{"taint", pod("p").Obj(), "n2", Verdict{Plugin: "TaintToleration", Reason: "node(s) had untolerated taint(s)"}},
		{"cordoned", pod("p").Obj(), "n3", Verdict{Plugin: "NodeUnschedulable", Reason: "node(s) were unschedulable"}},
		{"host port", pod("p").HostPort(8080).Obj(), "n1", Verdict{Plugin: "NodePorts", Reason: "node(s) didn't have free ports for the requested pod ports"}},
		{"anti-affinity", apart, "n1", Verdict{Plugin: "InterPodAffinity", Reason: "node(s) didn't match pod anti-affinity rules"}},
		{"anti-affinity elsewhere", apart, "n0", Verdict{Fits: true}},
		{"node affinity", required, "n0", Verdict{Plugin: "NodeAffinity", Reason: "node(s) didn't match Pod's node affinity/selector"}},
		{"source node", fromSource, "n1", Verdict{Plugin: "CheckpointVolume", Reason: "node(s) are the source of the migration"}},
		{"not the source node", fromSource, "n0", Verdict{Fits: true}},
		{"claim that is missing", pod("p").PVC("gone").Obj(), "n0", Verdict{Plugin: "VolumeRestrictions", Reason: `persistentvolumeclaim "gone" not found`}},
		{"checkpoint claim to be made", withCheckpoint(pod("p").Obj()), "n0", Verdict{Fits: true}},
		{"pod that is on another node now", pod("p").Node("n1").Req(cpu("1")).Obj(), "n0", Verdict{Fits: true}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			session := newSimulator(t).Session(snapshot)
			if diff := cmp.Diff(tc.want, mustFit(t, session, tc.pod, tc.node)); diff != "" {
				t.Errorf("verdict (-want +got):\n%s", diff)
			}
		})
	}
}

func withCheckpoint(pod *corev1.Pod) *corev1.Pod {
	pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{
		Name: v1alpha1.CheckpointVolumeName,
		VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "checkpoint-p-20260101"},
		},
	})
	return pod
}

// Two moves into one free slot: the second must see the first, and the
// original holds its room until it is removed.
func TestPlaceAndRemove(t *testing.T) {
	original := pod("original").Label("app", "db").Req(cpu("3")).Node("n0").Obj()
	snapshot := cluster.NewSnapshot(time.Time{}, []*cluster.Node{node("n0"), node("n1")}, []*cluster.Pod{running(original)})
	simulator := newSimulator(t)
	session := simulator.Session(snapshot)

	replacement := original.DeepCopy()
	replacement.Name, replacement.UID, replacement.Spec.NodeName = "", "", ""
	replacement.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{
		RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{
			TopologyKey:   corev1.LabelHostname,
			LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "db"}},
		}},
	}}
	if got := mustFit(t, session, replacement, "n1"); !got.Fits {
		t.Fatalf("the first replacement does not fit: %+v", got)
	}
	if err := session.Place(replacement, "n1"); err != nil {
		t.Fatal(err)
	}
	if got := mustFit(t, session, replacement, "n1"); got.Plugin != "NodeResourcesFit" && got.Plugin != "InterPodAffinity" {
		t.Errorf("a second replacement on the same node: %+v", got)
	}
	plain := pod("plain").Req(cpu("2")).Obj()
	for _, name := range []string{"n0", "n1"} {
		if got := mustFit(t, session, plain, name); got.Plugin != "NodeResourcesFit" {
			t.Errorf("with original and replacement in place, %s: %+v", name, got)
		}
	}
	if err := session.Remove(original); err != nil {
		t.Fatal(err)
	}
	if got := mustFit(t, session, plain, "n0"); !got.Fits {
		t.Errorf("the room of a removed original: %+v", got)
	}
	if got := mustFit(t, session, replacement, "n0"); !got.Fits {
		t.Errorf("anti-affinity against a removed original: %+v", got)
	}
	if err := session.Remove(original); err == nil {
		t.Error("removed twice without an error")
	}
	if got := mustFit(t, simulator.Session(snapshot), plain, "n0"); got.Fits {
		t.Error("a session changed the snapshot")
	}
}

// loner keeps away from every other loner on its node.
func loner(name string) *corev1.Pod {
	loner := pod(name).Label("app", "loner").
		PodAntiAffinity("app", &metav1.LabelSelector{MatchLabels: map[string]string{"app": "loner"}}, st.PodAntiAffinityWithRequiredReq).Obj()
	loner.Spec.Affinity.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution[0].TopologyKey = corev1.LabelHostname
	return loner
}

// What PreFilter found is kept between questions about one pod. It must not
// outlive a change.
func TestAntiAffinityFollowsChanges(t *testing.T) {
	session := newSimulator(t).Session(cluster.NewSnapshot(time.Time{}, []*cluster.Node{node("n0"), node("n1")}, nil))
	asked := loner("asked")
	refused := Verdict{Plugin: "InterPodAffinity", Reason: "node(s) didn't match pod anti-affinity rules"}
	check := func(when string, want Verdict) {
		t.Helper()
		if diff := cmp.Diff(want, mustFit(t, session, asked, "n0")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", when, diff)
		}
	}
	check("empty", Verdict{Fits: true})
	first := loner("first")
	if err := session.Place(first, "n0"); err != nil {
		t.Fatal(err)
	}
	check("after Place", refused)
	if err := session.Remove(first); err != nil {
		t.Fatal(err)
	}
	check("after Remove", Verdict{Fits: true})
}

func TestSessionsAreApart(t *testing.T) {
	snapshot := cluster.NewSnapshot(time.Time{}, []*cluster.Node{node("n0")}, nil)
	simulator := newSimulator(t)
	taken, free := simulator.Session(snapshot), simulator.Session(snapshot)
	if err := taken.Place(loner("first"), "n0"); err != nil {
		t.Fatal(err)
	}
	asked := loner("asked")
	for range 2 {
		if got := mustFit(t, taken, asked, "n0"); got.Fits {
			t.Error("does not see the pod of its own session")
		}
		if got := mustFit(t, free, asked, "n0"); !got.Fits {
			t.Errorf("sees the pod of another session: %+v", got)
		}
	}
}

func TestErrors(t *testing.T) {
	simulator := newSimulator(t)
	session := simulator.Session(cluster.NewSnapshot(time.Time{}, []*cluster.Node{node("n0")}, nil))
	if _, err := session.Fits(context.Background(), pod("p").Obj(), "gone"); err == nil || !strings.Contains(err.Error(), `"gone"`) {
		t.Errorf("unknown node: %v", err)
	}
	if err := session.Place(pod("p").Obj(), "gone"); err == nil {
		t.Error("placed on an unknown node")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := session.Fits(ctx, pod("p").Obj(), "n0"); err == nil {
		t.Error("a cancelled context gives an answer")
	}
}

// largeSnapshot has 20 nodes and 200 pods of 300m.
func largeSnapshot() *cluster.Snapshot {
	var nodes []*cluster.Node
	for i := range 20 {
		nodes = append(nodes, node(fmt.Sprintf("n%02d", i)))
	}
	var pods []*cluster.Pod
	for i := range 200 {
		pods = append(pods, running(pod(fmt.Sprintf("p%03d", i)).Label("app", "web").Req(cpu("300m")).Node(nodes[i%20].Name).Obj()))
	}
	return cluster.NewSnapshot(time.Time{}, nodes, pods)
}

// tryEverywhere asks for one pod on every node, ten times over.
func tryEverywhere(tb testing.TB, simulator *Simulator, snapshot *cluster.Snapshot) {
	session := simulator.Session(snapshot)
	for i := range 10 {
		asked := pod(fmt.Sprintf("new%d", i)).Req(cpu("50m")).Obj()
		for _, node := range snapshot.Nodes {
			verdict, err := session.Fits(context.Background(), asked, node.Name)
			if err != nil || !verdict.Fits {
				tb.Fatalf("node %s: %+v, %v", node.Name, verdict, err)
			}
		}
		if err := session.Place(asked, snapshot.Nodes[i].Name); err != nil {
			tb.Fatal(err)
		}
	}
}

func BenchmarkSession(b *testing.B) {
	simulator, snapshot := newSimulator(b), largeSnapshot()
	for b.Loop() {
		tryEverywhere(b, simulator, snapshot)
	}
}

// A plan for 20 nodes and 200 pods must come back at once.
