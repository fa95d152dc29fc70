package realnode

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestLayoutNamesAreShortAndApart(t *testing.T) {
	seen := map[string]bool{}
	for _, stateDir := range []string{"/a", "/b", "/" + strings.Repeat("long/", 60)} {
		for _, node := range []string{"real-0", "real-1"} {
			l, err := newLayout(stateDir, node)
			if err != nil {
				t.Fatal(err)
			}
			if len(l.bridge) > 15 {
				t.Errorf("bridge %s is longer than the kernel allows", l.bridge)
			}
			if seen[l.bridge] || seen[l.cgroup] {
				t.Errorf("%s or %s is used twice", l.bridge, l.cgroup)
			}
			seen[l.bridge], seen[l.cgroup] = true, true
			if again, _ := newLayout(stateDir+"/", node); again != l {
				t.Errorf("layout of %s differs with a slash at the end", stateDir)
			}
		}
	}
	for _, name := range []string{"", "a/b", "a b"} {
		if _, err := newLayout("/a", name); err == nil {
			t.Errorf("%q may name a node", name)
		}
	}
}

func TestCheckPath(t *testing.T) {
	for path, allowed := range map[string]bool{
		"/home/user/state":       true,
		"/home/a user/state":     true,
		"/runner/state":          true,
		"/var/lib/other":         true,
		"/run":                   false,
		"/run/user/1000/state":   false,
		"/var/run/state":         false,
		"/var/log/state":         false,
		"/var/lib/kubelet/state": false,
		"/home/it's/state":       false,
		"/home/a:b/state":        false,
		"/home/a,b/state":        false,
	} {
		if err := checkPath(path); (err == nil) != allowed {
			t.Errorf("checkPath(%s) = %v, want allowed: %v", path, err, allowed)
		}
	}
}

func TestBridgeAliasTellsTheNode(t *testing.T) {
	l, err := newLayout("/state", "real-3")
	if err != nil {
		t.Fatal(err)
	}
	if node, found := nodeOfAlias(bridgeAlias(l), "/state"); node != "real-3" || !found {
		t.Errorf("nodeOfAlias(%q) = %q, %v", bridgeAlias(l), node, found)
	}
	for _, alias := range []string{"", "real-3", bridgeAlias(l)} {
		if node, found := nodeOfAlias(alias, "/other"); found {
			t.Errorf("alias %q gives node %s of another state directory", alias, node)
		}
	}
}

func TestMissingPackages(t *testing.T) {
	absent := errors.New("absent")
	lookPath := func(program string) (string, error) {
		if program == "ip" {
			return "", absent
		}
		return "/usr/bin/" + program, nil
	}
	noFiles := func(string) (os.FileInfo, error) { return nil, absent }
	allFiles := func(string) (os.FileInfo, error) { return nil, nil }

	var got []string
	for _, err := range missingPackages(lookPath, noFiles) {
		got = append(got, err.Error())
	}
	want := []string{
		"no ip: `apt-get install iproute2`",
		"no /usr/lib/cni/bridge: `apt-get install containernetworking-plugins`",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("missing packages (-want +got):\n%s", diff)
	}
	if got := missingPackages(func(string) (string, error) { return "", nil }, allFiles); len(got) > 0 {
		t.Errorf("missing on a complete machine: %v", got)
	}
}

func TestMissingProgramsNameTheCommand(t *testing.T) {
	missing := missingPrograms(t.TempDir())
	if len(missing) != len(nodePrograms) {
		t.Fatalf("%d of %d programs are missed: %v", len(missing), len(nodePrograms), missing)
	}
	if !strings.Contains(missing[0].Error(), "make tools") {
		t.Errorf("%q names no command", missing[0])
	}
}
