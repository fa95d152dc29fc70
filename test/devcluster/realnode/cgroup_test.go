package realnode

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseHierarchies(t *testing.T) {
	for _, test := range []struct {
		name, mountinfo string
		want            []hierarchy
	}{
		{"version 2", `29 23 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot`, version2},
		{"version 1 of systemd", `
31 23 0:28 / /sys/fs/cgroup ro,nosuid shared:9 - tmpfs tmpfs ro,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:10 - cgroup cgroup rw,cpu,cpuacct
33 31 0:30 / /sys/fs/cgroup/systemd rw,nosuid shared:11 - cgroup cgroup rw,xattr,release_agent=/lib/systemd/systemd-cgroups-agent,name=systemd
34 31 0:31 / /sys/fs/cgroup/unified rw,nosuid shared:12 - cgroup2 cgroup2 rw,nsdelegate`, version1},
		{"mounted twice, elsewhere, or something else", `
29 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw
30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw
31 23 0:27 / /mnt/cgroup rw - cgroup cgroup rw,cpu
32 23 0:28 / /sys/fs/cgrouper rw - cgroup cgroup rw,cpu
33 23 0:29 / /sys/fs/bpf rw - bpf bpf rw
broken line`, version2},
		{"none", "", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, parseHierarchies(test.mountinfo)); diff != "" {
				t.Errorf("hierarchies (-want +got):\n%s", diff)
			}
		})
	}
}

func TestCheckControllers(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "node")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for controllers, missing := range map[string]string{
		"cpuset cpu io memory hugetlb pids": "",
		"cpuset cpu io pids":                `"memory"`,
		"":                                  `"cpu"`,
	} {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.controllers"), []byte(controllers+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		err := checkControllers(dir)
		if (err == nil) != (missing == "") || err != nil && !strings.Contains(err.Error(), missing) {
			t.Errorf("with %q: %v, want one that names %s", controllers, err, missing)
		}
	}
}

func TestReserveLeavesTheNodeSize(t *testing.T) {
	for _, test := range []struct {
		name                string
		cpus                int
		memory              int64
		wantMilli, wantNode int64
	}{
		{"a large machine", 16, 64 << 30, 14000, nodeMemory},
		{"exactly", 2, nodeMemory + evictionMemory, 0, nodeMemory},
		{"a small machine", 1, 1 << 30, 0, 1<<30 - evictionMemory},
	} {
		got := reserve(test.cpus, test.memory)
		if got.MilliCPU != test.wantMilli {
			t.Errorf("%s: %dm reserved, want %dm", test.name, got.MilliCPU, test.wantMilli)
		}
		// As the kubelet computes what pods may use.
		if node := test.memory - evictionMemory - got.Memory; node != test.wantNode {
			t.Errorf("%s: %d bytes remain, want %d", test.name, node, test.wantNode)
		}
	}
}

func TestMachineSize(t *testing.T) {
	for list, want := range map[string]int{"0": 1, "0-3": 4, "0-1,4,6-7": 5, "": -1, "3-1": -1, "a": -1} {
		got, err := countList(list)
		if (err != nil) != (want < 0) || err == nil && got != want {
			t.Errorf("countList(%q) = %d, %v, want %d", list, got, err, want)
		}
	}
	if got, err := totalMemory("MemFree: 1 kB\nMemTotal:       24684084 kB\n"); err != nil || got != 24684084<<10 {
		t.Errorf("total memory %d, %v", got, err)
	}
	if _, err := totalMemory("MemFree: 1 kB\n"); err == nil {
		t.Error("no error without MemTotal")
	}
}

func TestUnescapeMountPoint(t *testing.T) {
	if got := unescapeMountPoint(`/home/a\040user\134/x`); got != `/home/a user\/x` {
		t.Errorf("unescaped %q", got)
	}
}
