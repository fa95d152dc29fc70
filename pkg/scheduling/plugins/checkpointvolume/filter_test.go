package checkpointvolume

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	st "k8s.io/kubernetes/pkg/scheduler/testing"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/ai-storage/orchestrator/pkg/apis/config"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

func TestPodsWithoutMarksPassAtNoCost(t *testing.T) {
	w := newWorld(t, plenty)
	pod := st.MakePod().Namespace("default").Name("plain").PVC("data").Obj()
	if _, status := w.PreFilter(context.Background(), w.state, pod, nil); !status.IsSkip() {
		t.Errorf("PreFilter: %v, want Skip", status.Code())
	}
	if status := w.PreBindPreFlight(context.Background(), w.state, pod, "n"); !status.IsSkip() {
		t.Errorf("PreBindPreFlight: %v, want Skip", status.Code())
	}
	if fragments, status := w.SignPod(context.Background(), pod); !status.IsSuccess() || len(fragments) != 0 {
		t.Errorf("SignPod: %v, %v: batching is lost", fragments, status.Code())
	}
	if status := w.Reserve(context.Background(), w.state, pod, "n"); !status.IsSuccess() {
		t.Errorf("Reserve: %v", status)
	}
	w.Unreserve(context.Background(), w.state, pod, "n")
	if got := w.client.Actions(); len(got) != countWatches(w) {
		t.Errorf("asked the API server: %v", got)
	}
}

// countWatches counts what the caches ask for.
func countWatches(w *world) int {
	n := 0
	for _, action := range w.client.Actions() {
		if action.GetVerb() == "list" || action.GetVerb() == "watch" {
			n++
		}
	}
	return n
}

func TestCheckpointClaim(t *testing.T) {
	volume := st.MakePod().Namespace("ns").Obj()
	volume.Spec.Volumes = []corev1.Volume{
		{Name: "data", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}},
		{Name: v1alpha1.CheckpointVolumeName, VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "c"}}},
	}
	notAClaim := st.MakePod().Namespace("ns").Obj()
	notAClaim.Spec.Volumes = []corev1.Volume{{Name: v1alpha1.CheckpointVolumeName}}
	for _, tc := range []struct {
		name string
		pod  *corev1.Pod
		want string
	}{
		{"annotation", st.MakePod().Namespace("ns").Annotation(v1alpha1.CheckpointClaimAnnotation, "a").Obj(), "ns/a"},
		{"volume", volume, "ns/c"},
		{"volume that is not a claim", notAClaim, ""},
		{"neither", st.MakePod().Namespace("ns").PVC("data").Obj(), ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			key, ok := checkpointClaim(tc.pod)
			got := ""
			if ok {
				got = key.String()
			}
			if got != tc.want {
				t.Errorf("claim %q, want %q", got, tc.want)
			}
		})
	}
}

func TestFilter(t *testing.T) {
	className := "fast"
	unbound := claim(corev1.ReadWriteOnce, "")
	unbound.Spec.StorageClassName = &className
	class := func(provisioner string) *storagev1.StorageClass {
		return &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: className}, Provisioner: provisioner}
	}
	for _, tc := range []struct {
		name    string
		node    string
		objects []runtime.Object
		failed  string
		want    string
	}{
		{name: "source node", node: "source", want: ReasonSourceNode},
		{name: "claim that is not there", node: "n"},
		{name: "volume that is not CSI", node: "n", objects: []runtime.Object{claim(corev1.ReadWriteOnce, "pv"), hostPathVolume()}},
		{name: "driver runs", node: "n", objects: []runtime.Object{claim(corev1.ReadWriteOnce, "pv"), csiVolume(), csiNode("n", "other", driverName)}},
		{name: "another driver runs", node: "n", want: ReasonNoDriver,
			objects: []runtime.Object{claim(corev1.ReadWriteOnce, "pv"), csiVolume(), csiNode("n", "other")}},
		{name: "no driver runs", node: "n", want: ReasonNoDriver,
			objects: []runtime.Object{claim(corev1.ReadWriteOnce, "pv"), csiVolume()}},
		{name: "unbound, provisioner runs", node: "n",
			objects: []runtime.Object{unbound, class(driverName), csiDriver(true), csiNode("n", driverName)}},
		{name: "unbound, provisioner does not run", node: "n", want: ReasonNoDriver,
			objects: []runtime.Object{unbound, class(driverName), csiDriver(true), csiNode("n")}},
		{name: "unbound, provisioner is not CSI", node: "n", objects: []runtime.Object{unbound, class("kubernetes.io/host-path")}},
		{name: "attach failed here", node: "n", failed: "n", want: ReasonAttachFailed},
		{name: "attach failed elsewhere", node: "n", failed: "m"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, plenty, tc.objects...)
			pod := replacement("p").Obj()
			if tc.failed != "" {
				key, _ := checkpointClaim(pod)
				w.failed.remember(attachKey{claim: key, node: tc.failed})
			}
			if _, status := w.PreFilter(context.Background(), w.state, pod, nil); !status.IsSuccess() {
				t.Fatal(status)
			}
			info := framework.NewNodeInfo()
			info.SetNode(st.MakeNode().Name(tc.node).Obj())
			status := w.Filter(context.Background(), w.state.Clone(), pod, info)
			if status.Message() != tc.want || status.IsSuccess() != (tc.want == "") {
				t.Errorf("%v %q, want %q", status.Code(), status.Message(), tc.want)
			}
			if tc.want != "" && status.Code() != fwk.UnschedulableAndUnresolvable {
				t.Errorf("%v: preemption would not help", status.Code())
			}
		})
	}
}

