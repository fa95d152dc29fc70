package installer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	config = "/etc/containerd/config.toml"
	target = "/etc/containerd/conf.d/ai-storage-process.toml"
	main   = `version = 3
imports = ["/etc/containerd/conf.d/*.toml"]
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
SystemdCgroup = true
`
)

// fakeContainerd reads the main configuration and the drop-in as the real one does.
type fakeContainerd struct {
	root     root
	handlers []string
	restarts int
	// broken: it does not come back while there is a drop-in; needsIt: while there is none.
	broken, needsIt bool
	// reads is what a dump has more than the two files.
	reads string
	// restarted is called in the middle of a restart.
	restarted func()
}

func (f *fakeContainerd) Config() (string, error) { return config, nil }

func (f *fakeContainerd) Dump(context.Context) ([]byte, error) {
	content, err := f.root.read(config)
	if err != nil {
		return nil, err
	}
	added, err := f.root.read(target)
	if err != nil || added == nil {
		return content, err
	}
	return []byte(string(content) + f.reads + strings.ReplaceAll(string(added), "version = 3\n", "")), nil
}

func (f *fakeContainerd) Handlers(context.Context) ([]string, error) {
	if f.handlers == nil {
		return nil, errors.New("containerd does not answer")
	}
	return f.handlers, nil
}

func (f *fakeContainerd) Restart(context.Context) error {
	f.restarts++
	if f.restarted != nil {
		f.restarted()
	}
	added, err := f.root.read(target)
	if err != nil {
		return err
	}
	f.handlers = []string{"", "runc"}
	if added != nil && f.broken || added == nil && f.needsIt {
		f.handlers = nil
		return errors.New("containerd is not back 1m0s after its restart")
	}
	if added != nil {
		f.handlers = append(f.handlers, handler)
	}
	return nil
}

// scene is a node.
type scene struct {
	*Installer
	containerd *fakeContainerd
	users      []string
	busy       string
	before     map[string]string
}

func newScene(t *testing.T) *scene {
	t.Helper()
	dir := t.TempDir()
	s := &scene{containerd: &fakeContainerd{root: root(filepath.Join(dir, "node")), handlers: []string{"", "runc"}}}
	source := filepath.Join(dir, "oci-runtime")
	must(t, os.WriteFile(source, []byte("the wrapper"), 0o755))
	must(t, os.MkdirAll(filepath.Join(dir, "node", "etc/containerd"), 0o755))
	must(t, os.MkdirAll(filepath.Join(dir, "node", "real-opt"), 0o755))
	// A link of the node's own, which leads elsewhere from outside.
	must(t, os.Symlink("/real-opt", filepath.Join(dir, "node", "opt")))
	must(t, os.WriteFile(filepath.Join(dir, "node", config), []byte(main), 0o600))
	s.Installer = New(Options{
		Handler: handler, Source: source, Program: program, Root: filepath.Join(dir, "node"), RecordFile: filepath.Join(dir, "node", "var/agent/handler.json"),
		Containerd: s.containerd,
		Users:      func() ([]string, error) { return s.users, nil }, Busy: func() (string, error) { return s.busy, nil },
	})
	must(t, os.MkdirAll(filepath.Join(dir, "node", "var/agent"), 0o755))
	s.before = s.files(t)
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (s *scene) files(t *testing.T) map[string]string {
	t.Helper()
	files := map[string]string{}
	must(t, filepath.WalkDir(s.Root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		content := ""
		if info.Mode().IsRegular() {
			read, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			content = string(read)
		}
		files[strings.TrimPrefix(path, s.Root)] = info.Mode().String() + " " + content
		return nil
	}))
	return files
}

func (s *scene) ensure(t *testing.T, wanted bool, says string) {
	t.Helper()
	err := s.Ensure(t.Context(), wanted)
	if (err == nil) != (says == "") || err != nil && !strings.Contains(err.Error(), says) {
		t.Fatalf("wanted %t: %v; want %q", wanted, err, says)
	}
}

func (s *scene) wantAsBefore(t *testing.T) {
	t.Helper()
	if diff := cmp.Diff(s.before, s.files(t)); diff != "" {
		t.Errorf("files (-before +now):\n%s", diff)
	}
	if present, err := s.Present(); present || err != nil {
		t.Errorf("something is said to be there: %v", err)
	}
}

