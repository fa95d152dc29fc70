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
	st "k8s.io/kubernetes/pkg/scheduler/testing"
	clocktesting "k8s.io/utils/clock/testing"
)

func TestSweep(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	const volumeName = corev1.UniqueVolumeName("kubernetes.io/csi/" + driverName + "^handle")
	pod := replacement("p").Obj()
	ours := func(a *storagev1.VolumeAttachment) {
		a.Annotations = map[string]string{attachedForAnnotation: ownerOf(pod).String()}
		a.CreationTimestamp = metav1.NewTime(now.Add(-time.Hour))
	}
	young := func(a *storagev1.VolumeAttachment) { a.CreationTimestamp = metav1.NewTime(now.Add(-time.Minute)) }
	notOurs := func(a *storagev1.VolumeAttachment) { a.Annotations = nil }
	withStatus := func(change func(*corev1.NodeStatus)) *corev1.Node {
		node := st.MakeNode().Name("left").Obj()
		change(&node.Status)
		return node
	}
	kept, removed := []string{"left"}, []string{}

	for _, tc := range []struct {
		name    string
		change  func(*storagev1.VolumeAttachment)
		objects []runtime.Object
		want    []string
	}{
		{name: "pod is gone", want: removed},
		{name: "pod of the name is another", objects: []runtime.Object{replacement("p").UID("another").Obj()}, want: removed},
		{name: "pod went elsewhere", objects: []runtime.Object{replacement("p").Node("chosen").Obj()}, want: removed},
		{name: "pod came", objects: []runtime.Object{replacement("p").Node("left").Obj()}, want: kept},
		{name: "pod still waits", objects: []runtime.Object{pod}, want: kept},
		{name: "perhaps still in PreBind", change: young, want: kept},
		{name: "another client's", change: notOurs, want: kept},
		{name: "another pod uses it", objects: []runtime.Object{replacement("user").PVC("checkpoint").Node("left").Obj()}, want: kept},
		{name: "another pod uses it elsewhere", objects: []runtime.Object{replacement("user").PVC("checkpoint").Node("chosen").Obj()}, want: removed},
		{name: "the controller took it over", want: kept, objects: []runtime.Object{withStatus(func(s *corev1.NodeStatus) {
			s.VolumesAttached = []corev1.AttachedVolume{{Name: volumeName}}
		})}},
		{name: "the kubelet has it mounted", want: kept, objects: []runtime.Object{withStatus(func(s *corev1.NodeStatus) {
			s.VolumesInUse = []corev1.UniqueVolumeName{volumeName}
		})}},
		{name: "the node has other volumes", want: removed, objects: []runtime.Object{withStatus(func(s *corev1.NodeStatus) {
			s.VolumesInUse = []corev1.UniqueVolumeName{volumeName + "2"}
		})}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			attachment := attachmentOn("left", ours)
			if tc.change != nil {
				tc.change(attachment)
			}
			w := newWorld(t, time.Minute, append([]runtime.Object{attachment, csiVolume()}, tc.objects...)...)
			w.clock = clocktesting.NewFakePassiveClock(now)
			w.sweep(context.Background())
			if diff := cmp.Diff(tc.want, w.attachmentNodes(t)); diff != "" {
				t.Errorf("attachments (-want +got):\n%s", diff)
			}
		})
	}
}

// Only the scheduler that leads reserves, so only it sweeps.
func TestSweepStartsWithTheFirstReservation(t *testing.T) {
	attachment := attachmentOn("left")
	attachment.Annotations = map[string]string{attachedForAnnotation: ownerOf(replacement("p").Obj()).String()}
	w := newWorld(t, time.Minute, attachment, csiVolume())
	plain := st.MakePod().Namespace("default").Name("plain").Obj()
	if _, status := w.PreFilter(context.Background(), w.state, plain, nil); !status.IsSkip() {
		t.Fatal(status)
	}
	if got := w.attachmentNodes(t); len(got) != 1 {
		t.Fatalf("swept too early: %v", got)
	}
	for range 2 {
		if status := w.Reserve(context.Background(), w.state, plain, "n"); !status.IsSuccess() {
			t.Fatal(status)
		}
	}
	eventually(t, "the orphan is removed", func() bool { return len(w.attachmentNodes(t)) == 0 })
}

// Every minute, for every pod that ever moved: the API server must not notice.
func TestSweepOfWhatIsInOrderAsksNobody(t *testing.T) {
	attachment := attachmentOn("left")
	attachment.Annotations = map[string]string{attachedForAnnotation: ownerOf(replacement("p").Obj()).String()}
	w := newWorld(t, time.Minute, attachment, csiVolume(), replacement("p").Node("left").Obj())
	w.sweep(context.Background())
	for _, action := range w.client.Actions() {
		if verb := action.GetVerb(); verb != "list" && verb != "watch" {
			t.Errorf("asked the API server to %s %s", verb, action.GetResource().Resource)
		}
	}
	if got := w.attachmentNodes(t); len(got) != 1 {
		t.Errorf("attachments on %v, want the one there was", got)
	}
}
