//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/controllers/migration"
	"github.com/ai-storage/orchestrator/pkg/controllers/migration/decide"
	"github.com/ai-storage/orchestrator/test/devcluster"
)

// A faultScene is a bare pod that writes records to an emptyDir, and its migration
// from the first node to the second.
type faultScene struct {
	namespace, collector string
	pod                  *corev1.Pod
	migration            *v1alpha1.PodMigration
}

const faultWriter = "writer"

func startWriter(t testing.TB) *faultScene { return startWriterOf(t, smallWriterTemplate) }

func startWriterOf(t testing.TB, templateOf func(name, collector string) corev1.PodTemplateSpec) *faultScene {
	t.Helper()
	s := &faultScene{namespace: newNamespace(t)}
	s.collector = startCollector(t, s.namespace)
	template := templateOf(faultWriter, s.collector)
	s.pod = startOn(t, env.nodes[0], workloadKinds[0].make(s.namespace, faultWriter, template).(*corev1.Pod))
	awaitProgress(t, s.collector, faultWriter)
	return s
}

func (s *faultScene) move(t testing.TB, change func(*v1alpha1.PodMigration)) {
	t.Helper()
	s.migration = migrate(t, s.pod, func(m *v1alpha1.PodMigration) {
		m.Spec.TargetNode = env.nodes[1]
		change(m)
	})
}

// wantGivenUp wants the migration to have failed for the reason, and the original
// to continue where it was, without a restart, a lost record or a leftover.
func (s *faultScene) wantGivenUp(t testing.TB, within time.Duration, reason string) {
	t.Helper()
	s.wantFailed(t, within, reason)
	found, err := getPod(t.Context(), s.namespace, s.pod.Name)
	if err != nil {
		t.Fatal(err)
	}
	if found.UID != s.pod.UID || found.Status.Phase != corev1.PodRunning || found.DeletionTimestamp != nil || restarts(found) != 0 {
		t.Errorf("the original did not continue: UID %s, %s, %d restarts", found.UID, found.Status.Phase, restarts(found))
	}
	checkNothingLeft(t, s.namespace, s.collector, []*v1alpha1.PodMigration{s.migration})
}

func (s *faultScene) wantFailed(t testing.TB, within time.Duration, reason string) {
	t.Helper()
	waitPhase(t, s.migration, within, v1alpha1.Phase.IsFinished)
	condition := meta.FindStatusCondition(s.migration.Status.Conditions, v1alpha1.ConditionRolledBack)
	if s.migration.Status.Phase != v1alpha1.PhaseFailed || condition == nil || condition.Reason != reason {
		t.Fatalf("migration ended %s, rolled back for %+v, want Failed for %s", s.migration.Status.Phase, condition, reason)
	}
	took := s.migration.Status.Times.Finished.Sub(s.migration.Status.Times.Started.Time).Round(100 * time.Millisecond)
	t.Logf("%s after %s, %s: %s", s.migration.Status.Phase, took, condition.Reason, s.migration.Status.Message)
}

