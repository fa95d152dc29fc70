//go:build e2e

package e2e

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
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
	kill func(ctx context.Context, b *breakpoints, m *v1alpha1.PodMigration) error
}

var victims = []victim{
	{"rebalancer", func(_ context.Context, b *breakpoints, _ *v1alpha1.PodMigration) error {
		if err := env.cluster.KillComponent(devcluster.Rebalancer); err != nil {
			return err
		}
		return b.startRebalancer()
	}},
	{"scheduler", func(context.Context, *breakpoints, *v1alpha1.PodMigration) error {
		if err := env.cluster.KillComponent(devcluster.Scheduler); err != nil {
			return err
		}
		return env.cluster.StartComponent(devcluster.Scheduler)
	}},
	{"source agent", func(ctx context.Context, _ *breakpoints, m *v1alpha1.PodMigration) error {
		return env.cluster.KillNodeAgent(ctx, m.Spec.SourceNode)
	}},
	{"destination agent", func(ctx context.Context, _ *breakpoints, m *v1alpha1.PodMigration) error {
		return env.cluster.KillNodeAgent(ctx, m.Spec.TargetNode)
	}},
	{"API server", func(ctx context.Context, _ *breakpoints, _ *v1alpha1.PodMigration) error {
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
	exclusive := func(m *v1alpha1.PodMigration) { m.Spec.Checkpoint.AccessMode = corev1.ReadWriteOnce }
	for i, kind := range workloadKinds {
		scenes = append(scenes, crashScene{kind.name + ", stop first", kind, smallWriterTemplate, exclusive})
		if kind.name == "StatefulSet" {
			continue // it always stops first
		}
		scenes = append(scenes, crashScene{kind.name + ", start first", kind, smallWriterTemplate, sharedCheckpoint})
		if i == 0 || isFull() {
			scenes = append(scenes, crashScene{kind.name + ", with its memory", kind, processTemplate, withProcesses})
		}
	}
	return scenes
}

// Every process is killed with SIGKILL at every phase boundary of every way to
// hand over. The boundaries are those that the rebalancer itself announces. All
// ways stand at the boundary when the process is killed.
func TestCrashMatrix(t *testing.T) {
	scenes := crashScenes()
	b := newBreakpoints(t)
	table := &crashTable{}
	defer func() { t.Logf("crash matrix:\n%s", table) }()
	boundaries := map[string][]string{}
	if isFull() { // the two of the short suite are boundaries of every way
		t.Run("no crash", func(t *testing.T) {
			table.ends = crashTogether(t, b, scenes, "", victim{})
			for _, end := range table.ends {
				boundaries[end.scene.name] = end.boundaries
			}
		})
	}
	for _, crash := range crashes(boundaries) {
		t.Run(crash.boundary+"/"+crash.victim.name, func(t *testing.T) {
			there := slices.DeleteFunc(slices.Clone(scenes), func(s crashScene) bool { return isFull() && !slices.Contains(boundaries[s.name], crash.boundary) })
			ends := crashTogether(t, b, there, crash.boundary, crash.victim)
			t.Logf("\n%s", &crashTable{ends})
			table.ends = append(table.ends, ends...)
		})
	}
}

type crash struct {
	boundary string
	victim   victim
}

// crashes are all of boundaries and victims, or two that are likely to hurt: the
// agent dies that has frozen pods, and the rebalancer behind the point of no return.
func crashes(boundaries map[string][]string) (all []crash) {
	if !isFull() {
		return []crash{{"checkpoint Seal", victims[2]}, {"checkpoint Release", victims[0]}}
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

// crashTogether moves one pod for each scene, kills the victim when all stand at
// the boundary, and checks what is left. No boundary is a run without a crash.
func crashTogether(t testing.TB, b *breakpoints, scenes []crashScene, boundary string, v victim) (ends []crashEnd) {
	t.Helper()
	namespace := newNamespace(t)
	collector := startCollector(t, namespace)
	pods := startScenes(t, namespace, collector, scenes)
	stops := map[string]string{}
	for _, scene := range scenes {
		stops[namespace+"/"+scene.id()] = boundary
	}
	reached, goOn := b.arm(stops)
	defer goOn()
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
			t.Fatalf("not all came to %q: missing are %v", boundary, b.missing())
		}
		if err := v.kill(t.Context(), b, migrations[0]); err != nil {
			t.Fatal(err)
		}
		goOn()
	}
	for i, m := range migrations {
		waitPhase(t, m, 6*time.Minute, v1alpha1.Phase.IsFinished)
		if m.Status.Message == "" {
			t.Errorf("migration %s ended %s without a reason", m.Name, m.Status.Phase)
		}
		ends = append(ends, crashEnd{scenes[i], boundary, v.name, b.boundaries(namespace + "/" + m.Name), m.Status.Phase, m.Status.Message})
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
	setCordon(t, env.nodes[1], true)
	defer setCordon(t, env.nodes[1], false)
	for _, scene := range scenes {
		template := scene.template(scene.id(), collector)
		args := template.Spec.Containers[0].Args
		args[len(args)-1] = "--every=20ms"
		create(t, scene.kind.make(namespace, scene.id(), template))
	}
	for _, scene := range scenes {
		pods = append(pods, awaitOnly(t, namespace, scene.id(), 2*time.Minute))
		awaitProgress(t, collector, scene.id())
	}
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
			t.Errorf("%s: records were lost or repeated, or it began anew: %+v", m.Name, l)
		}
	}
	eventually(t, time.Minute, "carriers, placeholders and claims are removed", func(ctx context.Context) error {
		return leftovers(ctx, namespace, survivors)
	})
	eventually(t, 30*time.Second, "no pod is frozen", func(context.Context) error { return frozenCgroups() })
}

// isWhole reports whether a writer lost, skipped and repeated nothing. One that moves
// with its memory never begins anew.
func isWhole(m *v1alpha1.PodMigration, l ledger) bool {
	if m.Spec.Checkpoint.Mode == v1alpha1.CheckpointProcess {
		return l.beganOnce(1)
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

// frozenCgroups looks for frozen pods of any node.
func frozenCgroups() error {
	nodes, err := env.cluster.NodeCgroups()
	if err != nil {
		return err
	}
	for _, node := range nodes {
		// One hierarchy for each controller in version 1, one for all in version 2.
		for _, root := range []string{"/sys/fs/cgroup/freezer", "/sys/fs/cgroup"} {
			if err := filepath.WalkDir(filepath.Join(root, node), isThawed); err != nil {
				return err
			}
		}
	}
	return nil
}

func isThawed(path string, entry fs.DirEntry, err error) error {
	if err != nil {
		return nil // it is not there, or went while we looked
	}
	frozen := map[string]string{"freezer.state": "FROZEN", "cgroup.freeze": "1"}[entry.Name()]
	if frozen == "" {
		return nil
	}
	if content, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(content)) == frozen {
		return fmt.Errorf("%s says %s", path, frozen)
	}
	return nil
}
