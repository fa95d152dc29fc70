//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/nodeagent"
)

// The claim has room for the volumes of the pod, and not for the memory that is
// dumped when it stands still: it goes on with its memory.
func TestAClaimThatFillsUpDuringTheDump(t *testing.T) {
	needsTime(t)
	requireProcessNodes(t)
	s := startWriterOf(t, processTemplate)
	class := smallVolume(t, 12)
	s.move(t, func(m *v1alpha1.PodMigration) {
		withProcesses(m)
		m.Spec.Checkpoint.StorageClassName = &class
	})
	s.wantGivenUp(t, 2*time.Minute, "ClaimTooSmall")
	if s.migration.Status.Times.Stopped != nil {
		t.Errorf("the original was stopped at %s", s.migration.Status.Times.Stopped)
	}
}

// smallVolume is a volume for all nodes that says it has 1 GiB and has megabytes, as one
// whose file system others share may. It returns its storage class, which is its own.
func smallVolume(t testing.TB, megabytes int64) string {
	t.Helper()
	folder, name := t.TempDir(), "small-"+strconv.FormatInt(time.Now().UnixNano(), 36)
	disk := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(disk, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(disk, megabytes<<20); err != nil {
		t.Fatal(err)
	}
	run(t, "mkfs.ext4", "-q", "-O", "^has_journal", "-m", "0", disk)
	device := run(t, "losetup", "--find", "--show", disk)
	t.Cleanup(func() { run(t, "losetup", "--detach", device) })
	for _, node := range env.nodes {
		inNode(t, node, "mount", device, folder)
		t.Cleanup(func() { inNode(t, node, "umount", "--lazy", folder) })
	}
	volume := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PersistentVolumeSpec{
			StorageClassName: name, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany},
			Capacity:                      corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")},
			PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimRetain,
			PersistentVolumeSource:        corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: folder}},
		},
	}
	create(t, volume)
	return name
}

// inNode runs a program in the mount namespace of a node.
func inNode(t testing.TB, node string, command ...string) {
	t.Helper()
	processes, err := env.cluster.Processes()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range processes {
		if strings.Contains(p.Name, node) && strings.Contains(p.Name, "kubelet") {
			run(t, append([]string{"nsenter", fmt.Sprintf("--mount=/proc/%d/ns/mnt", p.PID)}, command...)...)
			return
		}
	}
	t.Fatalf("node %s has no kubelet among %v", node, processes)
}