// A pod that grows beyond its claim while it is copied: the migration fails, the
// pod does not.
func TestAClaimThatIsTooSmallFailsTheMigrationOnly(t *testing.T) {
	t.Parallel()
	s := startWriter(t)
	await, proceed := env.breakpoints.armOne(t, s.namespace, faultWriter, "checkpoint Copy")
	s.move(t, func(m *v1alpha1.PodMigration) {
		withClaim(m)
		m.Spec.Checkpoint.Size = new(resource.MustParse("64Mi"))
	})
	await()
	data, err := devcluster.PodPath(s.pod.UID, "/data")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(data, "growth"), bytes.Repeat([]byte("grown"), 60<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	proceed()
	s.wantGivenUp(t, 2*time.Minute, "ClaimTooSmall")
}

// holdLastCopy brings the migration to where the last copy is asked for, and the agent of
// the destination hangs.
func (s *faultScene) holdLastCopy(t testing.TB, change func(*v1alpha1.PodMigration)) {
	t.Helper()
	await, proceed := env.breakpoints.armOne(t, s.namespace, faultWriter, "before "+string(decide.CheckEviction))
	s.move(t, change)
	await()
	signalAgent(t, env.nodes[1], syscall.SIGSTOP)
	t.Cleanup(func() { signalAgent(t, env.nodes[1], syscall.SIGCONT) })
	proceed()
	eventually(t, 30*time.Second, "the last copy is asked for", func(ctx context.Context) error {
		if err := env.client.Get(ctx, client.ObjectKeyFromObject(s.migration), s.migration); err != nil {
			return err
		}
		if step := s.migration.Status.Checkpoint.Step; step != v1alpha1.StepSeal {
			return fmt.Errorf("the step is %s", step)
		}
		return nil
	})
}

// The agent of the destination hangs while the original is frozen: the original is frozen
// for a minute at most, and continues.
func TestAnOriginalIsNotFrozenForLong(t *testing.T) {
	needsTime(t)
	s := startWriter(t)
	s.holdLastCopy(t, noChange)
	waitPhase(t, s.migration, 3*time.Minute, v1alpha1.Phase.IsFinished)
	signalAgent(t, env.nodes[1], syscall.SIGCONT)
	condition := meta.FindStatusCondition(s.migration.Status.Conditions, v1alpha1.ConditionRolledBack)
	if condition == nil || condition.Reason != decide.ReasonFrozenTooLong && condition.Reason != decide.ReasonCheckpointFailed {
		t.Fatalf("migration ended %s, rolled back for %+v", s.migration.Status.Phase, condition)
	}
	s.wantGivenUp(t, time.Minute, condition.Reason)
}

// A node without its agent: nothing can be carried, and the message says where
// to look.
func TestANodeWithoutAnAgentKeepsItsPod(t *testing.T) {
	needsTime(t)
	s := startWriter(t)
	agents := &appsv1.DaemonSet{}
	key := client.ObjectKey{Namespace: "ai-storage-node-agent", Name: "ai-storage-node-agent"}
	keepAgentsFrom := func(node string) {
		t.Helper()
		patch := fmt.Appendf(nil, `{"spec":{"template":{"spec":{"affinity":{"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":
			{"nodeSelectorTerms":[{"matchExpressions":[{"key":"kubernetes.io/hostname","operator":"NotIn","values":[%q]}]}]}}}}}}}`, node)
		agents.Namespace, agents.Name = key.Namespace, key.Name
		if err := env.client.Patch(t.Context(), agents, client.RawPatch("application/merge-patch+json", patch)); err != nil {
			t.Fatal(err)
		}
		eventually(t, 2*time.Minute, "the node agents are replaced", func(ctx context.Context) error {
			if err := env.client.Get(ctx, key, agents); err != nil {
				return err
			}
			status := agents.Status
			if status.ObservedGeneration != agents.Generation || status.UpdatedNumberScheduled != status.DesiredNumberScheduled ||
				status.NumberReady != status.DesiredNumberScheduled || status.NumberMisscheduled != 0 {
				return fmt.Errorf("%+v", status)
			}
			return nil
		})
	}
	keepAgentsFrom(s.pod.Spec.NodeName)
	s.move(t, noChange)
	s.wantGivenUp(t, 2*time.Minute, "NodeAgentMissing")
	keepAgentsFrom("no-such-node")
}

// The destination dies while the last copy is made, and the original is frozen: the
// original continues.
func TestADestinationThatDiesDuringTheLastCopy(t *testing.T) {
	needsTime(t)
	s := startWriter(t)
	s.holdLastCopy(t, noChange)
	killNode(t, env.nodes[1])
	waitPhase(t, s.migration, 4*time.Minute, v1alpha1.Phase.IsFinished)
	if s.migration.Status.Phase != v1alpha1.PhaseFailed {
		t.Fatalf("migration ended %s: %s", s.migration.Status.Phase, s.migration.Status.Message)
	}
	t.Logf("%s: %s", s.migration.Status.Phase, s.migration.Status.Message)
	wantNothingLost(t, s.collector, faultWriter)
	reviveNode(t, env.nodes[1])
	checkNothingLeft(t, s.namespace, s.collector, []*v1alpha1.PodMigration{s.migration})
}

// The node that has the state dies after the original has ended: the sealed copy is on
// the claim, and the pod is restored from it on a third node.
func TestADestinationThatDiesAfterTheSeal(t *testing.T) {
	needsTime(t)
	s := startWriterOf(t, func(name, collector string) corev1.PodTemplateSpec {
		template := smallWriterTemplate(name, collector)
		template.Spec.Tolerations = []corev1.Toleration{{Key: observerTaint, Operator: corev1.TolerationOpExists}}
		return template
	})
	await, proceed := env.breakpoints.armOne(t, s.namespace, faultWriter, "before "+string(decide.NominateReplacement))
	s.migration = migrate(t, s.pod, stopFirst)
	await()
	if err := env.client.Get(t.Context(), client.ObjectKeyFromObject(s.migration), s.migration); err != nil {
		t.Fatal(err)
	}
	first := s.migration.Status.Placeholder.NodeName
	if d := s.migration.Status.Checkpoint.Destination; d == nil || d.Phase != v1alpha1.DestinationStored || !d.ClaimSealed {
		t.Fatalf("the destination reports %+v", d)
	}
	killNode(t, first)
	proceed()
	waitPhase(t, s.migration, 12*time.Minute, v1alpha1.Phase.IsFinished)
	t.Logf("%s: %s", s.migration.Status.Phase, s.migration.Status.Message)
	reviveNode(t, first)
	if s.migration.Status.Phase == v1alpha1.PhaseSucceeded {
		if at := s.migration.Status.Replacement.NodeName; at == first || at == s.migration.Status.Original.NodeName {
			t.Errorf("the replacement is on %s", at)
		}
		wantNothingLost(t, s.collector, faultWriter)
		return
	}
	// A volume is detached from a dead node by force only when a person says that the node is
	// out of service: the claim has the only copy meanwhile, and recovers the pod.
	if !meta.IsStatusConditionTrue(s.migration.Status.Conditions, v1alpha1.ConditionCheckpointKept) {
		t.Fatalf("migration ended %s without the only copy: %s", s.migration.Status.Phase, s.migration.Status.Message)
	}
	code, text := kubectl(t, s.namespace, "migrate", "recover", s.migration.Name, "--wait")
	wantAnswer(t, code, 0, text, "Succeeded")
	wantNothingLost(t, s.collector, faultWriter)
}

// The agent of the destination hangs for longer than an agent may be silent, while the
// first copy is made: it has told that it is at it, and the migration waits.
func TestAFirstCopyMayTakeLong(t *testing.T) {
	needsTime(t)
	s := startWriterOf(t, writerTemplate)
	s.move(t, noChange)
	eventually(t, time.Minute, "the destination receives", func(ctx context.Context) error {
		if err := env.client.Get(ctx, client.ObjectKeyFromObject(s.migration), s.migration); err != nil {
			return err
		}
		c := s.migration.Status.Checkpoint
		if c == nil || c.Destination == nil || c.Destination.Phase != v1alpha1.DestinationReceiving {
			return fmt.Errorf("it is %+v", c)
		}
		return nil
	})
	signalAgent(t, env.nodes[1], syscall.SIGSTOP)
	time.Sleep(migration.DefaultAgentGrace + 10*time.Second)
	signalAgent(t, env.nodes[1], syscall.SIGCONT)
	wantSucceeded(t, s.migration, 3*time.Minute)
	wantNothingLost(t, s.collector, faultWriter)
}

// The source dies while it is copied: nothing of the migration is left when the node is
// back. What becomes of the pod is Kubernetes' to say.
func TestASourceThatDiesDuringTheFirstCopy(t *testing.T) {
	needsTime(t)
	s := startWriter(t)
	await, proceed := env.breakpoints.armOne(t, s.namespace, faultWriter, "checkpoint Copy")
	s.move(t, noChange)
	await()
	signalAgent(t, env.nodes[0], syscall.SIGSTOP)
	proceed()
	killNode(t, env.nodes[0])
	// Its agent is missed before Kubernetes knows that the node is dead.
	s.wantFailed(t, 4*time.Minute, decide.ReasonNodeAgentMissing)
	found, err := getPod(t.Context(), s.namespace, s.pod.Name)
	if err != nil || found.UID != s.pod.UID || found.DeletionTimestamp != nil {
		t.Errorf("the pod was touched: %v, deletion %v", err, found.DeletionTimestamp)
	}
	reviveNode(t, env.nodes[0])
	eventually(t, 2*time.Minute, "replacement and claim are removed", func(ctx context.Context) error {
		return leftovers(ctx, s.namespace, []*corev1.Pod{s.pod})
	})
}

// needsTime leaves a test to the full suite.
func needsTime(t testing.TB) {
	t.Helper()
	if !isFull() {
		t.Skip("it waits for a minute or two: see make e2e-full")
	}
}

func killNode(t testing.TB, name string) {
	t.Helper()
	if err := env.cluster.KillNode(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			reviveNode(t, name)
		}
	})
}

