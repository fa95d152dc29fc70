//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/devcluster"
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
		return env.cluster.StartWithBreakpoints(b.server.URL)
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

// breakpoints hears of every step that the rebalancer takes, and stops it at one.
type breakpoints struct {
	server *httptest.Server

	mu      sync.Mutex
	seen    []string
	stopAt  string
	reached chan struct{} // closed at stopAt
	goOn    chan struct{} // closed to leave it
}

func newBreakpoints(t testing.TB) *breakpoints {
	t.Helper()
	b := &breakpoints{}
	b.server = httptest.NewServer(b)
	if err := env.cluster.StopComponent(t.Context(), devcluster.Rebalancer); err != nil {
		t.Fatal(err)
	}
	if err := env.cluster.StartWithBreakpoints(b.server.URL); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		b.arm("")
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := env.cluster.StopComponent(ctx, devcluster.Rebalancer); err != nil {
			t.Error(err)
		}
		if err := env.cluster.StartComponent(devcluster.Rebalancer); err != nil {
			t.Error(err)
		}
		b.server.Close()
	})
	return b
}

func (b *breakpoints) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	step := r.URL.Query().Get("step")
	b.mu.Lock()
	if !slices.Contains(b.seen, step) {
		b.seen = append(b.seen, step)
	}
	var wait chan struct{}
	if b.stopAt != "" && step == b.stopAt {
		// Once: the successor of a killed rebalancer must not stop there again.
		b.stopAt, wait = "", b.goOn
		close(b.reached)
	}
	b.mu.Unlock()
	if wait != nil {
		select {
		case <-wait:
		case <-r.Context().Done():
		}
	}
}

// arm makes the rebalancer stop at a step, the next time that it comes there.
func (b *breakpoints) arm(step string) (reached <-chan struct{}, goOn func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.seen, b.stopAt = nil, step
	b.reached, b.goOn = make(chan struct{}), make(chan struct{})
	return b.reached, sync.OnceFunc(func() { close(b.goOn) })
}

// boundaries are the steps seen that begin a phase or ask something of the agents.
func (b *breakpoints) boundaries() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(b.seen), func(step string) bool {
		return !strings.HasPrefix(step, "phase ") && !strings.HasPrefix(step, "checkpoint ")
	})
}

// crashScene is one way from original to replacement.
type crashScene struct {
	name   string
	kind   workloadKind
	change func(*v1alpha1.PodMigration)
}

func crashScenes() []crashScene {
	var scenes []crashScene
	exclusive := func(m *v1alpha1.PodMigration) { m.Spec.Checkpoint.AccessMode = corev1.ReadWriteOnce }
	for _, kind := range workloadKinds {
		if kind.name != "StatefulSet" {
			scenes = append(scenes, crashScene{kind.name + ", start first", kind, sharedCheckpoint})
		}
		scenes = append(scenes, crashScene{kind.name + ", stop first", kind, exclusive})
	}
	return scenes
}

// Every process is killed with SIGKILL at every phase boundary of every way to
// hand over. The boundaries are those that the rebalancer itself announces.
func TestCrashMatrix(t *testing.T) {
	scenes, killed := crashScenes(), victims
	if !isFull() {
		scenes, killed = scenes[:1], victims[2:3]
	}
	b := newBreakpoints(t)
	var table bytes.Buffer
	rows := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(rows, "way\tboundary\tkilled\tend\treason")
	for i, scene := range scenes {
		boundaries := crashRun(t, b, scene, fmt.Sprintf("scene-%d", i), "", victim{}).boundaries
		if !isFull() {
			// Where an agent has work, and can leave a pod frozen.
			boundaries = slices.DeleteFunc(boundaries, func(step string) bool { return !strings.HasPrefix(step, "checkpoint ") })
		}
		for j, boundary := range boundaries {
			for k, v := range killed {
				name := fmt.Sprintf("scene-%d-%d-%d", i, j, k)
				t.Run(strings.Join([]string{scene.name, boundary, v.name}, "/"), func(t *testing.T) {
					end := crashRun(t, b, scene, name, boundary, v)
					fmt.Fprintf(rows, "%s\t%s\t%s\t%s\t%s\n", scene.name, boundary, v.name, end.phase, end.message)
				})
			}
		}
	}
	if err := rows.Flush(); err != nil {
		t.Fatal(err)
	}
	t.Logf("crash matrix:\n%s", table.String())
}