func run(t testing.TB, command ...string) string {
	t.Helper()
	out, err := exec.Command(command[0], command[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v: %s", command, err, out)
	}
	return strings.TrimSpace(string(out))
}

// Memory of which one bit is another one than what was sealed: CRIU never sees it,
// and the original goes on with its own.
func TestCorruptedMemoryIsNotRestored(t *testing.T) {
	needsTime(t)
	requireProcessNodes(t)
	b := newBreakpoints(t)
	s := startWriterOf(t, processTemplate)
	s.holdSealed(t, b, withProcesses)
	memory := filepath.Join(claimFolder(t, s.namespace, s.migration.Status.CheckpointClaim), string(s.migration.UID), "volumes", "memory.writer")
	pages, err := filepath.Glob(filepath.Join(memory, "pages-*.img"))
	if err != nil || len(pages) == 0 {
		t.Fatalf("no pages in %s: %v", memory, err)
	}
	flipByte(t, pages[0])
	signalAgent(t, env.nodes[1], syscall.SIGCONT)
	s.wantGivenUp(t, time.Minute, "RestoreFailed")
}

// The agent of the destination dies when everything is sealed and nothing is
// restored, behind the gate that held the claim for it: one of both goes on with its
// memory.
func TestADestinationAgentThatDiesBeforeTheRestore(t *testing.T) {
	needsTime(t)
	requireProcessNodes(t)
	b := newBreakpoints(t)
	s := startWriterOf(t, processTemplate)
	s.holdSealed(t, b, withProcesses)
	signalAgent(t, env.nodes[1], syscall.SIGKILL)
	waitPhase(t, s.migration, 3*time.Minute, v1alpha1.Phase.IsFinished)
	t.Logf("%s: %s", s.migration.Status.Phase, s.migration.Status.Message)
	checkNothingLeft(t, s.namespace, s.collector, []*v1alpha1.PodMigration{s.migration})
}

// The memory of a pod takes longer to copy than the pod may stand still: it goes on
// with its memory. Where it may stand still for longer, it moves.
func TestMuchMemoryMovesWithTime(t *testing.T) {
	needsTime(t)
	requireProcessNodes(t)
	namespace := newNamespace(t)
	pod := startOn(t, env.nodes[0], memoryPod(namespace, "3Gi"))
	eventually(t, 2*time.Minute, "the pod has filled its memory", func(ctx context.Context) error {
		found, err := getPod(ctx, namespace, pod.Name)
		if err == nil && !isReady(found) {
			err = errors.New("it is not Ready")
		}
		return err
	})
	within := func(name string, seconds int32) *v1alpha1.PodMigration {
		return migrate(t, pod, func(m *v1alpha1.PodMigration) {
			withProcesses(m)
			m.Name, m.Spec.Checkpoint.MaxFreezeSeconds = name, seconds
		})
	}
	worked := workedAt(t, pod)
	short := &faultScene{namespace: namespace, pod: pod, migration: within("short", 2)}
	short.wantFailed(t, 3*time.Minute, "CheckpointFailed")
	if source := short.migration.Status.Checkpoint.Source; source.Reason != nodeagent.ReasonFreezeTooLong || !strings.Contains(source.Message, "maxFreezeSeconds") {
		t.Errorf("the source says %s: %s", source.Reason, source.Message)
	}
	if now := workedAt(t, pod); now <= worked {
		t.Errorf("the original has worked for %d ms, and did so for %d before", now, worked)
	}
	worked = workedAt(t, pod)
	long := within("long", 300)
	wantSucceeded(t, long, 6*time.Minute)
	reportStop(t, long)
	moved, err := getPod(t.Context(), namespace, long.Status.Replacement.Name)
	if err != nil {
		t.Fatal(err)
	}
	if c := long.Status.Checkpoint; c.Restored != v1alpha1.RestoredProcesses || workedAt(t, moved) <= worked {
		t.Errorf("it went on with %q", c.Restored)
	}
}

// CRIU can dump the writer and not restore it: its file is on a volume that nobody
// carries. The original goes on with its memory; or, where the migration says that it
// may, the replacement starts afresh, which it reports.
func TestProcessesThatCannotBeRestored(t *testing.T) {
	needsTime(t)
	requireProcessNodes(t)
	s := startWriterOf(t, func(name, collector string) corev1.PodTemplateSpec {
		template := processTemplate(name, collector)
		template.Spec.InitContainers = nil // one that filled it would run again
		template.Annotations = map[string]string{v1alpha1.DiscardableVolumesAnnotation: "data"}
		return template
	})
	s.move(t, withProcesses)
	s.wantGivenUp(t, 2*time.Minute, "RestoreFailed")
	fresh := migrate(t, s.pod, func(m *v1alpha1.PodMigration) {
		withProcesses(m)
		m.Name, m.Spec.TargetNode, m.Spec.Checkpoint.Fallback = "fresh", env.nodes[1], v1alpha1.FallbackFreshStart
	})
	wantSucceeded(t, fresh, 3*time.Minute)
	if c := fresh.Status.Checkpoint; c.Restored == v1alpha1.RestoredProcesses || !strings.Contains(c.FallbackReason, "could not be restored") {
		t.Errorf("restored %q for %q", c.Restored, c.FallbackReason)
	}
	t.Logf("began anew: %s", fresh.Status.Checkpoint.FallbackReason)
}
