package agent

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/ai-storage/orchestrator/internal/skip"
)

const pod types.UID = "0f7c8f6e-1111-2222-3333-444455556666"

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestFreezerV2(t *testing.T) {
	root := t.TempDir()
	directory := filepath.Join(root, "kubepods.slice", "kubepods-besteffort.slice", "kubepods-besteffort-pod0f7c8f6e_1111_2222_3333_444455556666.slice")
	write(t, filepath.Join(directory, "cgroup.freeze"), "0")
	write(t, filepath.Join(directory, "cgroup.events"), "populated 1\nfrozen 0\n")
	m := Machine{Cgroup: root}
	go func() {
		// The kernel says so a moment later.
		for range 1000 {
			if content, _ := os.ReadFile(filepath.Join(directory, "cgroup.freeze")); string(content) == "1" {
				_ = os.WriteFile(filepath.Join(directory, "cgroup.events"), []byte("populated 1\nfrozen 1\n"), 0o644)
				return
			}
			time.Sleep(time.Millisecond)
		}
	}()
	if err := m.Freeze(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(directory, "cri-containerd-c1.scope", "cgroup.procs"), "")
	write(t, filepath.Join(directory, "cri-containerd-c1.scope", "init.scope", "cgroup.procs"), "7\n")
	write(t, filepath.Join(directory, "cri-containerd-ended.scope", "cgroup.procs"), "")
	if got, err := m.State(pod); err != nil || !got.Frozen || !slices.Equal(got.Containers, []string{"cri-containerd-c1.scope"}) {
		t.Errorf("the pod stands as %+v, error %v", got, err)
	}
	// A process that joins is frozen a moment later: the cgroup is frozen as before.
	write(t, filepath.Join(directory, "cgroup.events"), "populated 1\nfrozen 0\n")
	if got, err := m.State(pod); err != nil || !got.Frozen {
		t.Errorf("while a process joins, the pod stands as %+v, error %v", got, err)
	}
	if err := os.RemoveAll(filepath.Join(directory, "cri-containerd-c1.scope")); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(directory, "cri-containerd-ended.scope")); err != nil {
		t.Fatal(err)
	}
	if err := m.Thaw(pod); err != nil {
		t.Fatal(err)
	}
	if got, err := m.State(pod); err != nil || got.Frozen {
		t.Errorf("after thawing the pod stands as %+v, error %v", got, err)
	}
	if content, _ := os.ReadFile(filepath.Join(directory, "cgroup.freeze")); string(content) != "0" {
		t.Errorf("cgroup.freeze is %q after thawing", content)
	}
	if err := m.Freeze(t.Context(), "ffffffff-1111-2222-3333-444455556666"); !errors.Is(err, errNoProcess) {
		t.Errorf("a pod that is not there: error %v", err)
	}
	if err := m.Thaw("ffffffff-1111-2222-3333-444455556666"); err != nil {
		t.Errorf("thawing a pod that is gone: %v", err)
	}
	if got, err := m.State("ffffffff-1111-2222-3333-444455556666"); err != nil || !got.Frozen || got.Containers != nil {
		t.Errorf("a pod that is gone stands as %+v, error %v", got, err)
	}
}

func TestProcessesAreCountedByTheirState(t *testing.T) {
	m := Machine{Proc: t.TempDir()}
	for pid, state := range map[string]string{"7": "T (stopped)", "8": "S (sleeping)", "9": "Z (zombie)"} {
		write(t, filepath.Join(m.Proc, pid, "cgroup"), "0::/kubepods/pod1/"+c1+"\n")
		write(t, filepath.Join(m.Proc, pid, "status"), "Name:\ttrain\nState:\t"+state+"\n")
	}
	if alive, stopped := m.Processes(c1); alive != 2 || stopped != 1 {
		t.Errorf("%d alive, %d stopped, want 2 and 1", alive, stopped)
	}
	if alive, stopped := m.Processes(c2); alive != 0 || stopped != 0 {
		t.Errorf("a container that is gone: %d alive, %d stopped", alive, stopped)
	}
}