// reviveNode brings a node back, with its agent.
func reviveNode(t testing.TB, name string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	if err := env.cluster.StartNode(ctx, name); err != nil {
		t.Fatal(err)
	}
	for {
		node := &corev1.Node{}
		err := env.client.Get(ctx, client.ObjectKey{Name: name}, node)
		if err == nil && isNodeReady(node) {
			break
		}
		if !pause(ctx) {
			t.Fatalf("node %s is not Ready again: %v", name, err)
		}
	}
	if err := env.cluster.ReplaceNodeAgents(ctx); err != nil {
		t.Fatal(err)
	}
}

func isNodeReady(node *corev1.Node) bool {
	for _, c := range node.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

func signalAgent(t testing.TB, node string, signal syscall.Signal) {
	t.Helper()
	if err := env.cluster.SignalNodeAgent(context.Background(), node, signal); err != nil {
		t.Error(err)
	}
}

// claimDirectory is where this machine sees a claim of the shared class, which is on
// a host path.
func claimDirectory(t testing.TB, namespace, name string) string {
	t.Helper()
	claim, volume := &corev1.PersistentVolumeClaim{}, &corev1.PersistentVolume{}
	if err := env.client.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: name}, claim); err != nil {
		t.Fatal(err)
	}
	if err := env.client.Get(t.Context(), client.ObjectKey{Name: claim.Spec.VolumeName}, volume); err != nil {
		t.Fatal(err)
	}
	if volume.Spec.HostPath == nil {
		t.Fatalf("volume %s is on no host path", volume.Name)
	}
	return volume.Spec.HostPath.Path
}

// flipByte changes one bit of a file, and neither its size nor its time.
func flipByte(t testing.TB, path string) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(path)
	if err != nil || len(content) == 0 {
		t.Fatalf("reading %s: %v", path, err)
	}
	content[len(content)-2] ^= 1
	if err := os.WriteFile(path, content, info.Mode()); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
	t.Logf("one bit is flipped in %s", strings.TrimPrefix(path, filepath.Dir(filepath.Dir(path))))
}
