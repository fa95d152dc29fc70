package ociruntime

import (
	"maps"
	"slices"
	"testing"
)

func TestCommandLinesOfContainerd(t *testing.T) {
	for name, test := range map[string]struct {
		line      []string
		global    int
		command   string
		container string
		flags     map[string]string
	}{
		"create": {
			line:   []string{"--root", "/run/containerd/runc/k8s.io", "--log", "/b/log.json", "--log-format", "json", "create", "--bundle", "/b", "--pid-file", "/b/init.pid", "id1"},
			global: 6, command: "create", container: "id1", flags: map[string]string{"bundle": "/b", "pid-file": "/b/init.pid"},
		},
		"with switches and =": {
			line:   []string{"--systemd-cgroup", "--root=/r", "create", "-b", "/b", "--no-pivot", "--console-socket=/s", "--", "id2"},
			global: 2, command: "create", container: "id2", flags: map[string]string{"bundle": "/b", "console-socket": "/s"},
		},
		"start":           {line: []string{"--debug", "start", "id3"}, global: 1, command: "start", container: "id3"},
		"a flag named so": {line: []string{"--log", "create", "state", "id4"}, global: 2, command: "state", container: "id4"},
		"version":         {line: []string{"--version"}, global: 1},
		"nothing":         {},
	} {
		c := parse(test.line)
		if len(c.global) != test.global || c.name != test.command || c.container != test.container || !maps.Equal(c.flags, test.flags) {
			t.Errorf("%s: got %+v", name, c)
		}
	}
}

func TestRestoreHasTheArgumentsOfCreate(t *testing.T) {
	c := parse([]string{"--root", "/r", "create", "--bundle", "/b", "--pid-file", "/p", "--console-socket", "/s", "--no-pivot", "--preserve-fds", "3", "id"})
	got := c.restoreArguments("/store/uid/app")
	want := []string{"--root", "/r", "restore", "--detach", "--bundle", "/b", "--image-path", "/store/uid/app/memory", "--work-path", "/store/uid/app/work",
		"--manage-cgroups-mode", "ignore", "--file-locks", "--console-socket", "/s", "--pid-file", "/p", "--no-pivot", "id"}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}
