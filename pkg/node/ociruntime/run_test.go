package ociruntime

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// node is a wrapper on a node whose runc is a script that writes down how it was
// called.
type node struct {
	*Runtime
	t      *testing.T
	bundle string
	calls  string
}

func newNode(t *testing.T, script string) *node {
	t.Helper()
	dir := t.TempDir()
	n := &node{t: t, bundle: filepath.Join(dir, "bundle"), calls: filepath.Join(dir, "calls")}
	n.Runtime = &Runtime{
		Store: Store(filepath.Join(dir, "store")), RestoredDir: filepath.Join(dir, "restored"),
		Runc: filepath.Join(dir, "runc"), Patience: 200 * time.Millisecond,
	}
	n.write(n.Runc, "#!/bin/sh\necho \"$CRIU_CONFIG_FILE $*\" >>"+n.calls+"\n"+script, 0o755)
	if err := os.MkdirAll(filepath.Join(n.bundle, "rootfs"), 0o755); err != nil {
		t.Fatal(err)
	}
	n.configure("container", "uid-1", "app")
	return n
}

func (n *node) write(path, content string, mode os.FileMode) {
	n.t.Helper()
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) configure(kind, uid, container string) {
	n.t.Helper()
	content, err := json.Marshal(map[string]any{"annotations": map[string]string{
		containerTypeAnnotation: kind, podUIDAnnotation: uid, containerNameAnnotation: container,
	}})
	if err != nil {
		n.t.Fatal(err)
	}
	n.write(filepath.Join(n.bundle, "config.json"), string(content), 0o644)
}

func (n *node) entry() Entry {
	n.t.Helper()
	entry, err := n.Store.Entry("uid-1", "app")
	if err != nil {
		n.t.Fatal(err)
	}
	return entry
}

func (n *node) offer() Entry {
	n.t.Helper()
	entry := n.entry()
	if err := entry.Expect(); err != nil {
		n.t.Fatal(err)
	}
	if err := entry.Offer(); err != nil {
		n.t.Fatal(err)
	}
	return entry
}

func (n *node) create() error {
	n.t.Helper()
	_, err := n.Run([]string{"--log", filepath.Join(n.bundle, "log.json"), "--log-format", "json", "create", "--bundle", n.bundle, "--pid-file", "/p", "id"})
	return err
}

func (n *node) called() string {
	content, _ := os.ReadFile(n.calls)
	return string(content)
}

func TestAnOfferedContainerIsRestoredAndStartDoesNothing(t *testing.T) {
	n := newNode(t, "")
	entry := n.offer()
	n.write(filepath.Join(entry.Layer(), "kept"), "content", 0o640)
	if err := n.create(); err != nil {
		t.Fatal(err)
	}
	if calls := n.called(); !strings.Contains(calls, "criu.conf") || !strings.Contains(calls, " restore --detach --bundle "+n.bundle) {
		t.Errorf("runc was called with %s", calls)
	}
	if outcome, err := entry.Outcome(); err != nil || !outcome.Done || outcome.Failure != "" || outcome.Container != "id" {
		t.Errorf("outcome %+v, %v", outcome, err)
	}
	if content, err := os.ReadFile(filepath.Join(n.bundle, "rootfs", "kept")); string(content) != "content" {
		t.Errorf("the writable layer was not applied: %q, %v", content, err)
	}
	if status, err := n.Run([]string{"start", "id"}); status != 0 || err != nil {
		t.Errorf("start: %d, %v", status, err)
	}
	if strings.Contains(n.called(), "start") {
		t.Error("runc start was called for a container that is running")
	}
	if n.create() == nil {
		t.Error("a container was restored twice")
	}
}

