package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/scheduling/plugins/checkpointvolume"
)

func TestScheduler(t *testing.T) {
	program := buildScheduler(t)
	t.Run("refuses bad arguments", func(t *testing.T) { refusesBadArguments(t, program) })
	t.Run("the catalogue can be turned on", func(t *testing.T) { catalogueCanBeTurnedOn(t, program) })
	startScheduler(t, program)
	t.Run("never on the source node", neverOnTheSourceNode)
	t.Run("tried elsewhere after a failed attach", triedElsewhereAfterAFailedAttach)
	t.Run("a place that the replacement cannot have", aPlaceThatTheReplacementCannotHave)
	t.Run("a node that an autoscaler makes", aNodeThatAnAutoscalerMakes)
}

// The files are those that the loader of the rebalancer is tested with, so the
// two binaries refuse the same.
func refusesBadArguments(t *testing.T, program string) {
	for file, want := range map[string]string{
		"unknown-argument.bad.yaml":            `unknown field "intervall"`,
		"unknown-nested-argument.bad.yaml":     `unknown field "budget.maxInFligt"`,
		"unknown-checkpoint-argument.bad.yaml": `unknown field "attachTimeoutSeconds"`,
		"negative-threshold.bad.yaml":          `thresholds.cpu: Invalid value: -1`,
		"negative-duration.bad.yaml":           `attachTimeout: Invalid value: "-1m0s"`,
	} {
		t.Run(file, func(t *testing.T) {
			path := filepath.Join(repository, "pkg/apis/config/load/testdata", file)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			// Arguments are read before the API server is asked anything.
			output, err := exec.CommandContext(ctx, program, "--config="+path, "--secure-port=0", "--master="+restConfig.Host).CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() <= 0 {
				t.Errorf("want an exit code, got %v", err)
			}
			text := strings.ReplaceAll(string(output), `\"`, `"`)
			if !strings.Contains(text, want) {
				t.Errorf("output lacks %q:\n%s", want, text)
			}
		})
	}
}

// With --write-config-to, the scheduler makes all plugins of the profile, writes
// down their arguments and ends. These two need no CRD of the catalogue.
func catalogueCanBeTurnedOn(t *testing.T, program string) {
	written := filepath.Join(t.TempDir(), "written.yaml")
	configuration := schedulerConfiguration(t, "pkg/apis/config/load/testdata/catalogue.good.yaml")
	output, err := exec.CommandContext(t.Context(), program, "--config="+configuration, "--secure-port=0", "--write-config-to="+written).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	content, err := os.ReadFile(written)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"kind: CheckpointVolumeArgs", "kind: RebalanceArgs",
		"kind: CoschedulingArgs", "permitWaitingTimeSeconds: 20", "kind: NodeResourcesAllocatableArgs",
	} {
		if !strings.Contains(string(content), want) {
			t.Errorf("the arguments in force lack %q:\n%s", want, content)
		}
	}
}

// The source node is the only one at first. The pod waits, says why, and is
// bound as soon as another node comes.
func neverOnTheSourceNode(t *testing.T) {
	namespace := newNamespace(t)
	source := makeNode(t, namespace, "source")
	pod := makeReplacement(t, namespace, source)
	eventually(t, 30*time.Second, func(ctx context.Context) error {
		if err := k8s.Get(ctx, client.ObjectKeyFromObject(pod), pod); err != nil {
			return err
		}
		for _, condition := range pod.Status.Conditions {
			if condition.Type == corev1.PodScheduled && strings.Contains(condition.Message, checkpointvolume.ReasonSourceNode) {
				return nil
			}
		}
		return fmt.Errorf("conditions %+v", pod.Status.Conditions)
	})
	other := makeNode(t, namespace, "other")
	waitBoundTo(t, pod, other)
	eventually(t, 10*time.Second, func(ctx context.Context) error {
		var events eventsv1.EventList
		if err := k8s.List(ctx, &events, client.InNamespace(namespace)); err != nil {
			return err
		}
		for _, event := range events.Items {
			if event.Reason == "Scheduled" && event.ReportingController == v1alpha1.SchedulerName {
				return nil
			}
		}
		return fmt.Errorf("no Scheduled event of our scheduler among %d events", len(events.Items))
	})
}

// The volume can be attached to one node only. Whichever node is tried first,
// the pod ends on that one, and no other node keeps an attachment.
func triedElsewhereAfterAFailedAttach(t *testing.T) {
	namespace := newNamespace(t)
	driver := "csi." + namespace
	source := makeNode(t, namespace, "source", driver)
	broken := makeNode(t, namespace, "broken", driver)
	good := makeNode(t, namespace, "good", driver)
	makeBoundClaim(t, namespace, driver)
	runAttacher(t, driver, good)
	pod := newReplacement(namespace, source)
	// The plan named the node that turns out not to work.
	pod.Labels = map[string]string{v1alpha1.TargetNodeLabel: v1alpha1.LabelValue(broken)}
	pod.Annotations[v1alpha1.CheckpointClaimAnnotation] = "checkpoint"
	pod.Spec.Volumes = []corev1.Volume{{
		Name:         v1alpha1.CheckpointVolumeName,
		VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "checkpoint"}},
	}}
	if err := k8s.Create(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	waitBoundTo(t, pod, good)
	attachments := attachmentsOf(t, driver)
	if len(attachments) != 1 || attachments[0].Spec.NodeName != good || !attachments[0].Status.Attached {
		t.Errorf("attachments %+v, want one on %s", attachments, good)
	}
	var events corev1.EventList
	if err := k8s.List(t.Context(), &events, client.InNamespace(namespace)); err != nil {
		t.Fatal(err)
	}
	tried := false
	for _, event := range events.Items {
		tried = tried || event.Reason == "FailedScheduling" && strings.Contains(event.Message, "the disk is stuck")
	}
	if !tried {
		t.Error("no event reports the failed attach on the planned node")
	}
}

