package agent

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/internal/skip"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/node/transfer"
)

// victim is a directory of the node that no pod may reach.
func victim(t *testing.T) string {
	t.Helper()
	directory := t.TempDir()
	write(t, filepath.Join(directory, "admin.conf"), "of the node")
	return directory
}

func wantUntouched(t *testing.T, directory string) {
	t.Helper()
	entries, err := os.ReadDir(directory)
	if err != nil || len(entries) != 1 {
		t.Errorf("the directory of the node has %v, error %v", entries, err)
	}
	if content, err := os.ReadFile(filepath.Join(directory, "admin.conf")); err != nil || string(content) != "of the node" {
		t.Errorf("it holds %q, error %v", content, err)
	}
}

// plant puts a symbolic link in the place of a directory.
func plant(t *testing.T, at, target string) {
	t.Helper()
	if err := os.RemoveAll(at); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, at); err != nil {
		t.Fatal(err)
	}
}

func TestAttackGateIsALink(t *testing.T) {
	for name, attack := range map[string]func(b *bench, gate, victim string){
		"its directory": func(b *bench, gate, victim string) { plant(b.T, filepath.Dir(gate), victim) },
		"its file":      func(b *bench, gate, victim string) { plant(b.T, gate, filepath.Join(victim, "nologin")) },
		"its file, to one that is there": func(b *bench, gate, victim string) {
			plant(b.T, gate, filepath.Join(victim, "admin.conf"))
		},
		"its file is a FIFO": func(b *bench, gate, _ string) {
			if err := unix.Mkfifo(gate, 0o600); err != nil {
				b.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			v := victim(t)
			attack(b, filepath.Join(b.volume("b", fixture.ReplacementUID, v1alpha1.GateVolumeName), v1alpha1.GateOpenFile), v)
			done := make(chan error, 1)
			go func() { done <- b.far.openGate(fixture.ReplacementUID) }()
			select {
			case err := <-done:
				if err == nil {
					t.Error("the gate counts as open")
				}
			case <-time.After(10 * time.Second):
				t.Error("it hangs")
			}
			wantUntouched(t, v)
		})
	}
}

// Another pod of the node is beneath the same directory: its volumes are not reached by a
// link either.
func TestAttackLinkToAnotherPod(t *testing.T) {
	b := newBench(t)
	other := filepath.Join(b.kubelets["b"], "pods", otherUID, "volumes")
	b.mustMake(filepath.Join(other, v1alpha1.GateVolumeName))
	write(t, filepath.Join(other, "work/admin.conf"), "of another pod")
	plant(t, filepath.Dir(b.volume("b", fixture.ReplacementUID, "work")), "../../"+otherUID+"/volumes")
	if err := b.far.openGate(fixture.ReplacementUID); err == nil {
		t.Error("the gate of another pod was opened")
	}
	b.settle()
	m := b.ask(step(v1alpha1.StepCopy))
	b.wantDestination(m, v1alpha1.DestinationFailed)
	if entries, err := os.ReadDir(filepath.Join(other, "work")); err != nil || len(entries) != 1 {
		t.Errorf("the volume of another pod has %v, error %v", entries, err)
	}
}

