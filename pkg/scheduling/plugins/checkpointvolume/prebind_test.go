package checkpointvolume

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	storagelisters "k8s.io/client-go/listers/storage/v1"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"
	fwk "k8s.io/kube-scheduler/framework"
)

const (
	// enough time for everything that should happen, in a test.
	plenty = 30 * time.Second
	// soon is for what should not happen.
	soon = 50 * time.Millisecond
)

func TestPreBind(t *testing.T) {
	pod := replacement("p").Obj()
	otherUID := replacement("p").UID("another").Obj()
	deleted := replacement("p").Terminating().Obj()
	leftover := func(a *storagev1.VolumeAttachment) {
		a.Annotations = map[string]string{attachedForAnnotation: ownerOf(pod).String()}
	}
	userOnLeftover := replacement("user").PVC("checkpoint").Node("left").Obj()

	for _, tc := range []struct {
		name    string
		timeout time.Duration
		objects []runtime.Object
		failing map[string]string
		// wantError is part of the error; empty wants success.
		wantError string
		// wantAttachments are the nodes that have the volume in the end.
		wantAttachments []string
		// wantFailed wants the node to be remembered as failed.
		wantFailed bool
	}{
		{
			name:            "attached",
			objects:         []runtime.Object{pod, claim(corev1.ReadWriteOnce, "pv"), csiVolume(), csiDriver(true)},
			wantAttachments: []string{"chosen"},
		},
		{
			name:            "driver not registered",
			objects:         []runtime.Object{pod, claim(corev1.ReadWriteOnce, "pv"), csiVolume()},
			wantAttachments: []string{"chosen"},
		},
		{
			name:            "driver needs no attach",
			objects:         []runtime.Object{pod, claim(corev1.ReadWriteOnce, "pv"), csiVolume(), csiDriver(false)},
			wantAttachments: []string{},
		},
		{
			name:            "not a CSI volume",
			objects:         []runtime.Object{pod, claim(corev1.ReadWriteOnce, "pv"), hostPathVolume()},
			wantAttachments: []string{},
		},
		{
			name: "attach fails", wantFailed: true,
			objects:         []runtime.Object{pod, claim(corev1.ReadWriteOnce, "pv"), csiVolume()},
			failing:         map[string]string{"chosen": "no such disk"},
			wantError:       `attaching volume "pv" to node "chosen": no such disk`,
			wantAttachments: []string{"chosen"},
		},
		{
			name: "another attacher has it already",
			objects: []runtime.Object{pod, claim(corev1.ReadWriteOnce, "pv"), csiVolume(),
				attachmentOn("chosen")},
			wantAttachments: []string{"chosen"},
		},
		{
			name: "source is never detached", timeout: soon,
			objects: []runtime.Object{pod, claim(corev1.ReadWriteOnce, "pv"), csiVolume(),
				attachmentOn("source")},
			wantError:       `volume "pv" is still attached to node "source"`,
			wantAttachments: []string{"source"},
		},
		{
			name: "shared volume need not be detached",
			objects: []runtime.Object{pod, claim(corev1.ReadWriteMany, "pv"), csiVolume(),
				attachmentOn("source")},
			wantAttachments: []string{"chosen", "source"},
		},
		{
			name: "leftover of a crashed scheduler",
			objects: []runtime.Object{pod, claim(corev1.ReadWriteOnce, "pv"), csiVolume(),
				attachmentOn("left", leftover)},
			wantAttachments: []string{"chosen"},
		},
		{
			name: "leftover that another pod uses", timeout: soon,
			objects: []runtime.Object{pod, claim(corev1.ReadWriteOnce, "pv"), csiVolume(), userOnLeftover,
				attachmentOn("left", leftover)},
			wantError:       `claim "checkpoint" is still used by pod "user" on node "left"`,
			wantAttachments: []string{"left"},
		},
		{
			name: "claim never bound", timeout: soon,
			objects:         []runtime.Object{pod, claim(corev1.ReadWriteOnce, "")},
			wantError:       "waiting for claim default/checkpoint to be bound",
			wantAttachments: []string{},
		},
		{
			name:            "claim is gone",
			objects:         []runtime.Object{pod},
			wantError:       `"checkpoint" not found`,
			wantAttachments: []string{},
		},
		{
			name:            "pod is gone",
			objects:         []runtime.Object{claim(corev1.ReadWriteOnce, "pv"), csiVolume()},
			wantError:       "the pod is gone",
			wantAttachments: []string{},
		},
		{
			name:            "another pod of the name",
			objects:         []runtime.Object{otherUID, claim(corev1.ReadWriteOnce, "pv"), csiVolume()},
			wantError:       "the pod is gone",
			wantAttachments: []string{},
		},
		{
			name:            "pod is being deleted",
			objects:         []runtime.Object{deleted, claim(corev1.ReadWriteOnce, "pv"), csiVolume()},
			wantError:       "the pod is gone",
			wantAttachments: []string{},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.timeout == 0 {
				tc.timeout = plenty
			}
			w := newWorld(t, tc.timeout, tc.objects...)
			w.runAttacher(t, tc.failing)
			status := w.PreBind(context.Background(), w.state, pod, "chosen")
			checkStatus(t, status, tc.wantError)
			if diff := cmp.Diff(tc.wantAttachments, w.attachmentNodes(t)); diff != "" {
				t.Errorf("attachments (-want +got):\n%s", diff)
			}
			key, _ := checkpointClaim(pod)
			if got := w.failed.isOut(attachKey{claim: key, node: "chosen"}, pod); got != tc.wantFailed {
				t.Errorf("node remembered as failed: %v, want %v", got, tc.wantFailed)
			}
		})
	}
}