func (s *scene) wantInstalled(t *testing.T, restarts int) {
	t.Helper()
	files := s.files(t)
	if !slices.Contains(s.containerd.handlers, handler) || s.containerd.restarts != restarts {
		t.Errorf("handlers %v after %d restarts, want %d", s.containerd.handlers, s.containerd.restarts, restarts)
	}
	if files["/real-opt/ai-storage/bin/oci-runtime"] != "-rwxr-xr-x the wrapper" {
		t.Errorf("the program is %q", files["/real-opt/ai-storage/bin/oci-runtime"])
	}
	if d := files[target]; !strings.HasPrefix(d, "-rw-r--r-- # Written by the node agent") || !strings.Contains(d, "SystemdCgroup = true") {
		t.Errorf("the drop-in is %q", d)
	}
	if present, err := s.Present(); !present || err != nil {
		t.Errorf("nothing is said to be there: %v", err)
	}
}

func TestInstallAndRemove(t *testing.T) {
	s := newScene(t)
	s.ensure(t, false, "")
	s.wantAsBefore(t)
	for range 2 { // the second time there is nothing to do
		s.ensure(t, true, "")
		s.wantInstalled(t, 1)
	}
	must(t, os.WriteFile(s.Source, []byte("a newer one"), 0o755))
	s.ensure(t, true, "")
	if got := s.files(t)["/real-opt/ai-storage/bin/oci-runtime"]; got != "-rwxr-xr-x a newer one" || s.containerd.restarts != 1 {
		t.Errorf("after an upgrade the program is %q, and containerd was restarted %d times", got, s.containerd.restarts)
	}
	for range 2 {
		s.ensure(t, false, "")
		s.wantAsBefore(t)
	}
	if s.containerd.restarts != 2 || slices.Contains(s.containerd.handlers, handler) {
		t.Errorf("%d restarts, handlers %v", s.containerd.restarts, s.containerd.handlers)
	}
}

// What keeps the handler from being installed changes nothing.
func TestInstallThatCannotBe(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*testing.T, *scene)
		says   string
	}{
		"no imports": {func(t *testing.T, s *scene) {
			s.writeMain(t, strings.Replace(main, "imports", "# imports", 1))
		}, "config.toml imports no directory of drop-ins"},
		"no configuration":  {func(t *testing.T, s *scene) { must(t, s.root.remove(config)) }, "imports no directory"},
		"not TOML":          {func(t *testing.T, s *scene) { s.writeMain(t, "version") }, "reading containerd's configuration"},
		"an old containerd": {func(t *testing.T, s *scene) { s.writeMain(t, strings.Replace(main, "version = 3", "version = 2", 1)) }, "want 2.0 or later"},
		"more would change": {func(_ *testing.T, s *scene) { s.containerd.reads = "[debug]\nlevel = \"debug\"\n" }, "more than the runtime would change"},
		"a frozen pod":      {func(_ *testing.T, s *scene) { s.busy = "pod a/b is frozen for a migration" }, "not restarted while pod a/b is frozen"},
		"no program":        {func(t *testing.T, s *scene) { must(t, os.Remove(s.Source)) }, "oci-runtime: no such file"},
		"another client's": {func(t *testing.T, s *scene) {
			must(t, s.makeDirectoryOf(target))
			must(t, s.root.write(target, []byte("version = 3\n"), 0o644))
		}, "not of this installer"},
		"an unreadable place": {func(t *testing.T, s *scene) {
			must(t, os.WriteFile(filepath.Join(s.Root, "real-opt/ai-storage"), nil, 0o600))
		}, "not a directory"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			test.change(t, s)
			s.before = s.files(t)
			for range 2 {
				s.ensure(t, true, test.says)
				s.wantAsBefore(t)
			}
			if s.containerd.restarts != 0 {
				t.Errorf("containerd was restarted %d times", s.containerd.restarts)
			}
		})
	}
}

func (s *scene) writeMain(t *testing.T, content string) {
	t.Helper()
	must(t, s.root.write(config, []byte(content), 0o600))
}

func (s *scene) makeDirectoryOf(path string) error { return s.root.makeDirectory(filepath.Dir(path)) }