type crashEnd struct {
	boundaries []string
	phase      v1alpha1.Phase
	message    string
}

// crashRun moves one pod, kills the victim at the boundary, and checks what is
// left. No boundary is a run without a crash.
func crashRun(t testing.TB, b *breakpoints, scene crashScene, name, boundary string, v victim) crashEnd {
	t.Helper()
	namespace := newNamespace(t)
	collector := startCollector(t, namespace)
	template := writerTemplate(name, collector)
	template.Spec.InitContainers[0].Args = []string{"fill", "--dir=/data", "--bytes=8Mi", "--files=20"}
	create(t, scene.kind.make(namespace, name, template))
	pod := awaitOnly(t, namespace, name, 2*time.Minute)
	awaitProgress(t, collector, name)

	reached, goOn := b.arm(boundary)
	defer goOn()
	migration := migrate(t, pod, func(m *v1alpha1.PodMigration) {
		m.Name, m.Spec.SourceNode, m.Spec.TargetNode = name, pod.Spec.NodeName, otherNode(pod)
		scene.change(m)
	})
	if boundary != "" {
		select {
		case <-reached:
		case <-time.After(3 * time.Minute):
			t.Fatalf("the migration never came to %q; seen: %v", boundary, b.boundaries())
		}
		if err := v.kill(t.Context(), b, migration); err != nil {
			t.Fatal(err)
		}
		goOn()
	}
	waitPhase(t, migration, 6*time.Minute, v1alpha1.Phase.IsFinished)
	if migration.Status.Message == "" {
		t.Errorf("the migration ended %s without a reason", migration.Status.Phase)
	}
	checkNothingLeft(t, namespace, name, collector, migration)
	if err := env.cluster.ReplaceNodeAgents(t.Context()); err != nil {
		t.Fatal(err)
	}
	return crashEnd{b.boundaries(), migration.Status.Phase, migration.Status.Message}
}

// checkNothingLeft wants one working copy that lost nothing, and none of what
// the migration made for itself.
func checkNothingLeft(t testing.TB, namespace, name, collector string, migration *v1alpha1.PodMigration) {
	t.Helper()
	survivor := awaitOnly(t, namespace, name, 2*time.Minute)
	awaitProgress(t, collector, name)
	all, err := ledgers(collector, false)
	if err != nil {
		t.Fatal(err)
	}
	if l := all[name]; l.Lost+l.Duplicated+l.Skipped != 0 {
		t.Errorf("records were lost or repeated: %+v", l)
	}
	eventually(t, time.Minute, "carriers, placeholders and claims are removed", func(ctx context.Context) error {
		return leftovers(ctx, namespace, survivor)
	})
	eventually(t, 30*time.Second, "no pod is frozen", func(context.Context) error { return frozenCgroups() })
	moved := survivor.Spec.NodeName != migration.Status.Original.NodeName
	if moved != (migration.Status.Phase == v1alpha1.PhaseSucceeded) {
		t.Errorf("the migration ended %s, and the pod is on node %s", migration.Status.Phase, survivor.Spec.NodeName)
	}
}

func leftovers(ctx context.Context, namespace string, survivor *corev1.Pod) error {
	pods := &corev1.PodList{}
	if err := env.client.List(ctx, pods, client.InNamespace(namespace)); err != nil {
		return err
	}
	for _, pod := range pods.Items {
		if pod.UID != survivor.UID && pod.Name != "collector" {
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
		if !slices.ContainsFunc(survivor.Spec.Volumes, func(v corev1.Volume) bool {
			return v.PersistentVolumeClaim != nil && v.PersistentVolumeClaim.ClaimName == claim.Name
		}) {
			return fmt.Errorf("claim %s is left", claim.Name)
		}
	}
	return nil
}

// frozenCgroups looks for frozen pods of any node; all run on this machine.
func frozenCgroups() error {
	return filepath.WalkDir("/sys/fs/cgroup", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return nil // it went while we looked
		}
		state, frozen := "", ""
		switch entry.Name() {
		case "freezer.state":
			state, frozen = path, "FROZEN"
		case "cgroup.freeze":
			state, frozen = path, "1"
		default:
			return nil
		}
		if content, err := os.ReadFile(state); err == nil && strings.TrimSpace(string(content)) == frozen {
			return fmt.Errorf("%s says %s", path, frozen)
		}
		return nil
	})
}
