package checkpoint

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// mutate changes a random tree in one of many ways.
func mutate(t testing.TB, random *rand.Rand, dir string) {
	t.Helper()
	name := func() string { return fmt.Sprintf("%s/d%d/f%d", dir, random.IntN(3), random.IntN(6)) }
	data := func(n int) []byte {
		content := make([]byte, n)
		for i := range content {
			content[i] = byte(random.Uint32())
		}
		return content
	}
	path := name()
	if info, err := os.Lstat(path); err == nil && info.Mode()&os.ModeNamedPipe != 0 {
		must(t, os.Remove(path)) // opening it would wait for the other end
	}
	switch random.IntN(10) {
	case 0, 1: // append
		if file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600); err == nil {
			_, err := file.Write(data(random.IntN(200)))
			must(t, err)
			must(t, file.Close())
		}
	case 2: // somewhere inside a large file, without changing its size
		if file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600); err == nil {
			must(t, file.Truncate(chunkSize+1000))
			_, err := file.WriteAt(data(50), int64(random.IntN(chunkSize)))
			must(t, err)
			must(t, file.Close())
		}
	case 3:
		if info, err := os.Lstat(path); err == nil && info.Mode().IsRegular() {
			must(t, os.Truncate(path, int64(random.IntN(500))))
		}
	case 4:
		must(t, os.RemoveAll(path))
	case 5:
		_ = os.Rename(path, name()) // as far as both names allow it
	case 6: // another kind of file under the same name
		must(t, os.RemoveAll(path))
		switch random.IntN(3) {
		case 0:
			must(t, os.Symlink("d0/f0", path))
		case 1:
			must(t, os.Mkdir(path, 0o711))
		default:
			must(t, unix.Mkfifo(path, 0o600))
		}
	case 7:
		_ = os.Link(name(), path) // as far as both names allow it
	case 8:
		if info, err := os.Lstat(path); err == nil && info.Mode().IsRegular() {
			must(t, os.Chmod(path, os.FileMode(random.IntN(0o1000))))
			must(t, os.Chown(path, random.IntN(5), random.IntN(5)))
		}
	case 9: // a store through a mapping
		storeMapped(t, path, byte(random.Uint32()))
	}
}

func storeMapped(t testing.TB, path string, value byte) {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil || !info.Mode().IsRegular() || info.Size() == 0 {
		return
	}
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer file.Close()
	mapped, err := unix.Mmap(int(file.Fd()), 0, int(info.Size()), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	must(t, err)
	mapped[0] = value
	must(t, unix.Munmap(mapped))
}

// Whatever happens between the passes, and whenever the agents are restarted,
// the volumes are equal at the end.
func TestRandomTreesArriveAsTheyAre(t *testing.T) {
	for seed := range uint64(25) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 1))
			c := newCarry(t)
			for i := range 3 {
				must(t, os.Mkdir(fmt.Sprintf("%s/d%d", c.source, i), 0o755))
			}
			for range 4 {
				for range 15 {
					mutate(t, random, c.source)
				}
				c.pass(false)
				switch random.IntN(4) {
				case 0:
					c.reopen()
				case 1, 2:
					c.warm()
				}
			}
			mutate(t, random, c.source)
			c.finish()
		})
	}
}

