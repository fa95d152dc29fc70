//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/devcluster/image"
)

// isFull tells whether the long proofs are asked for (make e2e-full).
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

// writerTemplate is a pod that writes records beside 256 MiB of other data.
func writerTemplate(name, collector string) corev1.PodTemplateSpec {
	data := corev1.VolumeMount{Name: "data", MountPath: "/data"}
	fill := corev1.Container{
		Name: "fill", Image: image.WorkloadReference,
		Args:         []string{"fill", "--dir=/data", "--bytes=256Mi", "--files=200"},
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
			sharedCheckpoint(m)
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
