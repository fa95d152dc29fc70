//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/test/devcluster"
)

// processTemplate is a writer whose processes can move, beside a container that
// has finished.
func processTemplate(name, collector string) corev1.PodTemplateSpec {
	template := smallWriterTemplate(name, collector)
	template.Spec.RuntimeClassName = new(v1alpha1.ProcessRuntimeClass)
	return template
}

// withProcesses asks for the memory of the processes.
func withProcesses(m *v1alpha1.PodMigration) {
	m.Spec.Checkpoint.Mode = v1alpha1.CheckpointProcess
}

// One process numbers its records in memory, makes them durable and has them
// acknowledged on another node. It moves back and forth under load and never
// starts again: the collector would see that.
func TestProcessesMove(t *testing.T) {
	if !isFull() {
		t.Parallel() // the full suite measures
	}
	requireProcessNodes(t)
	moves := 2
	if isFull() {
		moves = 20
	}
	namespace := newNamespace(t)
	collector := startCollector(t, namespace)
	for _, kind := range workloadKinds {
		if kind.name == "StatefulSet" {
			continue // its original must stop first
		}
		t.Run(kind.name, func(t *testing.T) {
			if !isFull() {
				t.Parallel()
			}
			name := "process-" + strings.ToLower(strings.Fields(kind.name)[0])
			create(t, kind.make(namespace, name, processTemplate(name, collector)))
			moveProcesses(t, namespace, name, collector, moves)
		})
	}
}

func moveProcesses(t *testing.T, namespace, name, collector string, moves int) {
	var stops []time.Duration
	for move := range moves {
		pod := awaitOnly(t, namespace, name, 2*time.Minute)
		awaitProgress(t, collector, name)
		migration := migrate(t, pod, func(m *v1alpha1.PodMigration) {
			withProcesses(m)
			m.Name, m.Spec.TargetNode = fmt.Sprintf("%s-%d", name, move), otherNode(pod)
		})
		wantSucceeded(t, migration, 4*time.Minute)
		if c := migration.Status.Checkpoint; c.Restored != v1alpha1.RestoredProcesses {
			t.Fatalf("%s continued with %q", migration.Name, c.Restored)
		}
		awaitProgress(t, collector, name)
		reportStop(t, migration)
		stops = append(stops, migration.Status.Downtime.Duration)
	}
	slices.Sort(stops)
	t.Logf("%s: stop time, median of %d: %v, from %v to %v", name, moves, stops[len(stops)/2], stops[0], stops[len(stops)-1])
	l := wantOneBeginning(t, collector, name)
	wantRecords(t, awaitOnly(t, namespace, name, time.Minute), l.Last)
}

// wantOneBeginning wants a writer to have continued through all moves, with no record
// lost or repeated.
func wantOneBeginning(t *testing.T, collector, name string) ledger {
	t.Helper()
	all, err := ledgers(collector, false)
	if err != nil {
		t.Fatal(err)
	}
	l := all[name]
	t.Logf("%s: %d records acknowledged, %d lost, %d sent again, %d skipped, %d beginnings", name, l.Last, l.Lost, l.Duplicated, l.Skipped, l.Resumed)
	if !l.beganOnce() {
		t.Errorf("%s: %+v, want one beginning, and no record lost or repeated", name, l)
	}
	return l
}

// beganOnce reports whether a writer lost and skipped nothing, and never started again.
// The one record whose acknowledgement was on its way when a node closed its
// connection is sent again from the next one, because the writer asks until it has an
// answer; from the same one the collector knows it for the same request.
func (l ledger) beganOnce() bool {
	return l.Lost+l.Skipped == 0 && l.Resumed == 1 && l.Duplicated < max(1, int64(len(l.Hosts)))
}

// Three containers, of which one has finished: the other two continue with their memory,
// and what the finished one requested is free.
func TestMemoryOfTwoOfThreeContainers(t *testing.T) {
	needsTime(t)
	requireProcessNodes(t)
	const moves = 2
	namespace := newNamespace(t)
	collector := startCollector(t, namespace)
	template := processTemplate("first", collector)
	second := template.Spec.Containers[0].DeepCopy()
	second.Name, second.Args = "second", []string{"record", "--file=/data/second", "--collector=" + collector, "--writer=second", "--every=5ms"}
	template.Spec.Containers = append(template.Spec.Containers, *second, container("prepare", 300, "--for=1s"))
	pod := startOn(t, env.nodes[0], workloadKinds[0].make(namespace, "first", template).(*corev1.Pod))
	waitCompletedWithin(t, pod, "prepare", 30*time.Second)
	for move := range moves {
		awaitProgress(t, collector, "first")
		awaitProgress(t, collector, "second")
		migration := migrate(t, pod, func(m *v1alpha1.PodMigration) {
			withProcesses(m)
			m.Name, m.Spec.TargetNode = fmt.Sprintf("three-%d", move), otherNode(pod)
		})
		wantSucceeded(t, migration, 4*time.Minute)
		moved := awaitOnly(t, namespace, "first", time.Minute)
		t.Logf("%s: %d containers and %dm requested before, %d containers (%v) and %dm after, restored %s", migration.Name, len(pod.Spec.Containers), cpuRequests(pod),
			len(moved.Spec.Containers), migration.Status.Checkpoint.Processes, cpuRequests(moved), migration.Status.Checkpoint.Restored)
		if len(moved.Spec.Containers) != 2 || cpuRequests(moved) != 100 || migration.Status.Checkpoint.Restored != v1alpha1.RestoredProcesses {
			t.Errorf("%+v", migration.Status.Checkpoint)
		}
		reportStop(t, migration)
		pod = moved
	}
	awaitProgress(t, collector, "first")
	awaitProgress(t, collector, "second")
	for _, name := range []string{"first", "second"} {
		wantOneBeginning(t, collector, name)
	}
}