func TestBoot(t *testing.T) {
	m := Machine{Proc: t.TempDir()}
	if _, err := m.Boot(); err == nil {
		t.Error("no error where there is no ID")
	}
	write(t, filepath.Join(m.Proc, "sys/kernel/random/boot_id"), "4f1f\n")
	if got, err := m.Boot(); err != nil || got != "4f1f" {
		t.Errorf("%q, %v", got, err)
	}
}

// A process that writes stops while it is frozen, continues after, and does not
// write again when it is killed in between.
func TestFreezeRealProcesses(t *testing.T) {
	m := Machine{Cgroup: "/sys/fs/cgroup", Proc: "/proc"}
	root := filepath.Join(m.Cgroup, "freezer")
	if _, err := os.Stat(root); err != nil {
		root = m.Cgroup
	}
	directory := filepath.Join(root, "pod"+string(pod)+"-test")
	if err := os.MkdirAll(filepath.Join(directory, "container"), 0o755); err != nil {
		skip.Because(t, "cgroups cannot be created here: %v", err)
	}
	t.Cleanup(func() {
		_ = os.Remove(filepath.Join(directory, "container"))
		_ = os.Remove(directory)
	})
	output := filepath.Join(t.TempDir(), "output")
	command := exec.Command("sh", "-c", "while :; do echo x >> "+output+"; sleep 0.01; done")
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	died := make(chan error, 1)
	go func() { died <- command.Wait() }()
	if err := os.WriteFile(filepath.Join(directory, "container", "cgroup.procs"), []byte(strconv.Itoa(command.Process.Pid)), 0); err != nil {
		_ = command.Process.Kill()
		skip.Because(t, "processes cannot be moved to a cgroup here: %v", err)
	}
	stands := func(want podState) {
		t.Helper()
		if got, err := m.State(pod); err != nil || got.Frozen != want.Frozen || !slices.Equal(got.Containers, want.Containers) {
			t.Errorf("the pod stands as %+v, error %v, want %+v", got, err, want)
		}
	}
	stands(podState{Containers: []string{"container"}})
	if err := m.Freeze(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	frozen := size(output)
	time.Sleep(200 * time.Millisecond)
	if now := size(output); now != frozen {
		t.Errorf("it wrote %d bytes while frozen", now-frozen)
	}
	stands(podState{Frozen: true, Containers: []string{"container"}})
	startsFrozen(t, filepath.Join(directory, "another"))
	stands(podState{Frozen: true, Containers: []string{"another", "container"}})
	endAll(t, filepath.Join(directory, "another"))
	if err := m.Thaw(pod); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for size(output) == frozen && ctx.Err() == nil {
		time.Sleep(10 * time.Millisecond)
	}
	if ctx.Err() != nil {
		t.Error("it does not continue")
	}
	if err := m.Freeze(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	frozen = size(output)
	if err := m.Kill(pod); err != nil {
		t.Fatal(err)
	}
	if err := m.Thaw(pod); err != nil {
		t.Fatal(err)
	}
	select {
	case <-died:
	case <-time.After(10 * time.Second):
		t.Fatal("it does not end")
	}
	if now := size(output); now != frozen {
		t.Errorf("it wrote %d bytes after it was to end", now-frozen)
	}
}

// startsFrozen puts a process into a new cgroup below one that is frozen, as a container
// runtime does that starts a container: it does not run.
func startsFrozen(t *testing.T, directory string) {
	t.Helper()
	if err := os.Mkdir(directory, 0o755); err != nil {
		t.Fatal(err)
	}
	output := filepath.Join(t.TempDir(), "output")
	command := exec.Command("sh", "-c", "echo $$ > "+filepath.Join(directory, "cgroup.procs")+"; echo x > "+output)
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	t.Cleanup(func() {
		_ = command.Process.Kill()
		<-ended
	})
	deadline := time.Now().Add(10 * time.Second)
	for !isPopulated(directory) && time.Now().Before(deadline) {
		time.Sleep(10 * time.Millisecond)
	}
	time.Sleep(200 * time.Millisecond)
	if size(output) != 0 {
		t.Error("a container that was started in a frozen pod runs")
	}
}

// endAll moves the processes of a cgroup out of it and removes it.
func endAll(t *testing.T, directory string) {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(directory, "cgroup.procs"))
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Dir(filepath.Dir(directory))
	for _, pid := range strings.Fields(string(content)) {
		if err := os.WriteFile(filepath.Join(root, "cgroup.procs"), []byte(pid), 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(directory); err != nil {
		t.Fatal(err)
	}
}

func size(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}

// runningContainer is a process of a container, its shim with the mounts that it sees, and
// what the shim wrote down.
func runningContainer(t *testing.T, mounts string) (Machine, string) {
	t.Helper()
	proc := t.TempDir()
	shim := filepath.Join(proc, "7")
	write(t, filepath.Join(proc, "8", "cgroup"), "0::/kubepods/pod1/"+c1+"\n")
	write(t, filepath.Join(proc, "8", "status"), "Name:\ttrain\nPPid:\t7\n")
	write(t, filepath.Join(shim, "cgroup"), "0::/system.slice/containerd.service\n")
	write(t, filepath.Join(shim, "mountinfo"), mounts)
	write(t, filepath.Join(shim, "root", bundles, c1, "init.pid"), "8")
	write(t, filepath.Join(shim, "root", bundles, c1, "options.json"), `{"binary_name":"/opt/oci-runtime"}`)
	return Machine{Proc: proc, KubeletRoot: "/var/lib/kubelet"}, filepath.Join(shim, "root")
}

func TestTheWritableLayerIsThatOfTheRoot(t *testing.T) {
	const snapshot = "io.containerd.snapshotter.v1.overlayfs/snapshots/12/fs"
	at := "29 1 0:39 / " + bundles + "/" + c1 + "/rootfs rw,relatime "
	other := "30 29 0:40 / /data rw - overlay overlay rw,lowerdir=/l,upperdir=/of/data,workdir=/w\n"
	own := "31 1 0:41 / / rw - overlay overlay rw,upperdir=/etc/kubernetes/pki\n"
	for name, test := range map[string]struct{ mounts, root string }{
		"plain":          {other + at + "- overlay overlay rw,lowerdir=/l,upperdir=/var/lib/containerd/" + snapshot + ",workdir=/snap/1/work\n", "/var/lib/containerd"},
		"optional":       {at + "shared:1 master:2 - overlay overlay rw,upperdir=/var/lib/containerd/" + snapshot + "\n", "/var/lib/containerd"},
		"escaped":        {at + "- overlay overlay rw,upperdir=/a\\040b\\134c\\011\"\\054d/" + snapshot + "\n", "/a b\\c\t\",d"},
		"read only":      {at + "- overlay overlay ro,lowerdir=/l:/m\n", ""},
		"no overlay":     {other + own + at + "- ext4 /dev/sda rw\n", ""},
		"not escaped":    {at + "- overlay overlay rw,upperdir=/a\\8\n", ""},
		"of its own":     {own, ""},
		"no snapshot":    {at + "- overlay overlay rw,upperdir=/etc/kubernetes/pki\n", ""},
		"upwards":        {at + "- overlay overlay rw,upperdir=/var/lib/containerd/" + snapshot + "/../../../../../etc\n", ""},
		"not a snapshot": {at + "- overlay overlay rw,upperdir=/var/lib/containerd/" + snapshot + "/work\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			m, host := runningContainer(t, test.mounts)
			root, path, err := m.Layer(c1)
			if test.root == "" {
				if err == nil {
					t.Errorf("%s in %s, want an error", path, root)
				}
				return
			}
			if want := filepath.Join(host, test.root); err != nil || root != want || path != snapshot {
				t.Errorf("%q in %q, %v, want %q in %q", path, root, err, snapshot, want)
			}
		})
	}
	m, _ := runningContainer(t, "")
	for _, id := range []string{c2, "c1", "", "../" + c1} {
		if _, _, err := m.Layer(id); !errors.Is(err, errNoProcess) {
			t.Errorf("container %q: %v, want %v", id, err, errNoProcess)
		}
	}
}

// A container that may make cgroups can name one like another container. What has started
// the process there is no shim.
func TestAProcessInAForgedCgroupIsOfNoContainer(t *testing.T) {
	m, _ := runningContainer(t, "")
	write(t, filepath.Join(m.Proc, "8", "cgroup"), "0::/kubepods/pod2/"+c2+"/"+c1+"\n")
	write(t, filepath.Join(m.Proc, "7", "cgroup"), "0::/kubepods/pod2/"+c2+"\n")
	if _, err := m.runtimeInfo(c1); !errors.Is(err, errNoProcess) {
		t.Errorf("the root of a container is taken for that of a shim: %v", err)
	}
}

func TestTheSharedMemoryIsThatOfThePod(t *testing.T) {
	for source, want := range map[string]string{
		sandboxes + "/" + c2 + "/shm":                   sandboxes,
		"/var/lib/kubelet/pods/1/volumes/e~empty-dir/s": "/var/lib/kubelet/pods",
		"/etc/kubernetes":                               "",
		sandboxes + "/../../../etc":                     "",
	} {
		m, host := runningContainer(t, "")
		write(t, filepath.Join(host, bundles, c1, "config.json"), `{"mounts":[{"destination":"/dev","source":"x"},{"destination":"/dev/shm","source":"`+source+`"}]}`)
		root, path, err := m.SharedMemory(c1)
		if want == "" && err == nil || want != "" && (err != nil || root != filepath.Join(host, want) || filepath.Join(want, path) != source) {
			t.Errorf("%s: %q in %q, %v", source, path, root, err)
		}
	}
}

// kernel plays the freezer of one container, version 2. onThaw runs at the first
// thawing.
func kernel(t *testing.T, directory string, onThaw func()) {
	t.Helper()
	write(t, filepath.Join(directory, "cgroup.freeze"), "0")
	write(t, filepath.Join(directory, "cgroup.events"), "populated 1\nfrozen 0\n")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	t.Cleanup(func() { cancel(); <-done })
	go func() {
		defer close(done)
		for frozen := "0"; ctx.Err() == nil; time.Sleep(time.Millisecond) {
			content, _ := os.ReadFile(filepath.Join(directory, "cgroup.freeze"))
			if string(content) != "0" && string(content) != "1" || string(content) == frozen {
				continue // being written, or as it was
			}
			frozen = string(content)
			_ = os.WriteFile(filepath.Join(directory, "cgroup.events"), []byte("populated 1\nfrozen "+frozen+"\n"), 0o644)
			if frozen == "0" && onThaw != nil {
				onThaw()
				onThaw = nil
			}
		}
	}()
}

// A process of an exec probe is not in the tree that CRIU dumps: the container runs
// until it has ended, and is frozen then.
func TestContainersAreFrozenWithoutExecProbes(t *testing.T) {
	m, _ := runningContainer(t, "")
	m.Cgroup = t.TempDir()
	probe := filepath.Join(m.Proc, "9")
	write(t, filepath.Join(probe, "cgroup"), "0::/kubepods/pod1/"+c1+"\n")
	write(t, filepath.Join(probe, "status"), "Name:\tprobe\nPPid:\t7\n")
	kernel(t, filepath.Join(m.Cgroup, "kubepods", "pod"+string(pod), c1), func() { _ = os.RemoveAll(probe) })
	if err := m.CheckFrozen(pod, []string{c1}); err == nil {
		t.Error("a container that runs counts as frozen")
	}
	if err := m.FreezeContainers(t.Context(), pod, []string{c1}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(probe); err == nil {
		t.Error("it was frozen with the probe")
	}
	if err := m.CheckFrozen(pod, []string{c1}); err != nil {
		t.Errorf("after freezing: %v", err)
	}
	if err := m.FreezeContainers(t.Context(), pod, []string{c1, c2}); !errors.Is(err, errNoProcess) {
		t.Errorf("a container that does not run: %v, want %v", err, errNoProcess)
	}
}

func TestAnExecProbeThatStaysEndsWithTheContext(t *testing.T) {
	m, _ := runningContainer(t, "")
	m.Cgroup = t.TempDir()
	write(t, filepath.Join(m.Proc, "9", "cgroup"), "0::/kubepods/pod1/"+c1+"\n")
	write(t, filepath.Join(m.Proc, "9", "status"), "Name:\tprobe\nPPid:\t7\n")
	kernel(t, filepath.Join(m.Cgroup, "kubepods", "pod"+string(pod), c1), nil)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := m.FreezeContainers(ctx, pod, []string{c1}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, want %v", err, context.DeadlineExceeded)
	}
}
