//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/test/devcluster"
	"github.com/ai-storage/orchestrator/test/devcluster/image"
)

// isFull reports whether the long proofs were requested (make e2e-full).
func isFull() bool { return os.Getenv("E2E_FULL") != "" }

// Records are durable on an emptyDir before they are acknowledged to another
// node. The pod moves back and forth under load; none is lost or repeated.
func TestAcknowledgedWritesSurvive(t *testing.T) {
	moves := 2
	if isFull() {
		moves = 10
	}
	namespace := newNamespace(t)
	collector := startCollector(t, namespace)
	for _, kind := range workloadKinds {
		t.Run(kind.name, func(t *testing.T) {
			if !isFull() {
				t.Parallel()
			}
			name := "writer-" + strings.ToLower(strings.Fields(kind.name)[0])
			create(t, kind.make(namespace, name, writerTemplate(name, collector)))
			moveBackAndForth(t, namespace, name, collector, moves)
		})
	}
}

// besideBytes is how much other data moves with the records.
func besideBytes() string {
	if isFull() {
		return "256Mi"
	}
	return "32Mi"
}

// writerTemplate is a pod that writes records beside other data, of besideBytes.
func writerTemplate(name, collector string) corev1.PodTemplateSpec {
	data := corev1.VolumeMount{Name: "data", MountPath: "/data"}
	fill := corev1.Container{
		Name: "fill", Image: image.WorkloadReference,
		Args:         []string{"fill", "--dir=/data", "--bytes=" + besideBytes(), "--files=200"},
		VolumeMounts: []corev1.VolumeMount{data},
	}
	writer := container("writer", 50)
	writer.Args = []string{"record", "--file=/data/records", "--collector=" + collector, "--writer=" + name, "--every=2ms"}
	writer.VolumeMounts = []corev1.VolumeMount{data}
	return templateOf(name, corev1.PodSpec{
		SchedulerName: v1alpha1.SchedulerName, RestartPolicy: corev1.RestartPolicyNever,
		TerminationGracePeriodSeconds: new(int64(5)),
		InitContainers:                []corev1.Container{fill}, Containers: []corev1.Container{writer},
		Volumes: []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}},
	})
}

// smallWriterTemplate has 8 MiB of other data, where how much there is does not matter.
func smallWriterTemplate(name, collector string) corev1.PodTemplateSpec {
	template := writerTemplate(name, collector)
	template.Spec.InitContainers[0].Args = []string{"fill", "--dir=/data", "--bytes=8Mi", "--files=20"}
	return template
}

// startCollector runs the collector on the third node and returns its address.
func startCollector(t testing.TB, namespace string) string {
	t.Helper()
	c := container("collect", 50)
	c.Args = []string{"collect", "--http=:8080"}
	pod := excluded(newPod(namespace, "collector", c))
	onObserver(&pod.Spec)
	create(t, pod)
	waitRunning(t, pod)
	address := "http://" + pod.Status.PodIP + ":8080"
	eventually(t, 20*time.Second, "the collector answers", func(context.Context) error {
		_, err := ledgers(address, false)
		return err
	})
	return address
}

// tellFinish ends the work of all that waits for the collector's word.
func tellFinish(t testing.TB, collector string) {
	t.Helper()
	response, err := http.Post(collector+"/finish", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Fatalf("the collector answered %s", response.Status)
	}
}

// onObserver puts a pod on the node that no other pod may use.
func onObserver(spec *corev1.PodSpec) {
	spec.NodeSelector = map[string]string{corev1.LabelHostname: env.observer}
	spec.Tolerations = []corev1.Toleration{{Key: observerTaint, Operator: corev1.TolerationOpExists}}
}

// ledger is what the collector knows of one writer.
type ledger struct {
	Last, Lost, Duplicated, Skipped, Resumed, LongestGapMillis int64
	Hosts                                                      []string
}

// ledgers asks the collector; reset begins a new measurement of gaps.
func ledgers(address string, reset bool) (map[string]ledger, error) {
	response, err := http.Get(fmt.Sprintf("%s/report?reset=%t", address, reset))
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	all := map[string]ledger{}
	return all, json.NewDecoder(response.Body).Decode(&all)
}