// makeNode registers a Ready node of the test's own, with CSI drivers.
func makeNode(t *testing.T, namespace, name string, drivers ...string) string {
	t.Helper()
	name = namespace + "-" + name
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"test": namespace}}}
	csiNode := &storagev1.CSINode{ObjectMeta: metav1.ObjectMeta{Name: name}}
	for _, driver := range drivers {
		csiNode.Spec.Drivers = append(csiNode.Spec.Drivers, storagev1.CSINodeDriver{Name: driver, NodeID: name})
	}
	for _, object := range []client.Object{csiNode, node} {
		if err := k8s.Create(t.Context(), object); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = k8s.Delete(context.Background(), object) })
	}
	node.Status.Allocatable = corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("4"), corev1.ResourceMemory: resource.MustParse("8Gi"), corev1.ResourcePods: resource.MustParse("110"),
	}
	node.Status.Capacity = node.Status.Allocatable
	if err := k8s.Status().Update(t.Context(), node); err != nil {
		t.Fatal(err)
	}
	// The API server taints new nodes; no controller removes it here.
	node.Spec.Taints = nil
	if err := k8s.Update(t.Context(), node); err != nil {
		t.Fatal(err)
	}
	return name
}

func newReplacement(namespace, source string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: "replacement", Namespace: namespace,
			Annotations: map[string]string{v1alpha1.SourceNodeAnnotation: source},
		},
		Spec: corev1.PodSpec{
			SchedulerName: v1alpha1.SchedulerName,
			NodeSelector:  map[string]string{"test": namespace},
			Containers:    []corev1.Container{{Name: "main", Image: "example.com/main"}},
		},
	}
}

func makeReplacement(t *testing.T, namespace, source string) *corev1.Pod {
	t.Helper()
	pod := newReplacement(namespace, source)
	if err := k8s.Create(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	return pod
}

func waitBoundTo(t *testing.T, pod *corev1.Pod, node string) {
	t.Helper()
	eventually(t, 60*time.Second, func(ctx context.Context) error {
		if err := k8s.Get(ctx, client.ObjectKeyFromObject(pod), pod); err != nil {
			return err
		}
		if pod.Spec.NodeName == "" {
			return fmt.Errorf("not bound: %+v", pod.Status.Conditions)
		}
		return nil
	})
	if pod.Spec.NodeName != node {
		t.Fatalf("bound to %s, want %s", pod.Spec.NodeName, node)
	}
}

// makeBoundClaim plays the provisioner and the volume controller.
func makeBoundClaim(t *testing.T, namespace, driver string) {
	t.Helper()
	modes := []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}
	size := corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}
	none := ""
	volume := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: "pv-" + namespace},
		Spec: corev1.PersistentVolumeSpec{
			Capacity: size, AccessModes: modes,
			PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: driver, VolumeHandle: "handle"}},
			ClaimRef:               &corev1.ObjectReference{Namespace: namespace, Name: "checkpoint"},
		},
	}
	claim := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{
			Name: "checkpoint", Namespace: namespace,
			Annotations: map[string]string{"pv.kubernetes.io/bind-completed": "yes"},
		},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: modes, StorageClassName: &none, VolumeName: volume.Name,
			Resources: corev1.VolumeResourceRequirements{Requests: size},
		},
	}
	for _, object := range []client.Object{volume, claim} {
		if err := k8s.Create(t.Context(), object); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = k8s.Delete(context.Background(), object) })
	}
	claim.Status.Phase, claim.Status.AccessModes, claim.Status.Capacity = corev1.ClaimBound, modes, size
	volume.Status.Phase = corev1.VolumeBound
	for _, object := range []client.Object{volume, claim} {
		if err := k8s.Status().Update(t.Context(), object); err != nil {
			t.Fatal(err)
		}
	}
}

// runAttacher plays the external attacher: it can attach to one node only.
func runAttacher(t *testing.T, driver, good string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			for _, attachment := range attachmentsOf(t, driver) {
				if attachment.Status.Attached || attachment.Status.AttachError != nil {
					continue
				}
				attachment.Status.Attached = attachment.Spec.NodeName == good
				if !attachment.Status.Attached {
					attachment.Status.AttachError = &storagev1.VolumeError{Time: metav1.Now(), Message: "the disk is stuck"}
				}
				_ = k8s.Status().Update(ctx, &attachment)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
}

func attachmentsOf(t *testing.T, driver string) []storagev1.VolumeAttachment {
	var list storagev1.VolumeAttachmentList
	if err := k8s.List(context.Background(), &list); err != nil {
		t.Errorf("listing attachments: %v", err)
		return nil
	}
	var found []storagev1.VolumeAttachment
	for _, attachment := range list.Items {
		if attachment.Spec.Attacher == driver {
			found = append(found, attachment)
		}
	}
	return found
}