func TestPostFilter(t *testing.T) {
	w := newWorld(t, plenty)
	for name, tc := range map[string]struct {
		pod  *corev1.Pod
		want fwk.Code
	}{
		"a replacement is not made room for": {replacement("p").Obj(), fwk.UnschedulableAndUnresolvable},
		"another pod is passed on":           {st.MakePod().Name("p").Obj(), fwk.Unschedulable},
	} {
		if result, status := w.PostFilter(context.Background(), w.state, tc.pod, nil); result != nil || status.Code() != tc.want {
			t.Errorf("%s: %v, %v, want %v", name, result, status.Code(), tc.want)
		}
	}
}

func TestReplacementsAreNotBatched(t *testing.T) {
	w := newWorld(t, plenty)
	if _, status := w.SignPod(context.Background(), replacement("p").Obj()); status.Code() != fwk.Unschedulable {
		t.Errorf("SignPod: %v, want Unschedulable", status.Code())
	}
}

func TestHints(t *testing.T) {
	pod := replacement("p").Obj()
	w := newWorld(t, plenty, claim(corev1.ReadWriteOnce, "pv"), csiVolume())
	for _, tc := range []struct {
		name     string
		hint     fwk.QueueingHintFn
		pod      *corev1.Pod
		old, new any
		want     fwk.QueueingHint
	}{
		{"another node", hintAfterNodeAdded, pod, nil, st.MakeNode().Name("n").Obj(), fwk.Queue},
		{"the source node again", hintAfterNodeAdded, pod, nil, st.MakeNode().Name("source").Obj(), fwk.QueueSkip},
		{"driver comes with the node", w.hintAfterDriverChange, pod, nil, csiNode("n", driverName), fwk.Queue},
		{"driver comes", w.hintAfterDriverChange, pod, csiNode("n"), csiNode("n", driverName), fwk.Queue},
		{"driver was there", w.hintAfterDriverChange, pod, csiNode("n", driverName), csiNode("n", driverName, "other"), fwk.QueueSkip},
		{"driver leaves", w.hintAfterDriverChange, pod, csiNode("n", driverName), csiNode("n"), fwk.QueueSkip},
		{"driver on the source node", w.hintAfterDriverChange, pod, nil, csiNode("source", driverName), fwk.QueueSkip},
		{"pod without a claim", w.hintAfterDriverChange, st.MakePod().Obj(), nil, csiNode("n", driverName), fwk.QueueSkip},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := tc.hint(klog.Background(), tc.pod, tc.old, tc.new)
			if err != nil || got != tc.want {
				t.Errorf("%v, %v, want %v", got, err, tc.want)
			}
		})
	}
	if got, err := hintAfterNodeAdded(klog.Background(), pod, nil, "not a node"); err == nil || got != fwk.Queue {
		t.Errorf("an event of the wrong type: %v, %v", got, err)
	}
}

