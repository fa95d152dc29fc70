package checkpoint

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/ai-storage/orchestrator/internal/skip"
)

const testUID = "0b1c2d3e-0000-4000-8000-000000000001"

// snapshot describes a tree by means of the standard library alone.
func snapshot(t testing.TB, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	inodes := map[uint64][]string{}
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := os.Lstat(path)
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		stat := info.Sys().(*syscall.Stat_t)
		line := fmt.Sprintf("%v %d:%d %d", info.Mode(), stat.Uid, stat.Gid, info.ModTime().UnixNano())
		switch {
		case info.Mode().IsRegular():
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %d %x", info.Size(), sha256.Sum256(content))
			if stat.Nlink > 1 {
				inodes[stat.Ino] = append(inodes[stat.Ino], name)
			}
			line += attributes(t, path)
		case info.IsDir():
			line += attributes(t, path)
		case info.Mode()&fs.ModeSymlink != 0:
			link, err := os.Readlink(path)
			if err != nil {
				return err
			}
			line += " -> " + link
		}
		all[name] = line
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, names := range inodes {
		sort.Strings(names)
		for _, name := range names {
			all[name] += fmt.Sprintf(" linked %q", names)
		}
	}
	return all
}

func attributes(t testing.TB, path string) string {
	t.Helper()
	buffer := make([]byte, 4096)
	n, err := unix.Listxattr(path, buffer)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for name := range strings.SplitSeq(strings.Trim(string(buffer[:n]), "\x00"), "\x00") {
		if name == "" {
			continue
		}
		value := make([]byte, 4096)
		n, err := unix.Getxattr(path, name, value)
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, fmt.Sprintf("%s=%x", name, value[:n]))
	}
	sort.Strings(lines)
	return " " + strings.Join(lines, ",")
}

// carry copies one volume through a claim and wants it to arrive as it was.
type carry struct {
	t                  testing.TB
	source, claim, end string
	layer, transient   bool
	writer             *Writer
	reader             *Reader
}

func newCarry(t testing.TB) *carry {
	t.Helper()
	skip.WithoutRoot(t, "it creates files of other owners")
	c := &carry{t: t, source: t.TempDir(), claim: t.TempDir(), end: t.TempDir()}
	c.reopen()
	t.Cleanup(func() { c.writer.Close(); c.reader.Close() })
	return c
}

// reopen forgets everything that is in memory, as a restarted agent does.
func (c *carry) reopen() {
	c.t.Helper()
	if c.writer != nil {
		c.writer.Close()
		c.reader.Close()
	}
	var err error
	if c.writer, err = OpenWriter(c.claim, testUID, []Volume{{Name: "data", Dir: c.source, Layer: c.layer, Transient: c.transient}}); err != nil {
		c.t.Fatal(err)
	}
	if c.reader, err = OpenReader(c.claim, testUID, []Volume{{Name: "data", Dir: c.end, Layer: c.layer, Transient: c.transient}}); err != nil {
		c.t.Fatal(err)
	}
}