// wantRecords wants every record once, in order, at least up to one.
func wantRecords(t *testing.T, pod *corev1.Pod, least int64) {
	t.Helper()
	path, err := devcluster.PodPath(pod.UID, "/data/records")
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	last := int64(0)
	for line := range strings.Lines(string(content)) {
		number, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
		if err != nil || number != last+1 {
			t.Fatalf("after record %d stands %q", last, line)
		}
		last = number
	}
	if last < least {
		t.Errorf("the file ends with record %d, and %d was acknowledged", last, least)
	}
}

// reportStop prints the parts of a stop.
func reportStop(t *testing.T, migration *v1alpha1.PodMigration) {
	t.Helper()
	m := stopOf(migration)
	t.Logf("%s: stop %.3fs = dump %.3fs, copy and seal %.3fs, restore %.3fs, evict %.3fs, seen Ready %.3fs; %d bytes, last pass %.0f", migration.Name,
		m.Stop, m.Dump, m.Copy, m.Restore, m.Released, m.Seen, migration.Status.Checkpoint.Source.Bytes, m.Bytes)
}

// requireProcessNodes wants CRIU and nodes that say so: without, nothing that moves
// with its memory would be tested.
func requireProcessNodes(t *testing.T) {
	t.Helper()
	if _, err := os.Stat("../../bin/criu"); err != nil {
		t.Fatalf("needs CRIU: make bin/criu: %v", err)
	}
	for _, name := range env.nodes {
		eventuallyCarries(t, name)
	}
}

// What cannot move with its memory is refused before it is touched, with the
// reason; or moves without, where the migration says that it may.
func TestProcessesThatCannotMove(t *testing.T) {
	t.Parallel()
	requireProcessNodes(t)
	namespace := newNamespace(t)
	// A server in Go listens with Multipath TCP, which CRIU does not dump.
	c := container("server", 10, "--http=:8080")
	pod := excluded(newPod(namespace, "server", c))
	pod.Spec.RuntimeClassName = new(v1alpha1.ProcessRuntimeClass)
	pod = startOn(t, env.nodes[0], pod)
	refused := migrate(t, pod, func(m *v1alpha1.PodMigration) { withProcesses(m); m.Name = "refused" })
	waitPhase(t, refused, 2*time.Minute, v1alpha1.Phase.IsFinished)
	if refused.Status.Phase != v1alpha1.PhaseFailed || !strings.Contains(refused.Status.Message, "MPTCP") || refused.Status.Times.Stopped != nil {
		t.Fatalf("%s: %s, stopped %v", refused.Status.Phase, refused.Status.Message, refused.Status.Times.Stopped)
	}
	t.Logf("refused: %s", refused.Status.Message)
	fallen := migrate(t, pod, func(m *v1alpha1.PodMigration) {
		withProcesses(m)
		m.Name, m.Spec.Checkpoint.Fallback = "fallen", v1alpha1.FallbackFreshStart
	})
	wantSucceeded(t, fallen, 3*time.Minute)
	if c := fallen.Status.Checkpoint; c.Mode != v1alpha1.CheckpointFrozen || !strings.Contains(c.FallbackReason, "MPTCP") {
		t.Errorf("%+v, want a fresh start with the reason", c)
	}
}

func eventuallyCarries(t *testing.T, name string) {
	t.Helper()
	eventually(t, time.Minute, "node "+name+" can dump processes", func(ctx context.Context) error {
		node := &corev1.Node{}
		if err := env.client.Get(ctx, client.ObjectKey{Name: name}, node); err != nil {
			return err
		}
		if node.Labels[v1alpha1.ProcessNodeLabel] != "true" {
			return fmt.Errorf("it says %q", node.Annotations[v1alpha1.ProcessVersionsAnnotation])
		}
		return nil
	})
}