// Whatever of the path of a volume is a link, on either side: nothing is read or written
// behind it.
func TestAttackVolumesAreLinks(t *testing.T) {
	for name, attack := range map[string]func(b *bench, victim string){
		"the original's": func(b *bench, victim string) { plant(b.T, b.volume("a", fixture.OriginalUID, "work"), victim) },
		"all of the original's": func(b *bench, victim string) {
			plant(b.T, filepath.Dir(b.volume("a", fixture.OriginalUID, "work")), filepath.Dir(victim))
		},
		"the replacement's": func(b *bench, victim string) { plant(b.T, b.volume("b", fixture.ReplacementUID, "work"), victim) },
		"the pod": func(b *bench, victim string) {
			plant(b.T, filepath.Join(b.kubelets["b"], "pods", fixture.ReplacementUID), victim)
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			v := victim(t)
			attack(b, v)
			b.settle()
			m := b.ask(step(v1alpha1.StepCopy))
			c := m.Status.Checkpoint
			isRefused := c.Source != nil && c.Source.Phase == v1alpha1.SourceFailed || c.Destination != nil && c.Destination.Phase == v1alpha1.DestinationFailed
			if !isRefused {
				t.Errorf("the source reports %+v, the destination %+v", c.Source, c.Destination)
			}
			wantUntouched(t, v)
			if content, err := os.ReadFile(filepath.Join(b.volume("b", fixture.ReplacementUID, "work"), "admin.conf")); err == nil && strings.HasPrefix(name, "the original") {
				t.Errorf("the replacement has %q of the node", content)
			}
		})
	}
}

func TestAttackClaimIsALink(t *testing.T) {
	for name, attack := range map[string]func(b *bench, copies, victim string){
		"its mount":     func(b *bench, copies, victim string) { plant(b.T, copies, victim) },
		"the container": func(b *bench, copies, victim string) { plant(b.T, filepath.Dir(copies), filepath.Dir(victim)) },
		"the copy": func(b *bench, copies, victim string) {
			plant(b.T, filepath.Join(copies, "11111111-1111-1111-1111-111111111111"), victim)
		},
		"what is in the copy": func(b *bench, copies, victim string) {
			plant(b.T, filepath.Join(copies, "11111111-1111-1111-1111-111111111111", "volumes"), victim)
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newStoppingBench(t, true)
			v := victim(t)
			attack(b, b.copies("b", fixture.PlaceholderUID, placeholderContainer), v)
			b.settle()
			m := b.ask(step(v1alpha1.StepCopy))
			if d := m.Status.Checkpoint.Destination; name != "what is in the copy" && d != nil && d.Phase != v1alpha1.DestinationFailed {
				t.Errorf("the destination reports %+v", d)
			}
			wantUntouched(t, v)
			b.ask(step(v1alpha1.StepAbort))
			wantUntouched(t, v)
		})
	}
}

// What has to be removed is removed where it lies, not where a link leads.
func TestAttackRemovalFollowsNoLink(t *testing.T) {
	root, v := t.TempDir(), victim(t)
	write(t, filepath.Join(root, "one/two/file"), "x")
	plant(t, filepath.Join(root, "one/link"), v)
	if err := removeBeneath(root, "one"); err != nil {
		t.Fatal(err)
	}
	plant(t, filepath.Join(root, "link"), v)
	if err := removeBeneath(root, "link/admin.conf"); err == nil {
		t.Error("it was removed behind a link")
	}
	if err := removeBeneath(root, "../"+filepath.Base(v)); err == nil {
		t.Error("it was removed outside")
	}
	wantUntouched(t, v)
	if _, err := os.Lstat(filepath.Join(root, "one")); err == nil {
		t.Error("it was not removed")
	}
}

// A directory for the sealed copy that another user has made is theirs to read.
func TestAttackDirectoryOfAnotherUser(t *testing.T) {
	skip.WithoutRoot(t, "it makes a directory of another user")
	b := newStoppingBench(t, true)
	copied := filepath.Join(b.copies("b", fixture.PlaceholderUID, placeholderContainer), string(b.get().UID))
	b.mustMake(copied)
	if err := os.Chown(copied, 1000, 1000); err != nil {
		t.Fatal(err)
	}
	b.settle()
	m := b.ask(step(v1alpha1.StepCopy))
	b.wantDestination(m, v1alpha1.DestinationFailed)
	if d := m.Status.Checkpoint.Destination; !strings.Contains(d.Message, "user 1000") {
		t.Errorf("the destination reports %q", d.Message)
	}
}