// A handler that the makers of the node have put there is theirs.
func TestHandlerThatIsThere(t *testing.T) {
	s := newScene(t)
	s.writeMain(t, main+fmt.Sprintf("[plugins.%q.containerd.runtimes.%s]\nruntime_type = %q\n", criPlugin, handler, runcShim))
	s.before = s.files(t)
	s.ensure(t, true, "")
	s.wantAsBefore(t)
	s.ensure(t, false, "")
	s.wantAsBefore(t)
}

func TestContainerdThatDoesNotComeBack(t *testing.T) {
	s := newScene(t)
	s.containerd.broken = true
	s.ensure(t, true, "so what was there before is in its place again: containerd is not back")
	if s.containerd.restarts != 2 || !slices.Equal(s.containerd.handlers, []string{"", "runc"}) {
		t.Errorf("%d restarts, handlers %v", s.containerd.restarts, s.containerd.handlers)
	}
	// Not again and again, also by another agent.
	s.Installer = New(s.Options)
	s.ensure(t, true, "turn the option off and on to try again")
	if s.containerd.restarts != 2 {
		t.Errorf("%d restarts", s.containerd.restarts)
	}
	s.ensure(t, false, "")
	s.wantAsBefore(t)
	s.containerd.broken = false
	s.ensure(t, true, "")
	s.wantInstalled(t, 3)
}

// An agent that is killed at any moment leaves what the next one finishes.
func TestInstallAfterACrash(t *testing.T) {
	for _, wanted := range []bool{true, false} {
		s := newScene(t)
		func() {
			s.containerd.restarted = func() { panic("killed") }
			defer func() { _ = recover() }()
			_ = s.Ensure(t.Context(), true)
		}()
		s.containerd.restarted = nil
		s.Installer = New(s.Options)
		s.ensure(t, wanted, "")
		if wanted {
			s.wantInstalled(t, 2)
		} else {
			s.wantAsBefore(t)
		}
	}
	s := newScene(t)
	s.ensure(t, true, "")
	func() {
		s.containerd.restarted = func() { panic("killed") }
		defer func() { _ = recover() }()
		_ = s.Ensure(t.Context(), false)
	}()
	s.containerd.restarted = nil
	s.ensure(t, false, "")
	s.wantAsBefore(t)
}

// A crash before containerd has read the drop-in, which then proves to be bad.
func TestContainerdThatDoesNotComeBackAfterACrash(t *testing.T) {
	s := newScene(t)
	func() {
		s.containerd.restarted = func() { panic("killed") }
		defer func() { _ = recover() }()
		_ = s.Ensure(t.Context(), true)
	}()
	s.containerd.restarted, s.containerd.broken = nil, true
	s.ensure(t, true, "so what was there before is in its place again")
	s.ensure(t, false, "")
	s.wantAsBefore(t)
}

func TestRemovalWaitsForContainers(t *testing.T) {
	s := newScene(t)
	s.ensure(t, true, "")
	s.users = []string{"one", "two"}
	s.ensure(t, false, "2 containers and sandboxes of this node run by it and could not be stopped without (one …)")
	s.wantInstalled(t, 1)
	s.users, s.busy = nil, "pod a/b is frozen for a migration"
	s.ensure(t, false, "not restarted while")
	s.wantInstalled(t, 1)
	// One begins while containerd is being restarted: it keeps the program.
	s.busy = ""
	s.containerd.restarted = func() { s.users = []string{"late"} }
	s.ensure(t, false, "1 containers")
	if s.files(t)["/real-opt/ai-storage/bin/oci-runtime"] == "" {
		t.Error("the program is gone under a container")
	}
	s.users, s.containerd.restarted = nil, nil
	s.ensure(t, false, "")
	s.wantAsBefore(t)
	if s.containerd.restarts != 2 {
		t.Errorf("%d restarts, want one more", s.containerd.restarts)
	}
}

func TestRemovalThatContainerdDoesNotSurvive(t *testing.T) {
	s := newScene(t)
	s.ensure(t, true, "")
	s.containerd.needsIt = true
	s.ensure(t, false, "did not come back without the drop-in, so it is in its place again")
	s.wantInstalled(t, 3)
	s.containerd.needsIt = false
	s.ensure(t, false, "")
	s.wantAsBefore(t)
}