func checkStatus(t *testing.T, status *fwk.Status, wantError string) {
	t.Helper()
	switch {
	case wantError == "" && !status.IsSuccess():
		t.Errorf("failed: %v", status)
	case wantError != "" && (status.Code() != fwk.Error || !strings.Contains(status.Message(), wantError)):
		t.Errorf("status %v %q, want an error with %q", status.Code(), status.Message(), wantError)
	}
}

// preBindInBackground returns the channel of the status.
func (w *world) preBindInBackground(ctx context.Context, pod *corev1.Pod) <-chan *fwk.Status {
	done := make(chan *fwk.Status, 1)
	go func() { done <- w.PreBind(ctx, w.state, pod, "chosen") }()
	return done
}

func waitFor(t *testing.T, done <-chan *fwk.Status) *fwk.Status {
	t.Helper()
	select {
	case status := <-done:
		return status
	case <-time.After(plenty):
		t.Fatal("PreBind does not come back")
		return nil
	}
}

func TestPreBindWaitsForTheClaim(t *testing.T) {
	pod := replacement("p").Obj()
	w := newWorld(t, plenty, pod, claim(corev1.ReadWriteOnce, ""), hostPathVolume())
	done := w.preBindInBackground(context.Background(), pod)
	if _, err := w.client.CoreV1().PersistentVolumeClaims("default").Update(context.Background(), claim(corev1.ReadWriteOnce, "pv"), metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	checkStatus(t, waitFor(t, done), "")
}

func TestPreBindWaitsForTheSource(t *testing.T) {
	pod := replacement("p").Obj()
	source := attachmentOn("source")
	w := newWorld(t, plenty, pod, claim(corev1.ReadWriteOnce, "pv"), csiVolume(), source)
	w.runAttacher(t, nil)
	done := w.preBindInBackground(context.Background(), pod)
	select {
	case status := <-done:
		t.Fatalf("did not wait: %v", status)
	case <-time.After(soon):
	}
	if diff := cmp.Diff([]string{"source"}, w.attachmentNodes(t)); diff != "" {
		t.Errorf("attached to two nodes (-want +got):\n%s", diff)
	}
	if err := w.client.StorageV1().VolumeAttachments().Delete(context.Background(), source.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	checkStatus(t, waitFor(t, done), "")
	if diff := cmp.Diff([]string{"chosen"}, w.attachmentNodes(t)); diff != "" {
		t.Errorf("attachments (-want +got):\n%s", diff)
	}
}

func TestPreBindWaitsForADetachOfTheSameNode(t *testing.T) {
	pod := replacement("p").Obj()
	now := metav1.Now()
	old := attachmentOn("chosen", func(a *storagev1.VolumeAttachment) {
		a.DeletionTimestamp, a.Finalizers = &now, []string{"external-attacher/" + driverName}
	})
	w := newWorld(t, plenty, pod, claim(corev1.ReadWriteOnce, "pv"), csiVolume(), old)
	w.runAttacher(t, nil)
	done := w.preBindInBackground(context.Background(), pod)
	select {
	case status := <-done:
		t.Fatalf("took an attachment that is on its way out: %v", status)
	case <-time.After(soon):
	}
	if err := w.client.StorageV1().VolumeAttachments().Delete(context.Background(), old.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	checkStatus(t, waitFor(t, done), "")
}

// The attacher never answers here, so PreBind is in the middle of its wait.
func TestPreBindEndsEarly(t *testing.T) {
	pod := replacement("p").Obj()
	for _, tc := range []struct {
		name       string
		timeout    time.Duration
		end        func(*world, context.CancelFunc) error
		wantError  string
		wantFailed bool
	}{
		{"timeout is the node's fault", soon, func(*world, context.CancelFunc) error { return nil }, "not attached within", true},
		{"context cancelled", plenty, func(_ *world, cancel context.CancelFunc) error { cancel(); return nil }, "context canceled", false},
		{"pod deleted", plenty, func(w *world, _ context.CancelFunc) error {
			return w.client.CoreV1().Pods("default").Delete(context.Background(), "p", metav1.DeleteOptions{})
		}, "the pod is gone", false},
		{"attachment deleted", plenty, func(w *world, _ context.CancelFunc) error {
			return w.client.StorageV1().VolumeAttachments().Delete(context.Background(), attachmentName(csiVolume(), "chosen"), metav1.DeleteOptions{})
		}, "was removed by another client", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, tc.timeout, pod, claim(corev1.ReadWriteOnce, "pv"), csiVolume())
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			done := w.preBindInBackground(ctx, pod)
			eventually(t, "an attachment is made", func() bool { return len(w.attachmentNodes(t)) == 1 })
			if err := tc.end(w, cancel); err != nil {
				t.Fatal(err)
			}
			checkStatus(t, waitFor(t, done), tc.wantError)
			key, _ := checkpointClaim(pod)
			if got := w.failed.isOut(attachKey{claim: key, node: "chosen"}, pod); got != tc.wantFailed {
				t.Errorf("node remembered as failed: %v, want %v", got, tc.wantFailed)
			}
			w.Unreserve(context.Background(), w.state, pod, "chosen")
			if got := w.attachmentNodes(t); len(got) > 0 {
				t.Errorf("left behind: %v", got)
			}
		})
	}
}

// A cache that lags behind still shows the attachment of an earlier attempt as
// attached. It must not be believed.
func TestPreBindMistrustsAStaleCache(t *testing.T) {
	pod := replacement("p").Obj()
	w := newWorld(t, soon, pod, claim(corev1.ReadWriteOnce, "pv"), csiVolume())
	stale := cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{})
	if err := stale.Add(attachmentOn("chosen")); err != nil {
		t.Fatal(err)
	}
	w.attachments = storagelisters.NewVolumeAttachmentLister(stale)
	checkStatus(t, w.PreBind(context.Background(), w.state, pod, "chosen"), "not attached within")
}

