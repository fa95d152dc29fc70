//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/test/devcluster"
)

// Volumes that a CSI driver attaches to one node at a time, by the real
// external-attacher and the real attach/detach controller.

// A pod's own claim goes with it: the original stops first, and what it wrote
// and acknowledged is there on the other node.
func TestOwnClaimMoves(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name, class string
		mode        corev1.PersistentVolumeAccessMode
	}{
		{"read-write-once", devcluster.CSIClass, corev1.ReadWriteOnce},
		{"read-write-once-pod-late", devcluster.CSILateClass, corev1.ReadWriteOncePod},
	}
	for i, test := range cases {
		t.Run(test.name, func(t *testing.T) {
			if i > 0 {
				needsTime(t)
			}
			namespace := newNamespace(t)
			collector := startCollector(t, namespace)
			create(t, csiClaim(namespace, "data", test.class, test.mode))
			pod, label := startClaimWriter(t, namespace, test.name, collector)
			openTo(t, label, env.nodes...)
			awaitProgress(t, collector, test.name)
			migration := migrate(t, pod, nil)
			wantSucceeded(t, migration, 4*time.Minute)
			wantStoppedFirst(t, migration)
			wantNothingLost(t, collector, test.name)
			eventually(t, time.Minute, "the volume is attached where the pod is, and nowhere else", func(ctx context.Context) error {
				return attachedOnlyTo(ctx, namespace, "data", migration.Status.Replacement.NodeName)
			})
		})
	}
}

// The checkpoint itself may be on a volume of that kind: it is only ever attached to the
// destination, so that the replacement starts first, and what an application keeps there
// goes along when the pod moves again.
func TestCheckpointOnVolumeOfOneNode(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t)
	collector := startCollector(t, namespace)
	const name = "writer"
	template := writerTemplate(name, collector)
	template.Spec.InitContainers[0].Args = []string{"fill", "--dir=/data", "--bytes=32Mi", "--files=50"}
	create(t, newDeployment(namespace, name, 1, template))
	pod := awaitOnly(t, namespace, name, 2*time.Minute)
	awaitProgress(t, collector, name)
	migration := migrate(t, pod, withClaim)
	wantSucceeded(t, migration, 4*time.Minute)
	if handover := migration.Status.Handover; handover.Order != v1alpha1.OrderStartFirst {
		t.Errorf("the order is %s: %s", handover.Order, handover.Reason)
	}
	if d := migration.Status.Checkpoint.Destination; d == nil || !d.ClaimSealed {
		t.Errorf("there was no sealed copy on the claim: %+v", d)
	}
	wantNothingLost(t, collector, name)
	wantNoInit(t, migration)
	moved := awaitOnly(t, namespace, name, time.Minute)
	kept, err := devcluster.PodPath(moved.UID, v1alpha1.CheckpointMountPath)
	if err != nil {
		t.Fatal(err)
	}
	wantEmpty(t, kept)
	if err := os.WriteFile(filepath.Join(kept, "epoch"), []byte("7"), 0o644); err != nil {
		t.Fatal(err)
	}
	again := migrate(t, moved, func(m *v1alpha1.PodMigration) {
		m.Name, m.Spec.Checkpoint.StorageClassName = "again", new(devcluster.CSIClass)
	})
	wantSucceeded(t, again, 4*time.Minute)
	wantStoppedFirst(t, again) // the claim is the pod's own by now, and one node has it
	wantNothingLost(t, collector, name)
	moved = awaitOnly(t, namespace, name, time.Minute)
	if kept, err = devcluster.PodPath(moved.UID, v1alpha1.CheckpointMountPath); err != nil {
		t.Fatal(err)
	}
	if content, err := os.ReadFile(filepath.Join(kept, "epoch")); err != nil || string(content) != "7" {
		t.Errorf("what the application kept is %q: %v", content, err)
	}
}

// wantEmpty wants the directory that containers have of a checkpoint claim to be theirs:
// nothing of a checkpoint is in it.
func wantEmpty(t testing.TB, directory string) {
	t.Helper()
	entries, err := os.ReadDir(directory)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != "lost+found" {
			t.Errorf("the application sees %s on its claim", e.Name())
		}
	}
}

