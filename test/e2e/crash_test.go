//go:build e2e

package e2e

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"text/tabwriter"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/test/devcluster"
)

// A victim is a process that is killed at a moment of a migration, and started
// again.
type victim struct {
	name string
	kill func(ctx context.Context, m *v1alpha1.PodMigration) error
}

var victims = []victim{
	{"rebalancer", func(context.Context, *v1alpha1.PodMigration) error {
		if err := env.cluster.KillComponent(devcluster.Rebalancer); err != nil {
			return err
		}
		return startRebalancer()
	}},
	{"scheduler", func(context.Context, *v1alpha1.PodMigration) error {
		if err := env.cluster.KillComponent(devcluster.Scheduler); err != nil {
			return err
		}
		return env.cluster.StartComponent(devcluster.Scheduler)
	}},
	{"source agent", func(ctx context.Context, m *v1alpha1.PodMigration) error {
		return env.cluster.KillNodeAgent(ctx, m.Spec.SourceNode)
	}},
	{"destination agent", func(ctx context.Context, m *v1alpha1.PodMigration) error {
		return env.cluster.KillNodeAgent(ctx, m.Spec.TargetNode)
	}},
	{"API server", func(ctx context.Context, _ *v1alpha1.PodMigration) error {
		if err := env.cluster.KillAPIServer(); err != nil {
			return err
		}
		return env.cluster.StartAPIServer(ctx)
	}},
}

// crashScene is one way from original to replacement.
type crashScene struct {
	name     string
	kind     workloadKind
	template func(name, collector string) corev1.PodTemplateSpec
	change   func(*v1alpha1.PodMigration)
}

// id names the workload of a scene.
func (s crashScene) id() string {
	return strings.ToLower(strings.NewReplacer(", ", "-", " ", "-").Replace(s.name))
}

func crashScenes() []crashScene {
	var scenes []crashScene
	for i, kind := range workloadKinds {
		scenes = append(scenes, crashScene{kind.name + ", stop first", kind, smallWriterTemplate, stopFirst})
		if kind.name == "StatefulSet" {
			continue // it always stops first
		}
		scenes = append(scenes, crashScene{kind.name + ", start first", kind, smallWriterTemplate, noChange})
		if i == 0 {
			scenes = append(scenes,
				crashScene{kind.name + ", start first, with a claim", kind, smallWriterTemplate, withClaim},
				crashScene{kind.name + ", stop first, without a claim", kind, smallWriterTemplate, func(m *v1alpha1.PodMigration) {
					m.Spec.ForceRestart, m.Spec.Checkpoint.Claim = true, v1alpha1.ClaimNever
				}})
		}
		if i == 0 || isFull() {
			scenes = append(scenes, crashScene{kind.name + ", with its memory", kind, processTemplate, withProcesses})
		}
	}
	return scenes
}

// Every process is killed with SIGKILL at every phase boundary of every way to
// hand over. The boundaries are those that the rebalancer itself announces. All
// ways are at the boundary when the process is killed. Without a crash, and when the
// rebalancer dies behind the commit, all ways that are run succeed: a product that
// rolls back whatever it is asked would pass the rest.
func TestCrashMatrix(t *testing.T) {
	scenes := crashScenes()
	table := &crashTable{}
	defer func() { t.Logf("crash matrix:\n%s", table) }()
	boundaries := map[string][]string{}
	if isFull() {
		t.Run("no crash", func(t *testing.T) {
			table.ends = crashTogether(t, scenes, "", victim{})
			for _, end := range table.ends {
				boundaries[end.scene.name] = end.boundaries
				wantSuccess(t, end)
			}
		})
	}
	for i, crash := range crashes(boundaries) {
		t.Run(crash.boundary+"/"+crash.victim.name, func(t *testing.T) {
			var there []crashScene
			for j, scene := range scenes {
				// The short run takes each way once.
				if isFull() && slices.Contains(boundaries[scene.name], crash.boundary) || !isFull() && j%2 == i {
					there = append(there, scene)
				}
			}
			if len(there) == 0 {
				t.Fatalf("no way comes to %q", crash.boundary)
			}
			ends := crashTogether(t, there, crash.boundary, crash.victim)
			t.Logf("\n%s", &crashTable{ends})
			table.ends = append(table.ends, ends...)
			if crash.boundary == behindCommit.boundary && crash.victim.name == behindCommit.victim.name {
				for _, end := range ends {
					wantSuccess(t, end)
				}
			}
		})
	}
}

// wantSuccess fails for a migration that was rolled back where nothing stands in its way.
func wantSuccess(t *testing.T, end crashEnd) {
	t.Helper()
	if end.phase != v1alpha1.PhaseSucceeded {
		t.Errorf("%s, %s killed at %q: %s: %s", end.scene.name, cmp.Or(end.victim, "nothing"), end.boundary, end.phase, end.message)
	}
}

type crash struct {
	boundary string
	victim   victim
}

// behindCommit kills the rebalancer when every way is committed: all have to succeed.
var behindCommit = crash{"checkpoint Release", victims[0]}