func TestFailedNodesComeBack(t *testing.T) {
	clock := clocktesting.NewFakeClock(time.Unix(0, 0))
	recorded := &activated{}
	failed := newFailedNodes(clock, time.Minute, func(pods map[string]*corev1.Pod) { recorded.Activate(klog.Background(), pods) })
	key := attachKey{claim: types.NamespacedName{Namespace: "default", Name: "c"}, node: "n"}
	pod := replacement("p").Obj()
	// Rejected after the first failure and not asked about again: it waits all the same.
	early := replacement("early").Obj()

	failed.remember(key)
	clock.Step(50 * time.Second)
	if !failed.isOut(key, pod) || !failed.isOut(key, early) {
		t.Fatal("removed too early")
	}
	if failed.isOut(attachKey{claim: types.NamespacedName{Namespace: "default", Name: "d"}, node: "n"}, pod) {
		t.Error("the failure of one volume keeps another out")
	}
	failed.remember(key) // fails once more: the time runs anew
	clock.Step(50 * time.Second)
	if !failed.isOut(key, pod) {
		t.Fatal("a second failure did not extend the backoff")
	}
	if got := recorded.names(); len(got) != 0 {
		t.Errorf("activated too early: %v", got)
	}
	clock.Step(11 * time.Second)
	eventually(t, "the pod is activated", func() bool { return len(recorded.names()) > 0 })
	if diff := cmp.Diff([]string{"default/early", "default/p"}, recorded.names()); diff != "" {
		t.Errorf("activated (-want +got):\n%s", diff)
	}
	if failed.isOut(key, pod) {
		t.Error("not removed")
	}
}

func TestNoBackoff(t *testing.T) {
	failed := newFailedNodes(clocktesting.NewFakeClock(time.Unix(0, 0)), 0, nil)
	key := attachKey{node: "n"}
	failed.remember(key)
	if failed.isOut(key, replacement("p").Obj()) {
		t.Error("remembered without a backoff")
	}
}

func TestReserve(t *testing.T) {
	first, second := replacement("first").Obj(), replacement("second").Obj()
	for _, end := range []struct {
		name string
		call func(*world)
	}{
		{"Unreserve", func(w *world) { w.Unreserve(context.Background(), w.state, first, "n") }},
		{"PostBind", func(w *world) { w.PostBind(context.Background(), w.state, first, "n") }},
	} {
		t.Run(end.name, func(t *testing.T) {
			w := newWorld(t, plenty, claim(corev1.ReadWriteOnce, "pv"))
			reserve := func(pod *corev1.Pod) *fwk.Status { return w.Reserve(context.Background(), w.state, pod, "n") }
			if status := reserve(first); !status.IsSuccess() {
				t.Fatal(status)
			}
			if status := reserve(first); !status.IsSuccess() {
				t.Errorf("the holder itself is refused: %v", status)
			}
			if status := reserve(second); status.Code() != fwk.Unschedulable {
				t.Errorf("second pod: %v, want Unschedulable", status.Code())
			}
			w.Unreserve(context.Background(), w.state, second, "n") // the scheduler calls it after a refusal
			if status := reserve(second); status.Code() != fwk.Unschedulable {
				t.Errorf("the refused pod freed the claim: %v", status.Code())
			}
			end.call(w)
			if diff := cmp.Diff([]string{"default/second"}, w.activated.names()); diff != "" {
				t.Errorf("activated (-want +got):\n%s", diff)
			}
			if status := reserve(second); !status.IsSuccess() {
				t.Errorf("after the end: %v", status)
			}
		})
	}
	t.Run("shared claim", func(t *testing.T) {
		w := newWorld(t, plenty, claim(corev1.ReadWriteMany, "pv"))
		for _, pod := range []*corev1.Pod{first, second} {
			if status := w.Reserve(context.Background(), w.state, pod, "n"); !status.IsSuccess() {
				t.Errorf("%s: %v", pod.Name, status)
			}
		}
	})
	t.Run("claim is gone", func(t *testing.T) {
		w := newWorld(t, plenty)
		if status := w.Reserve(context.Background(), w.state, first, "n"); status.Code() != fwk.Error {
			t.Errorf("%v, want Error", status.Code())
		}
	})
}

func TestNewChecksItsArguments(t *testing.T) {
	for name, args := range map[string]runtime.Object{
		"wrong type": &config.RebalanceArgs{},
		"none":       nil,
		"bad value":  &config.CheckpointVolumeArgs{},
	} {
		if _, err := New(context.Background(), args, nil); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