// A file that is mapped changes without a system call, also in memory.
func TestStoresThroughAMappingAreSeen(t *testing.T) {
	for name, dir := range map[string]string{"disk": "", "memory": "/dev/shm"} {
		t.Run(name, func(t *testing.T) {
			c := newCarry(t)
			if dir != "" {
				volume, err := os.MkdirTemp(dir, "checkpoint-")
				must(t, err)
				t.Cleanup(func() { os.RemoveAll(volume) })
				c.source = volume
				c.reopen()
			}
			write(t, c.source+"/f", make([]byte, 8192), 0o600)
			file, err := os.OpenFile(c.source+"/f", os.O_RDWR, 0)
			must(t, err)
			defer file.Close()
			mapped, err := unix.Mmap(int(file.Fd()), 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			must(t, err)
			defer func() { must(t, unix.Munmap(mapped)) }()
			for i := range 5 {
				mapped[100] = byte(i + 1) // the page is dirty and stays writable
				time.Sleep(2 * settleTime)
				c.pass(false)
				mapped[100] = byte(i + 100)
			}
			c.finish()
		})
	}
}

func TestTheLastPassWritesOnlyWhatChanged(t *testing.T) {
	c := newCarry(t)
	write(t, c.source+"/log", make([]byte, 0), 0o600)
	grow := func(bytes int) {
		file, err := os.OpenFile(c.source+"/log", os.O_APPEND|os.O_WRONLY, 0)
		must(t, err)
		content := make([]byte, bytes)
		for i := range content {
			content[i] = byte(i*7 + bytes)
		}
		_, err = file.Write(content)
		must(t, err)
		must(t, file.Close())
	}
	grow(5 * chunkSize)
	write(t, c.source+"/other", []byte("unchanged"), 0o600)
	time.Sleep(2 * settleTime)
	c.pass(false)
	grow(1000)
	time.Sleep(2 * settleTime)
	if result := c.pass(false); result.Written < 1000 || result.Written > chunkSize {
		t.Errorf("the second pass wrote %d bytes, want the chunk that grew", result.Written)
	}
	if result := c.pass(false); result.Written != 0 {
		t.Errorf("a pass without a change wrote %d bytes", result.Written)
	}
	c.warm()
	if result := c.finish(); result.Written != 0 {
		t.Errorf("restoring what was restored wrote %d bytes", result.Written)
	}
}

func TestAChangeDuringTheLastPassIsNotSealed(t *testing.T) {
	c := newCarry(t)
	write(t, c.source+"/f", make([]byte, 1<<20), 0o600)
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				_ = os.WriteFile(c.source+"/f", []byte(strings.Repeat("x", i%1000+1)), 0o600)
			}
		}
	}()
	var err error
	for range 50 {
		if _, err = c.writer.Pass(t.Context(), true, nil); err != nil {
			break
		}
		if _, err = c.writer.Seal(t.Context()); err != nil {
			break
		}
	}
	close(stop)
	<-done
	if ReasonOf(err) != ReasonChanged {
		t.Errorf("error %v, want %s", err, ReasonChanged)
	}
}

// What is on the claim is not trusted, whoever changed it.
func TestChangesOnTheClaimAreFound(t *testing.T) {
	aByte := func(t *testing.T, tree, _ string) {
		file, err := os.OpenFile(tree+"/victim", os.O_RDWR, 0)
		must(t, err)
		_, err = file.WriteAt([]byte("!"), 3)
		must(t, err)
		must(t, file.Close())
	}
	tests := map[string]func(t *testing.T, tree, manifest string){
		"a byte": aByte, "a byte of an image": aByte,
		"shorter": func(t *testing.T, tree, _ string) { must(t, os.Truncate(tree+"/victim", 3)) },
		"gone":    func(t *testing.T, tree, _ string) { must(t, os.Remove(tree+"/victim")) },
		"a symbolic link": func(t *testing.T, tree, _ string) {
			must(t, os.Remove(tree+"/victim"))
			must(t, os.Symlink("/etc/passwd", tree+"/victim"))
		},
		"the manifest": func(t *testing.T, _, manifest string) {
			content, err := os.ReadFile(manifest)
			must(t, err)
			write(t, manifest, []byte(strings.Replace(string(content), `"mode":384`, `"mode":2541`, 1)), 0o600)
		},
		"no manifest any more": func(t *testing.T, _, manifest string) { write(t, manifest, []byte("{"), 0o600) },
	}
	for name, tamper := range tests {
		t.Run(name, func(t *testing.T) {
			c := newCarry(t)
			c.transient = name == "a byte of an image"
			c.reopen()
			write(t, c.source+"/victim", []byte("precious"), 0o600)
			write(t, c.source+"/other", []byte("other"), 0o600)
			c.pass(true)
			digest, err := c.writer.Seal(t.Context())
			must(t, err)
			directory := filepath.Join(c.claim, testUID)
			tamper(t, directory+"/volumes/data", directory+"/manifest.json")
			_, err = c.reader.RestoreSealed(t.Context(), digest, nil)
			if ReasonOf(err) != ReasonCorrupt {
				t.Fatalf("error %v, want %s", err, ReasonCorrupt)
			}
			if !strings.Contains(name, "manifest") && !strings.Contains(err.Error(), "victim") {
				t.Errorf("the error does not name the file: %v", err)
			}
		})
	}
}

// A container that puts links in the way reaches nothing outside of its volume.
func TestLinksInTheWayAreNotFollowed(t *testing.T) {
	c := newCarry(t)
	outside := t.TempDir()
	write(t, outside+"/secret", []byte("secret"), 0o600)
	must(t, os.Mkdir(c.source+"/d", 0o755))
	write(t, c.source+"/d/secret", []byte("mine"), 0o600)
	c.pass(false)
	// The destination has a link where a directory belongs; the claim too.
	must(t, os.Symlink(outside, c.end+"/d"))
	c.warm()
	tree := filepath.Join(c.claim, testUID, "volumes/data")
	must(t, os.RemoveAll(tree+"/d"))
	must(t, os.Symlink(outside, tree+"/d"))
	c.finish()
	if content, err := os.ReadFile(outside + "/secret"); err != nil || string(content) != "secret" {
		t.Errorf("a file outside was written to: %q, %v", content, err)
	}
}