func (c *carry) pass(still bool) PassResult {
	c.t.Helper()
	result, err := c.writer.Pass(c.t.Context(), still, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	return result
}

func (c *carry) warm() {
	c.t.Helper()
	if _, err := c.reader.Restore(c.t.Context(), nil); err != nil {
		c.t.Fatal(err)
	}
}

func (c *carry) finish() PassResult {
	c.t.Helper()
	c.pass(true)
	digest, err := c.writer.Seal(c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	result, err := c.reader.RestoreSealed(c.t.Context(), digest, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	if diff := cmp.Diff(snapshot(c.t, c.source), snapshot(c.t, c.end)); diff != "" {
		c.t.Errorf("not as it was (-source +restored):\n%s", diff)
	}
	return result
}

func write(t testing.TB, path string, content []byte, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestEveryKindOfFileArrives(t *testing.T) {
	big := bytes.Repeat([]byte("0123456789abcdef"), 2*chunkSize/16+5)
	tests := map[string]func(t *testing.T, dir string){
		"nothing":        func(*testing.T, string) {},
		"an empty file":  func(t *testing.T, dir string) { write(t, dir+"/f", nil, 0o644) },
		"several chunks": func(t *testing.T, dir string) { write(t, dir+"/f", big, 0o640) },
		"an exact chunk": func(t *testing.T, dir string) { write(t, dir+"/f", big[:chunkSize], 0o640) },
		"no permissions": func(t *testing.T, dir string) { write(t, dir+"/f", big[:10], 0) },
		"set-user-ID, owner": func(t *testing.T, dir string) {
			write(t, dir+"/f", big[:10], 0)
			must(t, os.Chown(dir+"/f", 1000, 2000))
			must(t, os.Chmod(dir+"/f", 0o4755|os.ModeSetuid))
		},
		"empty directories, sticky": func(t *testing.T, dir string) {
			must(t, os.MkdirAll(dir+"/a/b/c", 0o700))
			must(t, os.Chmod(dir+"/a/b", 0o777|os.ModeSticky))
			must(t, os.Chown(dir+"/a", 1, 2))
		},
		"the volume's own directory": func(t *testing.T, dir string) {
			must(t, os.Chmod(dir, 0o2770|os.ModeSetgid))
			must(t, os.Chown(dir, 5, 6))
		},
		"old time": func(t *testing.T, dir string) {
			write(t, dir+"/f", big[:9], 0o600)
			must(t, unix.UtimesNano(dir+"/f", []unix.Timespec{{Sec: 5}, {Sec: 12345, Nsec: 678}}))
		},
		"symbolic links": func(t *testing.T, dir string) {
			for name, target := range map[string]string{"dangling": "nowhere", "absolute": "/etc/passwd", "out": "../../etc", "loop": "loop", "directory": "d"} {
				must(t, os.Symlink(target, filepath.Join(dir, name)))
			}
			must(t, os.Mkdir(dir+"/d", 0o755))
			must(t, os.Lchown(dir+"/dangling", 3, 4))
		},
		"hard links": func(t *testing.T, dir string) {
			must(t, os.MkdirAll(dir+"/a", 0o755))
			must(t, os.MkdirAll(dir+"/b", 0o755))
			write(t, dir+"/b/first", big[:100], 0o600)
			must(t, os.Link(dir+"/b/first", dir+"/a/second"))
			must(t, os.Link(dir+"/b/first", dir+"/third"))
		},
		"odd names": func(t *testing.T, dir string) {
			for _, name := range []string{" ", "new\nline", "\xff\xfe", "-rf", "ünï", strings.Repeat("x", 255), "..data", "a\\b", "\x01"} {
				write(t, filepath.Join(dir, name), []byte(name), 0o600)
			}
		},
		"attributes": func(t *testing.T, dir string) {
			write(t, dir+"/f", big[:10], 0o700)
			must(t, os.Mkdir(dir+"/d", 0o755))
			must(t, unix.Setxattr(dir+"/d", "user.note", []byte("a\x00b"), 0))
			must(t, unix.Setxattr(dir+"/f", "user.empty", nil, 0))
			// cap_net_bind_service=ep (linux/capability.h, VFS_CAP_REVISION_2)
			must(t, unix.Setxattr(dir+"/f", "security.capability", []byte{1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 0))
		},
		"a FIFO": func(t *testing.T, dir string) {
			must(t, unix.Mkfifo(dir+"/pipe", 0o620))
			must(t, os.Chmod(dir+"/pipe", 0o620))
		},
	}
	for name, fill := range tests {
		t.Run(name, func(t *testing.T) {
			c := newCarry(t)
			fill(t, c.source)
			c.pass(false)
			c.warm()
			c.finish()
			// Once more from nothing in memory, into what is already there.
			c.reopen()
			c.finish()
		})
	}
}

func TestALayerArrivesWithWhatItHides(t *testing.T) {
	c := newCarry(t)
	c.layer = true
	must(t, unix.Mknod(c.source+"/gone", unix.S_IFCHR, 0))
	must(t, os.Mkdir(c.source+"/emptied", 0o750))
	must(t, unix.Setxattr(c.source+"/emptied", overlayOpaque, []byte("y"), 0))
	must(t, unix.Setxattr(c.source+"/emptied", "trusted.overlay.origin", []byte("of this node"), 0))
	write(t, c.source+"/emptied/new", []byte("content"), 0o600)
	write(t, c.source+"/later", nil, 0o600)
	c.reopen()
	c.pass(false)
	c.warm()
	must(t, os.Remove(c.source+"/later"))
	must(t, unix.Mknod(c.source+"/later", unix.S_IFCHR, 0))
	must(t, unix.Removexattr(c.source+"/emptied", "trusted.overlay.origin"))
	c.finish()

	must(t, unix.Setxattr(c.source+"/emptied", "trusted.overlay.redirect", []byte("/elsewhere"), 0))
	if _, err := c.writer.Pass(t.Context(), false, nil); ReasonOf(err) != ReasonUnsupportedFile {
		t.Errorf("error %v, want %s: what is elsewhere would be missing", err, ReasonUnsupportedFile)
	}
}

func TestHolesStayHoles(t *testing.T) {
	c := newCarry(t)
	file, err := os.Create(c.source + "/sparse")
	must(t, err)
	must(t, file.Truncate(64<<20))
	_, err = file.WriteAt([]byte("data"), 10<<20)
	must(t, err)
	_, err = file.WriteAt(bytes.Repeat([]byte{7}, 8192), 20<<20+4096)
	must(t, err)
	must(t, file.Close())
	c.finish()
	for _, dir := range []string{c.end, filepath.Join(c.claim, testUID, "volumes/data")} {
		info, err := os.Stat(dir + "/sparse")
		must(t, err)
		if used := info.Sys().(*syscall.Stat_t).Blocks * 512; used > 64<<10 {
			t.Errorf("the file takes %d bytes in %s, want its holes kept", used, dir)
		}
	}
}

func TestSocketsAreLeftAndDevicesRefused(t *testing.T) {
	c := newCarry(t)
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	must(t, err)
	defer unix.Close(fd)
	must(t, unix.Bind(fd, &unix.SockaddrUnix{Name: c.source + "/socket"}))
	if result := c.pass(false); result.Skipped != 1 {
		t.Errorf("%d sockets are reported, want 1", result.Skipped)
	}
	must(t, unix.Mknod(c.source+"/null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	_, err = c.writer.Pass(t.Context(), false, nil)
	if ReasonOf(err) != ReasonUnsupportedFile || !strings.Contains(err.Error(), "null") {
		t.Errorf("error %v, want %s naming the file", err, ReasonUnsupportedFile)
	}
}