// crashes are all of boundaries and victims, or two that are likely to hurt, each on
// half of the ways: the agent dies that has frozen pods, and the rebalancer behind the
// point of no return.
func crashes(boundaries map[string][]string) (all []crash) {
	if !isFull() {
		return []crash{{"checkpoint Seal", victims[2]}, behindCommit}
	}
	var names []string
	for _, ofScene := range boundaries {
		names = append(names, ofScene...)
	}
	slices.Sort(names)
	for _, boundary := range slices.Compact(names) {
		for _, v := range victims {
			all = append(all, crash{boundary, v})
		}
	}
	return all
}

type crashEnd struct {
	scene      crashScene
	boundary   string
	victim     string
	boundaries []string
	phase      v1alpha1.Phase
	message    string
}

// crashTable is the matrix, as it grows.
type crashTable struct{ ends []crashEnd }

func (c *crashTable) String() string {
	var text bytes.Buffer
	rows := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(rows, "way\tboundary\tkilled\tend\treason")
	for _, e := range c.ends {
		fmt.Fprintf(rows, "%s\t%s\t%s\t%s\t%s\n", e.scene.name, cmp.Or(e.boundary, "-"), cmp.Or(e.victim, "-"), e.phase, e.message)
	}
	_ = rows.Flush() // to memory
	return text.String()
}

// crashTogether moves one pod for each scene, kills the victim when all are at
// the boundary, and checks what is left. No boundary is a run without a crash.
func crashTogether(t testing.TB, scenes []crashScene, boundary string, v victim) (ends []crashEnd) {
	t.Helper()
	namespace := newNamespace(t)
	collector := startCollector(t, namespace)
	pods := startScenes(t, namespace, collector, scenes)
	stops := map[string]string{}
	for _, scene := range scenes {
		stops[namespace+"/"+scene.id()] = boundary
	}
	reached, proceed := env.breakpoints.arm(t, stops)
	var migrations []*v1alpha1.PodMigration
	for i, scene := range scenes {
		migrations = append(migrations, migrate(t, pods[i], func(m *v1alpha1.PodMigration) {
			m.Name, m.Spec.SourceNode, m.Spec.TargetNode = scene.id(), env.nodes[0], env.nodes[1]
			scene.change(m)
		}))
	}
	if boundary != "" {
		select {
		case <-reached:
		case <-time.After(4 * time.Minute):
			t.Fatalf("not all came to %q: missing are %v", boundary, env.breakpoints.missing(namespace))
		}
		if err := v.kill(t.Context(), migrations[0]); err != nil {
			t.Fatal(err)
		}
		proceed()
	}
	for i, m := range migrations {
		waitPhase(t, m, 6*time.Minute, v1alpha1.Phase.IsFinished)
		if m.Status.Message == "" {
			t.Errorf("migration %s ended %s without a reason", m.Name, m.Status.Phase)
		}
		ends = append(ends, crashEnd{scenes[i], boundary, v.name, env.breakpoints.boundaries(namespace + "/" + m.Name), m.Status.Phase, m.Status.Message})
	}
	checkNothingLeft(t, namespace, collector, migrations)
	if strings.HasSuffix(v.name, "agent") {
		if err := env.cluster.ReplaceNodeAgents(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return ends
}

// startScenes runs a writer for each scene on the first node.
func startScenes(t testing.TB, namespace, collector string, scenes []crashScene) (pods []*corev1.Pod) {
	t.Helper()
	label := openLabel(namespace)
	openTo(t, label, env.nodes[0])
	for _, scene := range scenes {
		template := scene.template(scene.id(), collector)
		template.Spec.NodeSelector = map[string]string{label: ""}
		args := template.Spec.Containers[0].Args
		args[len(args)-1] = "--every=20ms"
		create(t, scene.kind.make(namespace, scene.id(), template))
	}
	for _, scene := range scenes {
		pods = append(pods, awaitOnly(t, namespace, scene.id(), 2*time.Minute))
		awaitProgress(t, collector, scene.id())
	}
	openTo(t, label, env.nodes[1])
	return pods
}

// checkNothingLeft wants one working copy of each pod that lost nothing, and none
// of what the migrations, named like their workloads, made for themselves.
func checkNothingLeft(t testing.TB, namespace, collector string, migrations []*v1alpha1.PodMigration) {
	t.Helper()
	var survivors []*corev1.Pod
	for _, m := range migrations {
		survivor := awaitOnly(t, namespace, m.Name, 2*time.Minute)
		awaitProgress(t, collector, m.Name)
		survivors = append(survivors, survivor)
		moved := survivor.Spec.NodeName != m.Status.Original.NodeName
		if moved != (m.Status.Phase == v1alpha1.PhaseSucceeded) {
			t.Errorf("migration %s ended %s, and the pod is on node %s", m.Name, m.Status.Phase, survivor.Spec.NodeName)
		}
	}
	all, err := ledgers(collector, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range migrations {
		if l := all[m.Name]; !isWhole(m, l) {
			t.Errorf("%s: records were lost or repeated, or it started again: %+v", m.Name, l)
		}
	}
	eventually(t, time.Minute, "placeholders and claims are removed", func(ctx context.Context) error {
		return leftovers(ctx, namespace, survivors)
	})
	eventually(t, 30*time.Second, "no pod is frozen", func(context.Context) error { return frozenCgroups() })
}

// isWhole reports whether a writer lost, skipped and repeated nothing. One that moves
// with its memory never starts again.
func isWhole(m *v1alpha1.PodMigration, l ledger) bool {
	if m.Spec.Checkpoint.Mode == v1alpha1.CheckpointProcess {
		return l.beganOnce()
	}
	return l.Lost+l.Duplicated+l.Skipped == 0
}

func leftovers(ctx context.Context, namespace string, survivors []*corev1.Pod) error {
	pods := &corev1.PodList{}
	if err := env.client.List(ctx, pods, client.InNamespace(namespace)); err != nil {
		return err
	}
	for _, pod := range pods.Items {
		isSurvivor := slices.ContainsFunc(survivors, func(s *corev1.Pod) bool { return s.UID == pod.UID })
		if !isSurvivor && pod.Name != "collector" {
			return fmt.Errorf("pod %s (%s) is left", pod.Name, pod.Labels[v1alpha1.RoleLabel])
		}
		if len(pod.Spec.SchedulingGates) > 0 || pod.Annotations[v1alpha1.ReleasedAnnotation] != "" {
			return fmt.Errorf("pod %s has gates %v and annotations %v", pod.Name, pod.Spec.SchedulingGates, pod.Annotations)
		}
	}
	claims := &corev1.PersistentVolumeClaimList{}
	if err := env.client.List(ctx, claims, client.InNamespace(namespace)); err != nil {
		return err
	}
	for _, claim := range claims.Items {
		if !slices.ContainsFunc(survivors, func(s *corev1.Pod) bool { return mounts(s, claim.Name) }) {
			return fmt.Errorf("claim %s is left", claim.Name)
		}
	}
	return nil
}

func mounts(pod *corev1.Pod, claim string) bool {
	return slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool {
		return v.PersistentVolumeClaim != nil && v.PersistentVolumeClaim.ClaimName == claim
	})
}

// frozenCgroups looks for frozen pods of any node. It is an error when there is no
// cgroup to look at.
func frozenCgroups() error {
	nodes, err := env.cluster.NodeCgroups()
	if err != nil {
		return err
	}
	for _, node := range nodes {
		looked := 0
		// One hierarchy for each controller in version 1, one for all in version 2.
		for _, root := range []string{"/sys/fs/cgroup/freezer", "/sys/fs/cgroup"} {
			n, err := thawedBelow(filepath.Join(root, node))
			if err != nil {
				return err
			}
			looked += n
		}
		if looked == 0 {
			return fmt.Errorf("node cgroup %s has no pod that could be frozen", node)
		}
	}
	return nil
}

// thawedBelow counts the cgroups below a directory, none of which is frozen. Those of
// pods come and go meanwhile.
func thawedBelow(directory string) (count int, err error) {
	err = filepath.WalkDir(directory, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		frozen := map[string]string{"freezer.state": "FROZEN", "cgroup.freeze": "1"}[entry.Name()]
		if frozen == "" {
			return nil
		}
		content, err := os.ReadFile(path)
		// A cgroup that is removed while its file is open has no such device.
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENODEV) {
			return nil
		}
		if err == nil && strings.TrimSpace(string(content)) == frozen {
			err = fmt.Errorf("%s says %s", path, frozen)
		}
		count++
		return err
	})
	return count, err
}