func TestAFullClaimIsNamed(t *testing.T) {
	c := newCarry(t)
	must(t, unix.Mount("tmpfs", c.claim, "tmpfs", 0, "size=1m"))
	t.Cleanup(func() { must(t, unix.Unmount(c.claim, 0)) })
	t.Cleanup(func() { c.writer.Close(); c.reader.Close() })
	c.reopen()
	write(t, c.source+"/f", []byte(strings.Repeat("data", 1<<20)), 0o600)
	_, err := c.writer.Pass(t.Context(), false, nil)
	if ReasonOf(err) != ReasonNoSpace || !strings.Contains(err.Error(), "of 1048576 bytes are free") {
		t.Errorf("error %v, want %s with the size", err, ReasonNoSpace)
	}
	// The pod frees room: the next pass must not believe in what half arrived.
	write(t, c.source+"/f", []byte(strings.Repeat("data", 1<<10)), 0o600)
	c.finish()
}

// An agent that is stopped in the middle continues, and misses nothing.
func TestAnInterruptedPassIsRepeated(t *testing.T) {
	c := newCarry(t)
	for i := range 40 {
		write(t, fmt.Sprintf("%s/f%d", c.source, i), []byte(strings.Repeat(fmt.Sprint(i), 50000)), 0o600)
	}
	for i := range 12 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*300*time.Microsecond)
		_, _ = c.writer.Pass(ctx, false, nil)
		cancel()
		ctx, cancel = context.WithTimeout(t.Context(), time.Duration(i)*300*time.Microsecond)
		_, _ = c.reader.Restore(ctx, nil)
		cancel()
		write(t, fmt.Sprintf("%s/f%d", c.source, i), []byte("changed"), 0o600)
		if i%3 == 0 {
			c.reopen()
		}
	}
	c.finish()
}

func TestEarlierCheckpointsAreRemoved(t *testing.T) {
	c := newCarry(t)
	const earlier, users = "0b1c2d3e-0000-4000-8000-00000000000f", "0b1c2d3e-0000-4000-8000-0000000000aa"
	must(t, os.MkdirAll(filepath.Join(c.claim, earlier, "volumes/x"), 0o700))
	must(t, os.MkdirAll(filepath.Join(c.claim, users), 0o700))
	write(t, c.claim+"/model.bin", []byte("the application's"), 0o600)
	c.reopen()
	for name, stays := range map[string]bool{earlier: false, users: true, "model.bin": true, testUID: true} {
		if _, err := os.Stat(filepath.Join(c.claim, name)); (err == nil) != stays {
			t.Errorf("%s: %v, want it to stay: %t", name, err, stays)
		}
	}
}

func TestMeasure(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Mkdir(dir+"/d", 0o755))
	write(t, dir+"/d/f", make([]byte, 100<<10), 0o600)
	must(t, os.Link(dir+"/d/f", dir+"/again"))
	size, err := Measure(t.Context(), []Volume{{Name: "data", Dir: dir}})
	if err != nil || size.Files != 4 || size.Bytes < 100<<10 || size.Bytes > 150<<10 {
		t.Errorf("%+v, %v", size, err)
	}
}

// BenchmarkLastPass is what a pod is frozen for: 256 MiB in 2000 files, of
// which a few have changed.
func BenchmarkLastPass(b *testing.B) {
	c := newCarry(b)
	content := make([]byte, 128<<10)
	for i := range content {
		content[i] = byte(i*31 + i>>8)
	}
	for i := range 2000 {
		must(b, os.MkdirAll(fmt.Sprintf("%s/%d", c.source, i%20), 0o755))
		write(b, fmt.Sprintf("%s/%d/%d", c.source, i%20, i), content, 0o600)
	}
	time.Sleep(2 * settleTime)
	c.pass(false)
	c.pass(false)
	c.warm()
	var restoring time.Duration
	for b.Loop() {
		b.StopTimer()
		for i := range 10 {
			write(b, fmt.Sprintf("%s/%d/%d", c.source, i, i), content[:len(content)-i], 0o600)
		}
		b.StartTimer()
		c.pass(true)
		digest, err := c.writer.Seal(b.Context())
		must(b, err)
		b.StopTimer()
		start := time.Now()
		_, err = c.reader.RestoreSealed(b.Context(), digest, nil)
		must(b, err)
		restoring += time.Since(start)
		b.StartTimer()
	}
	b.ReportMetric(restoring.Seconds()*1000/float64(b.N), "restore-ms/op")
}
