package realnode

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	kubeletconfig "k8s.io/kubelet/config/v1beta1"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write the golden files")

func hierarchiesOf(l layout, all ...hierarchy) []nodeHierarchy {
	var nodes []nodeHierarchy
	for _, h := range all {
		nodes = append(nodes, nodeHierarchy{hierarchy: h, NodeDir: filepath.Join(h.MountPoint, l.cgroup)})
	}
	return nodes
}

func exampleSettings(t *testing.T, hierarchies ...hierarchy) settings {
	t.Helper()
	l, err := newLayout("/home/a user/state", "real-1")
	if err != nil {
		t.Fatal(err)
	}
	s, err := chooseSubnet(l.stateDir, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	return settings{
		Node: l.node, Dir: l.dir, BinDir: "/home/a user/bin", Bridge: l.bridge,
		NodeIP: s.nodeIP().String(), Subnet: s.prefix.String(),
		ClientCAFile: "/home/a user/state/pki/ca.crt",
		Hierarchies:  hierarchiesOf(l, hierarchies...),
		Reserved:     reserve(16, 64<<30),
	}
}

var (
	version1 = []hierarchy{
		{MountPoint: "/sys/fs/cgroup/cpu,cpuacct", Type: "cgroup", MountOptions: "cpu,cpuacct"},
		{MountPoint: "/sys/fs/cgroup/systemd", Type: "cgroup", MountOptions: "none,name=systemd"},
		{MountPoint: "/sys/fs/cgroup/unified", Type: "cgroup2"},
	}
	version2 = []hierarchy{{MountPoint: "/sys/fs/cgroup", Type: "cgroup2"}}
)

func TestRenderGolden(t *testing.T) {
	for _, test := range []struct {
		template, golden string
		hierarchies      []hierarchy
	}{
		{"namespaces.sh.tmpl", "namespaces-v1.sh", version1},
		{"namespaces.sh.tmpl", "namespaces-v2.sh", version2},
		{"enter.sh.tmpl", "enter-v1.sh", version1},
		{"enter.sh.tmpl", "enter-v2.sh", version2},
		{"containerd.toml.tmpl", "containerd.toml", version2},
		{"cni.conflist.tmpl", "cni.conflist", version2},
		{"kubelet.yaml.tmpl", "kubelet.yaml", version2},
	} {
		t.Run(test.golden, func(t *testing.T) {
			got, err := exampleSettings(t, test.hierarchies...).render(test.template)
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join("testdata", test.golden)
			if *update {
				if err := os.WriteFile(path, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("%s (-want +got), -update writes it:\n%s", path, diff)
			}
		})
	}
}

func TestKubeletConfigurationIsKnown(t *testing.T) {
	content, err := exampleSettings(t, version2...).render("kubelet.yaml.tmpl")
	if err != nil {
		t.Fatal(err)
	}
	var config kubeletconfig.KubeletConfiguration
	if err := yaml.UnmarshalStrict(content, &config); err != nil {
		t.Fatalf("%v in:\n%s", err, content)
	}
	if got, want := config.Authentication.X509.ClientCAFile, "/home/a user/state/pki/ca.crt"; got != want {
		t.Errorf("clientCAFile is %q, want %q", got, want)
	}
}

func TestNetworkConfigurationIsJSON(t *testing.T) {
	content, err := exampleSettings(t, version2...).render("cni.conflist.tmpl")
	if err != nil {
		t.Fatal(err)
	}
	if !json.Valid(content) {
		t.Errorf("not JSON:\n%s", content)
	}
}

func TestWriteFiles(t *testing.T) {
	s := exampleSettings(t, version2...)
	s.Dir = t.TempDir()
	if err := s.write(); err != nil {
		t.Fatal(err)
	}
	for path := range configFiles {
		if info, err := os.Stat(filepath.Join(s.Dir, path)); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", path, err)
		}
	}
}
