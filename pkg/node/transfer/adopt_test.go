package transfer

import (
	"os"
	"path/filepath"
	"testing"
)

// TestWhatWaitedBecomesThePods, by moving on one file system and by copying to another;
// what was in the volume is gone, and a repetition changes nothing.
func TestWhatWaitedBecomesThePods(t *testing.T) {
	shm, err := os.MkdirTemp("/dev/shm", "transfer")
	if err != nil {
		t.Skip("there is no /dev/shm")
	}
	defer os.RemoveAll(shm)
	for name, place := range map[string]string{"moved": t.TempDir(), "copied": shm} {
		t.Run(name, func(t *testing.T) {
			base := t.TempDir()
			waiting, to, kept := base+"/waiting", place+"/to", base+"/kept"
			for _, d := range []string{waiting, to, kept} {
				must(t, os.Mkdir(d, 0o700))
			}
			m := newTreeMaker(t, 4, waiting)
			for range 30 {
				m.add()
			}
			must(t, os.WriteFile(to+"/surplus", []byte("of an init container"), 0o600))
			must(t, os.Chmod(waiting, 0o2775))
			want := describeTree(t, waiting)
			volumes := func(path string) []Volume {
				return []Volume{{Name: "data", Root: filepath.Dir(path), Path: filepath.Base(path)}}
			}
			state := t.TempDir()
			for range 2 {
				must(t, Adopt(t.Context(), testUID, volumes(waiting), volumes(to), state))
			}
			got := describeTree(t, to)
			for path, line := range want {
				if got[path] != line {
					t.Errorf("%q: got\n%.300s, want\n%.300s", path, got[path], line)
				}
			}
			if len(got) != len(want) {
				t.Errorf("%d names, want %d", len(got), len(want))
			}
			// The pod works: a further call must not empty its volume.
			must(t, os.WriteFile(to+"/new", []byte("x"), 0o600))
			must(t, Adopt(t.Context(), testUID, volumes(waiting), volumes(to), state))
			if _, err := os.Stat(to + "/new"); err != nil {
				t.Error(err)
			}
		})
	}
}