// Whoever can write a status is not believed: nothing is read, written or frozen for it.
func TestAttackForgedStatus(t *testing.T) {
	for name, forge := range map[string]func(*v1alpha1.PodMigrationStatus){
		"a path as UID of the original":      func(s *v1alpha1.PodMigrationStatus) { s.Original.UID = "../../../../proc/1/root/etc" },
		"no UID of the original":             func(s *v1alpha1.PodMigrationStatus) { s.Original.UID = "" },
		"a path as UID of the replacement":   func(s *v1alpha1.PodMigrationStatus) { s.Replacement.UID = "../.." },
		"a path as volume":                   func(s *v1alpha1.PodMigrationStatus) { s.Checkpoint.Volumes = []string{"../../kubernetes"} },
		"a volume that the pod has not":      func(s *v1alpha1.PodMigrationStatus) { s.Checkpoint.Volumes = []string{"other"} },
		"a volume that is no emptyDir":       func(s *v1alpha1.PodMigrationStatus) { s.Checkpoint.Volumes = []string{"config"} },
		"a path as container":                func(s *v1alpha1.PodMigrationStatus) { s.Checkpoint.Processes = []string{"../x"} },
		"a pod of another node":              func(s *v1alpha1.PodMigrationStatus) { s.Original.Name, s.Original.UID = "elsewhere", otherUID },
		"a replacement of another node":      func(s *v1alpha1.PodMigrationStatus) { s.Replacement.Name, s.Replacement.UID = "elsewhere", otherUID },
		"a replacement without a gate":       func(s *v1alpha1.PodMigrationStatus) { s.Replacement.Name, s.Replacement.UID = "plain", plainUID },
		"a replacement whose gate has ended": func(s *v1alpha1.PodMigrationStatus) { s.Replacement.Name, s.Replacement.UID = "ended", endedUID },
		"a claim that the pod has not":       func(s *v1alpha1.PodMigrationStatus) { s.CheckpointClaim = "other" },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			original := &corev1.Pod{}
			if err := b.client.Get(t.Context(), client.ObjectKey{Namespace: "default", Name: "train"}, original); err != nil {
				t.Fatal(err)
			}
			original.Spec.Volumes = append(original.Spec.Volumes, corev1.Volume{Name: "config"})
			if err := b.client.Update(t.Context(), original); err != nil {
				t.Fatal(err)
			}
			ended := heldBack("b", endedUID)
			ended.Name, ended.Status.InitContainerStatuses[0].State = "ended", corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}
			for _, pod := range []*corev1.Pod{podOn("c", "elsewhere", otherUID, "work"), podOn("b", "plain", plainUID, "work"), ended} {
				status := pod.Status
				if err := b.client.Create(t.Context(), pod); err != nil {
					t.Fatal(err)
				}
				pod.Status = status
				if err := b.client.Status().Update(t.Context(), pod); err != nil {
					t.Fatal(err)
				}
			}
			for _, pod := range []types.UID{otherUID, plainUID, endedUID} {
				b.mustMake(b.volume("a", pod, "work"))
				b.mustMake(b.volume("b", pod, "work"))
			}
			write(t, filepath.Join(b.kubelets["a"], "kubernetes/admin.conf"), "of the node")
			write(t, filepath.Join(b.kubelets["b"], "kubernetes/admin.conf"), "of the node")
			b.node.onFreeze = func() { t.Error("a pod was frozen") }
			for _, s := range []v1alpha1.CheckpointStep{v1alpha1.StepMeasure, v1alpha1.StepCopy, v1alpha1.StepSeal} {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				b.forge(ctx, func(status *v1alpha1.PodMigrationStatus) { forge(status); status.Checkpoint.Step = s })
				cancel()
			}
			for _, node := range []string{"b", "c"} {
				_ = filepath.WalkDir(b.kubelets[node], func(path string, entry os.DirEntry, _ error) error {
					if entry != nil && entry.Name() == "data" {
						t.Errorf("%s was written", path)
					}
					return nil
				})
			}
			wantUntouched(t, filepath.Join(b.kubelets["a"], "kubernetes"))
			wantUntouched(t, filepath.Join(b.kubelets["b"], "kubernetes"))
		})
	}
}