func TestUnreserve(t *testing.T) {
	pod := replacement("p").Obj()
	bound := replacement("p").Node("chosen").Obj()
	for _, tc := range []struct {
		name   string
		change func(*world)
		before []runtime.Object
		want   []string
	}{
		{"undone", func(*world) {}, nil, []string{}},
		{"pod is gone", func(w *world) {
			_ = w.client.CoreV1().Pods("default").Delete(context.Background(), "p", metav1.DeleteOptions{})
		}, nil, []string{}},
		{"pod was bound after all", func(w *world) {
			_, _ = w.client.CoreV1().Pods("default").Update(context.Background(), bound, metav1.UpdateOptions{})
		}, nil, []string{"chosen"}},
		{"unknown whether it was bound", func(w *world) {
			w.client.PrependReactor("get", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
				return true, nil, errors.New("no answer")
			})
		}, nil, []string{"chosen"}},
		{"not ours", func(*world) {}, []runtime.Object{attachmentOn("chosen")}, []string{"chosen"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, plenty, append([]runtime.Object{pod, claim(corev1.ReadWriteOnce, "pv"), csiVolume()}, tc.before...)...)
			w.runAttacher(t, nil)
			checkStatus(t, w.PreBind(context.Background(), w.state, pod, "chosen"), "")
			tc.change(w)
			// The cycle that failed may have no time left.
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			for range 2 {
				w.Unreserve(ctx, w.state, pod, "chosen")
			}
			if diff := cmp.Diff(tc.want, w.attachmentNodes(t)); diff != "" {
				t.Errorf("attachments (-want +got):\n%s", diff)
			}
		})
	}
}

// The attach/detach controller must find our attachment by its name. The sum is
// that of sha256sum over "handle", the driver and the node.
func TestAttachmentName(t *testing.T) {
	const want = "csi-0b4d1e916f4d4f066942928f82168335c968becc76581394eb98569e30749b5e"
	if got := attachmentName(csiVolume(), "chosen"); got != want {
		t.Errorf("name %s, want %s", got, want)
	}
}