func moveBackAndForth(t testing.TB, namespace, name, collector string, moves int) {
	var frozen []time.Duration
	for move := range moves {
		pod := awaitOnly(t, namespace, name, 2*time.Minute)
		awaitProgress(t, collector, name)
		migration := migrate(t, pod, func(m *v1alpha1.PodMigration) {
			m.Name, m.Spec.TargetNode = fmt.Sprintf("%s-%d", name, move), otherNode(pod)
		})
		wantSucceeded(t, migration, 4*time.Minute)
		awaitProgress(t, collector, name)
		frozen = append(frozen, reportMove(t, migration, collector, name))
		wantNoInit(t, migration)
	}
	slices.Sort(frozen)
	t.Logf("%s: frozen window, median of %d: %v", name, moves, frozen[len(frozen)/2].Round(time.Millisecond))
	if median := frozen[len(frozen)/2]; median >= time.Second {
		t.Errorf("the median of the frozen window is %v, want less than 1 s", median)
	}
	all, err := ledgers(collector, false)
	if err != nil {
		t.Fatal(err)
	}
	l := all[name]
	t.Logf("%s: %d records acknowledged, %d lost, %d duplicated, %d skipped, by %d hosts", name, l.Last, l.Lost, l.Duplicated, l.Skipped, len(l.Hosts))
	if l.Lost+l.Duplicated+l.Skipped != 0 || l.Resumed != int64(moves)+1 {
		t.Errorf("%s: %+v, want nothing lost or repeated and %d beginnings", name, l, moves+1)
	}
}

// awaitProgress waits until the writer has had more records acknowledged.
func awaitProgress(t testing.TB, collector, name string) {
	t.Helper()
	before, err := ledgers(collector, false)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, name+" writes", func(context.Context) error {
		now, err := ledgers(collector, false)
		if err == nil && now[name].Last < before[name].Last+20 {
			err = fmt.Errorf("its last record is %d", now[name].Last)
		}
		return err
	})
}

// reportMove prints what a move cost, and returns how long the pod was frozen
// before its checkpoint was sealed.
func reportMove(t testing.TB, migration *v1alpha1.PodMigration, collector, name string) time.Duration {
	t.Helper()
	checkpoint := migration.Status.Checkpoint
	if checkpoint == nil || checkpoint.Source == nil || checkpoint.Source.FrozenAt == nil || checkpoint.Source.SealedAt == nil {
		t.Fatalf("migration %s does not tell how long the pod was frozen: %+v", migration.Name, checkpoint)
	}
	source := checkpoint.Source
	frozen := source.SealedAt.Sub(source.FrozenAt.Time)
	all, err := ledgers(collector, true)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s: %s → %s (%s, %s): frozen %v, downtime %v, longest pause of the writer %d ms, %d bytes in %d files, %d passes, last wrote %d bytes",
		migration.Name, migration.Status.Original.NodeName, migration.Status.Replacement.NodeName,
		migration.Status.Handover.Method, migration.Status.Handover.Order, frozen.Round(time.Millisecond), migration.Status.Downtime,
		all[name].LongestGapMillis, source.Bytes, source.Files, source.Pass, source.PassBytes)
	return frozen
}

// wantNoInit wants the finished init container left behind: its product came
// with the checkpoint.
func wantNoInit(t testing.TB, migration *v1alpha1.PodMigration) {
	t.Helper()
	replacement, err := getPod(t.Context(), migration.Namespace, migration.Status.Replacement.Name)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range replacement.Spec.InitContainers {
		if !v1alpha1.IsGateContainer(c.Name) {
			t.Errorf("the replacement has init container %s", c.Name)
		}
	}
}

