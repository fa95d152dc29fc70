package checkpointvolume

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	frameworkruntime "k8s.io/kubernetes/pkg/scheduler/framework/runtime"
	st "k8s.io/kubernetes/pkg/scheduler/testing"

	"github.com/ai-storage/orchestrator/pkg/apis/config"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

const driverName = "csi.example.com"

// world is a fake API server, its caches and the plugin.
type world struct {
	*Plugin
	client    *fake.Clientset
	informers informers.SharedInformerFactory
	state     fwk.CycleState
	activated *activated
}

type activated struct {
	mu   sync.Mutex
	keys []string
}

func (a *activated) Activate(_ klog.Logger, pods map[string]*corev1.Pod) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for key := range pods {
		a.keys = append(a.keys, key)
	}
}

func (a *activated) names() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Sorted(slices.Values(a.keys))
}

func newWorld(t *testing.T, attachTimeout time.Duration, objects ...runtime.Object) *world {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	client := fake.NewClientset(objects...)
	var made int
	client.PrependReactor("create", "volumeattachments", func(action clienttesting.Action) (bool, runtime.Object, error) {
		made++
		attachment := action.(clienttesting.CreateAction).GetObject().(*storagev1.VolumeAttachment)
		attachment.UID = types.UID(fmt.Sprintf("attachment-%d", made))
		return false, nil, nil
	})
	factory := informers.NewSharedInformerFactory(client, 0)
	w := &world{client: client, informers: factory, state: framework.NewCycleState(), activated: &activated{}}
	handle, err := frameworkruntime.NewFramework(ctx, nil, nil,
		frameworkruntime.WithClientSet(client),
		frameworkruntime.WithInformerFactory(factory),
		frameworkruntime.WithPodActivator(w.activated))
	if err != nil {
		t.Fatal(err)
	}
	plugin, err := New(ctx, &config.CheckpointVolumeArgs{
		AttachTimeout:     metav1.Duration{Duration: attachTimeout},
		FailedNodeBackoff: metav1.Duration{Duration: time.Hour},
	}, handle)
	if err != nil {
		t.Fatal(err)
	}
	w.Plugin = plugin.(*Plugin)
	w.pollInterval = 2 * time.Millisecond
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	t.Cleanup(func() {
		cancel()
		factory.Shutdown()
	})
	return w
}

// runAttacher plays the external attacher: it attaches, except on the nodes
// that have an error.
func (w *world) runAttacher(t *testing.T, failing map[string]string) {
	t.Helper()
	_, err := w.informers.Storage().V1().VolumeAttachments().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(object any) {
			attachment := object.(*storagev1.VolumeAttachment).DeepCopy()
			if attachment.Status.Attached {
				return
			}
			if message, ok := failing[attachment.Spec.NodeName]; ok {
				attachment.Status.AttachError = &storagev1.VolumeError{Message: message}
			} else {
				attachment.Status.Attached = true
			}
			_, _ = w.client.StorageV1().VolumeAttachments().UpdateStatus(context.Background(), attachment, metav1.UpdateOptions{})
		},
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (w *world) attachmentNodes(t *testing.T) []string {
	t.Helper()
	list, err := w.client.StorageV1().VolumeAttachments().List(context.Background(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	nodes := []string{}
	for i := range list.Items {
		nodes = append(nodes, list.Items[i].Spec.NodeName)
	}
	slices.Sort(nodes)
	return nodes
}

func replacement(name string) *st.PodWrapper {
	return st.MakePod().Namespace("default").Name(name).UID("uid-"+name).
		Annotation(v1alpha1.CheckpointClaimAnnotation, "checkpoint").
		Annotation(v1alpha1.SourceNodeAnnotation, "source")
}

func claim(mode corev1.PersistentVolumeAccessMode, volume string) *corev1.PersistentVolumeClaim {
	c := st.MakePersistentVolumeClaim().Namespace("default").Name("checkpoint").VolumeName(volume).
		AccessModes([]corev1.PersistentVolumeAccessMode{mode}).Obj()
	c.Status.Phase = corev1.ClaimPending
	if volume != "" {
		c.Status.Phase = corev1.ClaimBound
	}
	return c
}

func csiVolume() *corev1.PersistentVolume {
	volume := st.MakePersistentVolume().Name("pv").
		PersistentVolumeSource(corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: driverName, VolumeHandle: "handle"}}).Obj()
	volume.Spec.ClaimRef = &corev1.ObjectReference{Namespace: "default", Name: "checkpoint"}
	return volume
}

func hostPathVolume() *corev1.PersistentVolume {
	return st.MakePersistentVolume().Name("pv").
		PersistentVolumeSource(corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/data"}}).Obj()
}

func csiDriver(attachRequired bool) *storagev1.CSIDriver {
	return &storagev1.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: driverName}, Spec: storagev1.CSIDriverSpec{AttachRequired: &attachRequired}}
}

func csiNode(name string, drivers ...string) *storagev1.CSINode {
	node := &storagev1.CSINode{ObjectMeta: metav1.ObjectMeta{Name: name}}
	for _, driver := range drivers {
		node.Spec.Drivers = append(node.Spec.Drivers, storagev1.CSINodeDriver{Name: driver, NodeID: name})
	}
	return node
}

func attachmentOn(node string, changes ...func(*storagev1.VolumeAttachment)) *storagev1.VolumeAttachment {
	volume := csiVolume()
	attachment := &storagev1.VolumeAttachment{
		ObjectMeta: metav1.ObjectMeta{Name: attachmentName(volume, node), UID: types.UID("old-" + node)},
		Spec: storagev1.VolumeAttachmentSpec{
			Attacher: driverName, NodeName: node,
			Source: storagev1.VolumeAttachmentSource{PersistentVolumeName: &volume.Name},
		},
		Status: storagev1.VolumeAttachmentStatus{Attached: true},
	}
	for _, change := range changes {
		change(attachment)
	}
	return attachment
}

// eventually polls until done.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !done() {
		if time.Now().After(deadline) {
			t.Fatalf("never happened: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}
