package ociruntime

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ai-storage/orchestrator/internal/skip"
)

// mountOverlay mounts a root with a fresh writable layer above lower. Both lie on
// a tmpfs: a layer cannot lie on an overlay.
func mountOverlay(t *testing.T, lower, layer string) (root string) {
	t.Helper()
	work, root := layer+".work", layer+".root"
	for _, directory := range []string{layer, work, root} {
		must(t, os.Mkdir(directory, 0o755))
	}
	must(t, unix.Mount("overlay", root, "overlay", 0, "lowerdir="+lower+",upperdir="+layer+",workdir="+work))
	t.Cleanup(func() { must(t, unix.Unmount(root, unix.MNT_DETACH)) })
	return root
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestALayerAppliedMakesTheSameRoot(t *testing.T) {
	skip.WithoutRoot(t, "it mounts an overlay")
	dir := t.TempDir()
	must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, ""))
	t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	lower := filepath.Join(dir, "lower")
	for _, directory := range []string{"emptied", "kept", "becomes-file"} {
		must(t, os.MkdirAll(filepath.Join(lower, directory), 0o755))
		must(t, os.WriteFile(filepath.Join(lower, directory, "old"), []byte("old"), 0o644))
	}
	must(t, os.WriteFile(filepath.Join(lower, "removed"), []byte("old"), 0o644))
	must(t, os.WriteFile(filepath.Join(lower, "changed"), []byte("old"), 0o644))

	before := mountOverlay(t, lower, filepath.Join(dir, "before"))
	script := `cd "$1" && rm -r emptied && mkdir -m 750 emptied && echo new >emptied/new && rm removed && echo more >>changed &&
		rm -r becomes-file && echo file >becomes-file && mkdir -p new/deep && echo x >new/deep/x && ln new/deep/x new/hard && ln -s /etc/passwd new/link &&
		mkfifo new/pipe && chown 12:34 new/deep/x && chmod 4711 new/deep/x && touch -d @12345 new/deep kept`
	if out, err := exec.Command("sh", "-ec", script, "sh", before).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	after := mountOverlay(t, lower, filepath.Join(dir, "after"))
	must(t, applyLayer(filepath.Join(dir, "before"), after))
	listing := func(root string) string {
		out, err := exec.Command("sh", "-ec", `cd "$1" && find . -printf '%p %y %m %U:%G %n %T@ %l\n' | sort && find . -type f -exec md5sum {} + | sort`, "sh", root).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return string(out)
	}
	if want, got := listing(before), listing(after); want != got {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