func TestACreationWaitsForItsCheckpoint(t *testing.T) {
	n := newNode(t, "")
	if err := n.entry().Expect(); err != nil {
		t.Fatal(err)
	}
	n.Patience = 10 * time.Second
	created := make(chan error)
	go func() { created <- n.create() }()
	select {
	case err := <-created:
		t.Fatalf("it did not wait: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	if err := n.entry().Offer(); err != nil {
		t.Fatal(err)
	}
	if err := <-created; err != nil {
		t.Fatal(err)
	}
}

func TestAnExpectedContainerNeverStartsFromNothing(t *testing.T) {
	for name, test := range map[string]struct {
		prepare func(n *node)
		want    string
	}{
		"no checkpoint comes": {func(n *node) { _ = n.entry().Expect() }, "not complete within"},
		"removed": {func(n *node) {
			n.Patience = 10 * time.Second
			_ = n.entry().Expect()
			time.AfterFunc(50*time.Millisecond, func() { _ = os.RemoveAll(n.Store.Pod("uid-1")) })
		}, "removed"},
		"failed before": {func(n *node) {
			n.offer()
			_ = os.Remove(n.entry().path(readyFile))
			_ = n.entry().finish("", fmt.Errorf("no luck"))
		}, "no luck"},
		"ended before": {func(n *node) { n.offer(); _ = os.Remove(n.entry().path(readyFile)); _ = n.entry().finish("id", nil) }, "have ended"},
		"being restored by another": {func(n *node) {
			n.offer()
			_ = os.Rename(n.entry().path(readyFile), n.entry().path(begunFile))
		}, "already"},
		"a name that leads elsewhere": {func(n *node) { n.offer(); n.configure("container", "..", "app") }, "cannot name"},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, "")
			test.prepare(n)
			err := n.create()
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
			if calls := n.called(); calls != "" {
				t.Errorf("runc was called: %s", calls)
			}
		})
	}
}

func TestAFailureIsReportedWhereContainerdLooks(t *testing.T) {
	n := newNode(t, `while [ $# -gt 0 ]; do [ "$1" = --work-path ] && mkdir -p "$2" && cat >"$2/restore.log" <<'LOG'
(00.000001) Error (criu/util.c:1): rlimit: Can't setup RLIMIT_NOFILE for self
(00.000002) a line
(00.000003) Error (criu/files.c:2): Can't open file
LOG
shift; done; exit 3`)
	entry := n.offer()
	err := n.create()
	if err == nil || !strings.Contains(err.Error(), "Can't open file") || strings.Contains(err.Error(), "RLIMIT") {
		t.Errorf("got %v", err)
	}
	content, readErr := os.ReadFile(filepath.Join(n.bundle, "log.json"))
	var line struct{ Level, Msg string }
	if jsonErr := json.Unmarshal(content, &line); readErr != nil || jsonErr != nil || line.Level != "error" || line.Msg != err.Error() {
		t.Errorf("log %s: %v %v", content, readErr, jsonErr)
	}
	if outcome, _ := entry.Outcome(); !outcome.Done || !strings.Contains(outcome.Failure, "Can't open file") {
		t.Errorf("outcome %+v", outcome)
	}
	if _, err := os.Stat(filepath.Join(n.RestoredDir, "id")); err == nil {
		t.Error("the container counts as restored")
	}
}

// TestPassThrough runs the program itself, which becomes runc.
func TestPassThrough(t *testing.T) {
	n := newNode(t, "exit 7")
	program := filepath.Join(t.TempDir(), "oci-runtime")
	if out, err := exec.Command("go", "build", "-o", program, "../../../cmd/oci-runtime").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, line := range [][]string{
		{"--version"}, {"--root", "/r", "state", "id"}, {"start", "id"}, {"create", "--bundle", n.bundle, "id"}, {"kill", "--all", "id", "9"}, {},
	} {
		_ = os.Remove(n.calls)
		command := exec.Command(program, line...)
		command.Env = append(os.Environ(), "PATH="+filepath.Dir(n.Runc)+":/usr/bin:/bin", "CRIU_CONFIG_FILE=")
		out, err := command.CombinedOutput()
		if command.ProcessState.ExitCode() != 7 {
			t.Errorf("%q: status of runc was lost: %v %s", line, err, out)
		}
		if got := strings.TrimSpace(n.called()); got != strings.Join(line, " ") {
			t.Errorf("runc was called with %q, want %q", got, line)
		}
	}
}