// UIDs of pods that a forged status names.
const (
	otherUID = "88888888-8888-8888-8888-888888888888"
	plainUID = "99999999-9999-9999-9999-999999999999"
	endedUID = "aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa"
)

// forge writes a status, and lets the agents act on it for a while.
func (b *bench) forge(ctx context.Context, change func(*v1alpha1.PodMigrationStatus)) {
	b.Helper()
	m := b.get()
	change(&m.Status)
	if err := b.client.Status().Update(b.Context(), m); err != nil {
		b.Fatal(err)
	}
	for range 3 {
		done := make(chan struct{})
		agents := []*agent{b.source, b.far, b.third}
		for _, a := range agents {
			go func() {
				_, _ = a.Reconcile(ctx, request)
				done <- struct{}{}
			}()
		}
		for range agents {
			<-done
		}
	}
}

// An agent of another node, or one that nobody knows, sends nothing.
func TestAttackStrangersAreNotAdmitted(t *testing.T) {
	b := newBench(t)
	b.settle()
	b.ask(step(v1alpha1.StepCopy))
	stranger, err := transfer.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	send := func(identity *transfer.Identity, attempt int32, migration types.UID) error {
		conn, err := identity.Dial(t.Context(), b.far.address, b.far.identity.Fingerprint())
		if err != nil {
			return err
		}
		s, err := transfer.OpenSource(transfer.SourceConfig{Migration: migration, Attempt: attempt, State: t.TempDir(), Volumes: []transfer.Volume{b.source.emptyDir(fixture.OriginalUID, "work")}})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		return s.Connect(t.Context(), conn)
	}
	migration := b.get().UID
	if err := send(stranger, 1, migration); err == nil {
		t.Error("a stranger is admitted")
	}
	if err := send(b.source.identity, 2, migration); err == nil {
		t.Error("another attempt is admitted")
	}
	if err := send(b.source.identity, 1, otherUID); err == nil {
		t.Error("another migration is admitted")
	}
	if err := send(b.source.identity, 1, migration); err != nil {
		t.Errorf("the source is not admitted: %v", err)
	}
	b.ask(func(s *v1alpha1.PodMigrationStatus) { s.Checkpoint.Source.Node = "c" })
	if err := send(b.source.identity, 1, migration); err == nil {
		t.Error("an agent of another node is admitted")
	}
}

// A report that names another machine does not get what the pod keeps.
func TestAttackForgedAddress(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		skip.Because(t, "there is no second address: %v", err)
	}
	defer listener.Close()
	connected := make(chan struct{}, 100)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			connected <- struct{}{}
			_ = conn.Close()
		}
	}()
	b := newBench(t)
	b.settle()
	b.far.address = listener.Addr().String()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	b.forge(ctx, step(v1alpha1.StepCopy))
	if d := b.get().Status.Checkpoint.Destination; d == nil || d.Address != listener.Addr().String() {
		t.Fatalf("the destination reports %+v", d)
	}
	if len(connected) > 0 {
		t.Error("the source has connected to a machine that is not the node")
	}
}

// A directory at which nothing is mounted is no claim, whatever it is called.
func TestOnlyMountsAreClaims(t *testing.T) {
	root := t.TempDir()
	at := filepath.Join(root, "claim")
	if err := os.Mkdir(at, 0o755); err != nil {
		t.Fatal(err)
	}
	isMounted := func() bool {
		directory, err := openDirectory(root, "claim")
		if err != nil {
			t.Fatal(err)
		}
		defer directory.Close()
		mounted, err := isMountRoot(directory)
		if err != nil {
			t.Fatal(err)
		}
		return mounted
	}
	if isMounted() {
		t.Error("a plain directory counts as a mount")
	}
	mountSmall(t, at)
	if !isMounted() {
		t.Error("a mount does not")
	}
}