// The check that no pod is frozen can fail: it sees one that is.
func TestAFrozenPodIsSeen(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t)
	pod := startOn(t, env.nodes[0], excluded(newPod(namespace, "idle", container("idle", 10))))
	state, frozen, thawed := freezerOf(t, pod)
	write := func(word string) {
		t.Helper()
		if err := os.WriteFile(state, []byte(word), 0o644); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(func() { write(thawed) })
	write(frozen)
	eventually(t, 10*time.Second, "the frozen pod is seen", func(context.Context) error {
		if err := frozenCgroups(); err == nil || !strings.Contains(err.Error(), string(pod.UID)) {
			return fmt.Errorf("the check says %v", err)
		}
		return nil
	})
	write(thawed)
	eventually(t, 10*time.Second, "the pod is thawed", func(context.Context) error {
		_, err := thawedBelow(filepath.Dir(state))
		return err
	})
}

// freezerOf is the file that freezes a pod, and what is written to it.
func freezerOf(t testing.TB, pod *corev1.Pod) (file, frozen, thawed string) {
	t.Helper()
	name, frozen, thawed, hierarchy := "freezer.state", "FROZEN", "THAWED", "/sys/fs/cgroup/freezer"
	if _, err := os.Stat(hierarchy); err != nil {
		name, frozen, thawed, hierarchy = "cgroup.freeze", "1", "0", "/sys/fs/cgroup"
	}
	found, err := filepath.Glob(filepath.Join(hierarchy, "ai-storage-*", "kubepods", "*", "pod"+string(pod.UID), name))
	if err != nil || len(found) != 1 {
		t.Fatalf("freezers of pod %s: %v, error %v", pod.Name, found, err)
	}
	return found[0], frozen, thawed
}