// A node that cannot attach the volume is left for another one. The fault is one of
// the node, so no other test may run.
func TestFailingAttachGoesElsewhere(t *testing.T) {
	namespace := newNamespace(t)
	collector := startCollector(t, namespace)
	create(t, csiClaim(namespace, "data", devcluster.CSIClass, corev1.ReadWriteOnce))
	const name = "writer"
	pod, label := startClaimWriter(t, namespace, name, collector)
	awaitProgress(t, collector, name)
	broken, good := env.nodes[1], env.observer
	setFaults(t, devcluster.CSIFaults{AttachFails: map[string]string{broken: "no free slot on this node"}})
	t.Cleanup(func() { setFaults(t, devcluster.CSIFaults{}) })
	openTo(t, label, broken)
	migration := migrate(t, pod, nil)
	eventually(t, time.Minute, "a place is held on the node that will fail", func(ctx context.Context) error {
		if err := env.client.Get(ctx, client.ObjectKeyFromObject(migration), migration); err != nil {
			return err
		}
		if p := migration.Status.Placeholder; p == nil || p.NodeName != broken {
			return fmt.Errorf("placeholder %+v: %s", p, migration.Status.Message)
		}
		return nil
	})
	openTo(t, label, good)
	wantSucceeded(t, migration, 4*time.Minute)
	wantStoppedFirst(t, migration)
	if at := migration.Status.Replacement.NodeName; at != good {
		t.Errorf("the replacement is on %s, want %s: volumes cannot be attached on %s", at, good, broken)
	}
	wantNothingLost(t, collector, name)
}

func setFaults(t testing.TB, faults devcluster.CSIFaults) {
	t.Helper()
	if err := env.cluster.SetCSIFaults(faults); err != nil {
		t.Error(err)
	}
}

func csiClaim(namespace, name, class string, mode corev1.PersistentVolumeAccessMode) *corev1.PersistentVolumeClaim {
	return &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: corev1.PersistentVolumeClaimSpec{
			StorageClassName: &class, AccessModes: []corev1.PersistentVolumeAccessMode{mode},
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("64Mi")}},
		},
	}
}

// startClaimWriter runs a pod that writes records to claim data on the first node, and
// returns the label of the nodes that are open to it, of which one may be the observer.
func startClaimWriter(t testing.TB, namespace, name, collector string) (pod *corev1.Pod, label string) {
	t.Helper()
	c := container("writer", 50)
	c.Args = []string{"record", "--file=/data/records", "--collector=" + collector, "--writer=" + name, "--every=2ms"}
	c.VolumeMounts = []corev1.VolumeMount{{Name: "data", MountPath: "/data"}}
	pod = excluded(newPod(namespace, name, c))
	pod.Spec.Volumes = []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{
		PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"},
	}}}
	pod.Spec.Tolerations = []corev1.Toleration{{Key: observerTaint, Operator: corev1.TolerationOpExists}}
	return pod, startOnly(t, env.nodes[0], pod)
}

func wantStoppedFirst(t testing.TB, migration *v1alpha1.PodMigration) {
	t.Helper()
	handover := migration.Status.Handover
	if handover == nil || handover.Order != v1alpha1.OrderStopFirst {
		t.Fatalf("handover %+v, want %s", handover, v1alpha1.OrderStopFirst)
	}
	t.Logf("%s: %s → %s (%s, %s, since %s), downtime %v", migration.Name, migration.Status.Original.NodeName,
		migration.Status.Replacement.NodeName, handover.Method, handover.Order, handover.Reason, migration.Status.Downtime)
}

func wantNothingLost(t testing.TB, collector, name string) {
	t.Helper()
	awaitProgress(t, collector, name)
	all, err := ledgers(collector, false)
	if err != nil {
		t.Fatal(err)
	}
	l := all[name]
	t.Logf("%s: %d records acknowledged, %d lost, %d duplicated, %d skipped", name, l.Last, l.Lost, l.Duplicated, l.Skipped)
	if l.Lost+l.Duplicated+l.Skipped != 0 {
		t.Errorf("records were lost or repeated: %+v", l)
	}
}

func attachedOnlyTo(ctx context.Context, namespace, name, node string) error {
	claim := &corev1.PersistentVolumeClaim{}
	if err := env.client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, claim); err != nil {
		return err
	}
	attachments := &storagev1.VolumeAttachmentList{}
	if err := env.client.List(ctx, attachments); err != nil {
		return err
	}
	found := false
	for _, a := range attachments.Items {
		if source := a.Spec.Source.PersistentVolumeName; source == nil || *source != claim.Spec.VolumeName {
			continue
		}
		if a.Spec.NodeName != node || !a.Status.Attached {
			return fmt.Errorf("volume %s: node %s, attached %t", claim.Spec.VolumeName, a.Spec.NodeName, a.Status.Attached)
		}
		found = true
	}
	if !found {
		return errors.New("it is attached nowhere")
	}
	return nil
}