// What a pod keeps in memory goes along without freezing it, in mode Live, what it
// keeps on disk when it is asked to stop first, and what an application saves by
// itself, in mode Application: the work continues where it was.
func TestOtherModesCarryState(t *testing.T) {
	t.Parallel()
	saved := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: "saved"},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany},
			Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("64Mi")}},
		},
	}
	for _, test := range []struct {
		mode      v1alpha1.CheckpointMode
		forced    bool
		directory string
		volume    corev1.VolumeSource
		order     v1alpha1.HandoverOrder
		claim     *corev1.PersistentVolumeClaim
	}{
		{
			mode: v1alpha1.CheckpointLive, directory: "/state", order: v1alpha1.OrderStartFirst,
			volume: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}},
		},
		{
			mode: v1alpha1.CheckpointFrozen, forced: true, directory: "/state", order: v1alpha1.OrderStopFirst,
			volume: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}},
		},
		{
			mode: v1alpha1.CheckpointApplication, directory: v1alpha1.CheckpointMountPath, order: v1alpha1.OrderStopFirst, claim: saved,
			volume: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: saved.Name}},
		},
	} {
		t.Run(string(test.mode), func(t *testing.T) {
			t.Parallel()
			namespace := newNamespace(t)
			c := container("work", 50, "--write="+test.directory+"/progress")
			c.VolumeMounts = []corev1.VolumeMount{{Name: v1alpha1.CheckpointVolumeName, MountPath: test.directory}}
			pod := excluded(newPod(namespace, "work", c))
			if test.claim != nil {
				test.claim.Namespace = namespace
				create(t, test.claim)
				pod.Annotations[v1alpha1.CheckpointClaimAnnotation] = test.claim.Name
			} else {
				c.VolumeMounts[0].Name = "state"
			}
			pod.Spec.Volumes = []corev1.Volume{{Name: c.VolumeMounts[0].Name, VolumeSource: test.volume}}
			create(t, pod)
			waitRunning(t, pod)
			file := test.directory + "/progress"
			before := awaitWork(t, pod, file)
			migration := migrate(t, pod, func(m *v1alpha1.PodMigration) {
				m.Spec.Checkpoint.Mode, m.Spec.ForceRestart = test.mode, test.forced
			})
			wantSucceeded(t, migration, 2*time.Minute)
			if migration.Status.Handover.Order != test.order {
				t.Errorf("order %s, want %s", migration.Status.Handover.Order, test.order)
			}
			if source := migration.Status.Checkpoint.Source; source != nil && (source.FrozenAt != nil) != (test.mode == v1alpha1.CheckpointFrozen) {
				t.Errorf("frozen at %v", source.FrozenAt)
			}
			replacement, err := getPod(t.Context(), namespace, migration.Status.Replacement.Name)
			if err != nil {
				t.Fatal(err)
			}
			wantCarried(t, replacement, "work", file, before)
			t.Logf("%s: %s → %s (%s), downtime %v", test.mode, pod.Spec.NodeName, replacement.Spec.NodeName, migration.Status.Handover.Order, migration.Status.Downtime)
		})
	}
}

// workTime is for how long a pod works before it moves. It must be well above
// workSlack, or a pod that starts again could not be distinguished from one that continues.
const (
	workTime  = 6 * time.Second
	workSlack = 2 * time.Second
)

// awaitWork waits until a pod has worked for workTime, and returns for how long it
// has.
func awaitWork(t testing.TB, pod *corev1.Pod, file string) (worked time.Duration) {
	t.Helper()
	eventually(t, 30*time.Second, fmt.Sprintf("pod %s has worked for %s", pod.Name, workTime), func(context.Context) (err error) {
		if worked, err = progressOf(pod, file); err == nil && worked < workTime {
			err = fmt.Errorf("it has worked for %s", worked)
		}
		return err
	})
	return worked
}

// wantCarried wants a replacement to have continued with the work that its original
// had done: what it has worked for is that, and the time that it runs itself. Of the
// latter alone a replacement can boast that started again.
func wantCarried(t testing.TB, replacement *corev1.Pod, container, file string, before time.Duration) {
	t.Helper()
	status := statusOf(t, replacement, container)
	if status.State.Running == nil {
		t.Fatalf("container %s of pod %s does not run: %+v", container, replacement.Name, status.State)
	}
	var after, runs time.Duration
	eventually(t, 20*time.Second, "the replacement has worked", func(context.Context) (err error) {
		// The times of the API are whole seconds.
		runs = time.Since(status.State.Running.StartedAt.Time)
		if after, err = progressOf(replacement, file); err == nil && after < before {
			err = fmt.Errorf("it has worked for %s, its original for %s", after, before)
		}
		return err
	})
	carried := after - runs
	t.Logf("%s: worked for %s before, for %s now, of which %s here: carried %s", replacement.Name, before, after, runs.Round(time.Millisecond), carried.Round(time.Millisecond))
	if carried < before-workSlack {
		t.Errorf("the work of pod %s did not continue where it was: %s of at least %s came along", replacement.Name, carried, before)
	}
}

// progressOf is for how long a pod has worked, by the file in which it keeps that.
func progressOf(pod *corev1.Pod, file string) (time.Duration, error) {
	path, err := devcluster.PodPath(pod.UID, file)
	if err != nil {
		return 0, err
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	millis, err := strconv.ParseInt(strings.TrimSpace(string(content)), 10, 64)
	return time.Duration(millis) * time.Millisecond, err
}
