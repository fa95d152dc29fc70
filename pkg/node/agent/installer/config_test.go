package installer

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	handler = "ai-storage-process"
	program = "/opt/ai-storage/bin/oci-runtime"
)

func TestImportedDirectory(t *testing.T) {
	for name, test := range map[string]struct{ main, want string }{
		"the usual":                {`imports = ["/etc/containerd/conf.d/*.toml"]`, "/etc/containerd/conf.d"},
		"relative":                 {`imports = ["conf.d/*.toml"]`, "/etc/containerd/conf.d"},
		"after single files":       {`imports = ["/etc/containerd/runtime_v2.toml", "/etc/debug/*.toml"]`, "/etc/debug"},
		"only single files":        {`imports = ["/etc/containerd/runtime.toml"]`, ""},
		"names that start so":      {`imports = ["/etc/containerd/conf.d/10-*.toml"]`, ""},
		"directories by a pattern": {`imports = ["/etc/*/conf.d/*.toml"]`, ""},
		"none":                     {`imports = []`, ""},
		"not said":                 {`version = 3`, ""},
	} {
		main, err := parse([]byte(test.main))
		if err != nil {
			t.Fatal(err)
		}
		got, err := importedDirectory(main, "/etc/containerd/config.toml")
		if got != test.want || (err == nil) != (test.want != "") {
			t.Errorf("%s: %q, %v; want %q", name, got, err, test.want)
		}
		if err != nil && !strings.Contains(err.Error(), `put imports = ["/etc/containerd/conf.d/*.toml"] into it`) {
			t.Errorf("%s: %v does not say what to do", name, err)
		}
	}
}

func TestDropIn(t *testing.T) {
	for name, test := range map[string]struct{ dump, golden, says string }{
		"containerd 2.4 with systemd's cgroups": {read(t, "dump.toml"), "drop-in.toml", ""},
		"containerd 1.7":                        {`version = 2`, "", "want 2.0 or later"},
		"another default runtime":               {"version = 3\n[plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes.kata]\nruntime_type = \"io.containerd.kata.v2\"", "", "no runtime runc"},
		"runc of another shim":                  {"version = 3\n[plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes.runc]\nruntime_type = \"io.containerd.kata.v2\"", "", "no runtime runc"},
	} {
		dump, err := parse([]byte(test.dump))
		if err != nil {
			t.Fatal(err)
		}
		got, err := dropIn(dump, handler, program)
		if (err == nil) != (test.says == "") || err != nil && !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v, want %q", name, err, test.says)
		}
		if test.golden == "" {
			continue
		}
		if diff := cmp.Diff(read(t, test.golden), string(got)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		again, err := parse([]byte(read(t, "dump.toml")))
		if err != nil || cmp.Diff(again, dump) != "" {
			t.Errorf("%s: it changed what it was made from: %v", name, err)
		}
	}
}

func TestOnlyAdds(t *testing.T) {
	before := `version = 4
root = "/var/lib/containerd"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
`
	ours := `[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.ai-storage-process]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.ai-storage-process.options]
BinaryName = "` + program + `"
`
	for name, test := range map[string]struct{ after, says string }{
		"just the handler":       {before + ours, ""},
		"not read":               {before, "does not read the drop-in"},
		"another program":        {before + strings.Replace(ours, program, "/bin/other", 1), "does not read the drop-in"},
		"another setting":        {strings.Replace(before, "/var/lib", "/srv", 1) + ours, "more than the runtime"},
		"a runtime less":         {"version = 4\nroot = \"/var/lib/containerd\"\n" + ours, "more than the runtime"},
		"a plugin's section too": {before + ours + "[plugins.\"io.containerd.nri.v1.nri\"]\ndisable = true\n", "more than the runtime"},
	} {
		was, err := parse([]byte(before))
		if err != nil {
			t.Fatal(err)
		}
		is, err := parse([]byte(test.after))
		if err != nil {
			t.Fatal(err)
		}
		err = onlyAdds(was, is, handler, program)
		if (err == nil) != (test.says == "") || err != nil && !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v, want %q", name, err, test.says)
		}
	}
}

func TestConfigOf(t *testing.T) {
	for line, want := range map[string]string{
		"/usr/bin/containerd": "/etc/containerd/config.toml",
		"containerd --log-level debug --config /srv/containerd.toml":      "/srv/containerd.toml",
		"containerd --config=/srv/containerd.toml":                        "/srv/containerd.toml",
		"containerd -c /var/lib/rancher/k3s/agent/etc/../containerd.toml": "/var/lib/rancher/k3s/agent/containerd.toml",
		"containerd -c config.toml":                                       "",
		"containerd --config":                                             "",
	} {
		got, err := configOf(strings.Fields(line))
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q, %v; want %q", line, got, err, want)
		}
	}
}

func TestUnitOf(t *testing.T) {
	for cgroups, want := range map[string]string{
		"0::/system.slice/containerd.service\n":                                         "containerd.service",
		"0::/../../system.slice/k3s.service\n":                                          "k3s.service",
		"12:cpu:/x.service\n1:name=systemd:/system.slice/containerd.service\n0::/\n":    "containerd.service",
		"12:cpu:/x.service\n1:name=systemd:/ai-storage-real-0/system\n0::/\n":           "",
		"0::/user.slice/user-0.slice/session-1.scope\n":                                 "",
		"0::/system.slice/containerd.service/kubepods/pod1\n":                           "",
		"0::/kubepods.slice/kubepods-burstable.slice/cri-containerd-0123456789.scope\n": "",
		"": "",
	} {
		if got := unitOf(cgroups); got != want {
			t.Errorf("%q: %q, want %q", cgroups, got, want)
		}
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}
