package transfer

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// treeMaker makes and changes trees at random.
type treeMaker struct {
	t    testing.TB
	r    *rand.Rand
	root string
	n    int
	// large is the size that files seldom exceed.
	large int64
}

func newTreeMaker(t testing.TB, seed uint64, root string) *treeMaker {
	return &treeMaker{t: t, r: rand.New(rand.NewPCG(seed, 1)), root: root, large: 9 << 20}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (m *treeMaker) name() string {
	m.n++
	prefix := []string{"f", "a-", "z.", "with space ", "new\nline", "\xff\xfe", "ü", strings.Repeat("n", 200), "..."}[m.r.IntN(9)]
	return fmt.Sprintf("%s%d", prefix, m.r.IntN(1000)+1000*m.n)
}

func (m *treeMaker) all(want func(fs.DirEntry) bool) []string {
	var found []string
	must(m.t, filepath.WalkDir(m.root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && want(d) {
			found = append(found, path)
		}
		return err
	}))
	return found
}

func (m *treeMaker) pick(want func(fs.DirEntry) bool) string {
	all := m.all(want)
	if len(all) == 0 {
		return ""
	}
	return all[m.r.IntN(len(all))]
}

func (m *treeMaker) directory() string { return m.pick(fs.DirEntry.IsDir) }

func (m *treeMaker) regular() string {
	return m.pick(func(d fs.DirEntry) bool { return d.Type().IsRegular() })
}

func (m *treeMaker) size() int64 {
	edges := []int64{0, 1, blockSize - 1, blockSize, blockSize + 1, smallFile - 1, smallFile, smallFile + 1, chunkSize - 1, chunkSize, chunkSize + 1, 2 * chunkSize}
	switch m.r.IntN(12) {
	case 0:
		return edges[m.r.IntN(len(edges))]
	case 1:
		return m.r.Int64N(m.large)
	}
	return m.r.Int64N(20 << 10)
}

func (m *treeMaker) bytes(n int64) []byte {
	b := make([]byte, n)
	for i := 0; i < len(b); i += 1 + m.r.IntN(64) {
		b[i] = byte(m.r.Uint32())
	}
	for range m.r.IntN(3) { // blocks of zeros within data
		at := m.r.Int64N(n + 1)
		clear(b[at:min(n, at+m.r.Int64N(3*blockSize+1))])
	}
	return b
}

func (m *treeMaker) makeFile(path string) {
	if m.r.IntN(10) == 0 {
		file, err := os.Create(path)
		must(m.t, err)
		defer file.Close()
		must(m.t, file.Truncate(m.r.Int64N(1<<40)))
		for range m.r.IntN(4) {
			_, err := file.WriteAt(m.bytes(m.r.Int64N(10000)), m.r.Int64N(1<<30))
			must(m.t, err)
		}
		return
	}
	must(m.t, os.WriteFile(path, m.bytes(m.size()), 0o600))
}

// add makes something new.
func (m *treeMaker) add() {
	path := filepath.Join(m.directory(), m.name())
	switch m.r.IntN(12) {
	case 0, 1, 2:
		must(m.t, os.Mkdir(path, 0o755))
	case 3:
		must(m.t, os.Symlink([]string{"/etc/passwd", "..", "nowhere", strings.Repeat("x/", 500), "\xff"}[m.r.IntN(5)], path))
	case 4:
		must(m.t, unix.Mkfifo(path, 0o640))
	case 5:
		if from := m.regular(); from != "" {
			must(m.t, os.Link(from, path))
		}
	default:
		m.makeFile(path)
	}
	if m.r.IntN(3) == 0 {
		m.touch(path)
	}
}

// touch changes metadata.
func (m *treeMaker) touch(path string) {
	info, err := os.Lstat(path)
	if err != nil {
		return
	}
	must(m.t, os.Lchown(path, m.r.IntN(3000), m.r.IntN(3000)))
	if info.Mode()&fs.ModeSymlink == 0 {
		must(m.t, unix.Chmod(path, uint32(m.r.IntN(0o10000))))
	}
	if info.Mode().IsRegular() || info.IsDir() {
		name := fmt.Sprintf("user.a%d", m.r.IntN(3))
		if m.r.IntN(3) == 0 {
			_ = unix.Removexattr(path, name)
		} else {
			must(m.t, unix.Setxattr(path, name, m.bytes(m.r.Int64N(300)), 0))
		}
		if m.r.IntN(4) == 0 && info.Mode().IsRegular() {
			must(m.t, unix.Setxattr(path, "security.capability", []byte{1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 0))
		}
	}
	if m.r.IntN(2) == 0 {
		when := []unix.Timespec{{Sec: m.r.Int64N(1 << 31)}, {Sec: m.r.Int64N(1 << 31), Nsec: m.r.Int64N(1e9)}}
		must(m.t, unix.UtimesNanoAt(unix.AT_FDCWD, path, when, unix.AT_SYMLINK_NOFOLLOW))
	}
}

// change changes something, or a few things.
func (m *treeMaker) change() {
	isNotRoot := func(d fs.DirEntry) bool { return d.Name() != filepath.Base(m.root) }
	path := m.pick(isNotRoot)
	if path == "" {
		m.add()
		return
	}
	switch m.r.IntN(9) {
	case 0, 1:
		m.add()
	case 2:
		must(m.t, os.RemoveAll(path))
	case 3:
		to := filepath.Join(m.directory(), m.name())
		if !strings.HasPrefix(to, path+"/") {
			must(m.t, os.Rename(path, to))
		}
	case 4:
		m.touch(path)
	case 5: // another kind under the same name
		must(m.t, os.RemoveAll(path))
		switch m.r.IntN(3) {
		case 0:
			must(m.t, os.Mkdir(path, 0o700))
		case 1:
			must(m.t, os.Symlink("x", path))
		default:
			m.makeFile(path)
		}
	default:
		m.write()
	}
}

// write changes the content of a file.
func (m *treeMaker) write() {
	path := m.regular()
	if path == "" {
		return
	}
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	must(m.t, err)
	defer file.Close()
	info, err := file.Stat()
	must(m.t, err)
	switch m.r.IntN(4) {
	case 0:
		must(m.t, file.Truncate(m.size()))
	case 1:
		must(m.t, punch(int(file.Fd()), m.r.Int64N(info.Size()+1), 1+m.r.Int64N(100000)))
	default:
		_, err := file.WriteAt(m.bytes(m.r.Int64N(5000)), m.r.Int64N(min(info.Size(), m.large)+1))
		must(m.t, err)
	}
}

// describeTree lists what is in a directory, by means of its own: other code than that
// under test.
func describeTree(t testing.TB, root string) map[string]string {
	t.Helper()
	all := map[string]string{}
	first := map[uint64]string{}
	var paths []string
	must(t, filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		paths = append(paths, path)
		return err
	}))
	slices.Sort(paths)
	for _, path := range paths {
		var stat unix.Stat_t
		must(t, unix.Lstat(path, &stat))
		name := strings.TrimPrefix(path, root)
		line := fmt.Sprintf("mode %o owner %d:%d time %d.%09d", stat.Mode, stat.Uid, stat.Gid, stat.Mtim.Sec, stat.Mtim.Nsec)
		switch stat.Mode & unix.S_IFMT {
		case unix.S_IFSOCK:
			continue
		case unix.S_IFLNK:
			target, err := os.Readlink(path)
			must(t, err)
			line += fmt.Sprintf(" to %q", target)
		case unix.S_IFCHR:
			line += fmt.Sprintf(" device %d", stat.Rdev)
		case unix.S_IFREG:
			line += describeContent(t, path, stat.Size) + describeXattrs(t, path)
			if stat.Nlink > 1 {
				if first[stat.Ino] == "" {
					first[stat.Ino] = name
				}
				line += fmt.Sprintf(" is %q", first[stat.Ino])
			}
		case unix.S_IFDIR:
			line += describeXattrs(t, path)
		}
		all[name] = line
	}
	return all
}

// describeContent has, for each block that is not zero, a checksum, and says of what is
// zero whether it takes space.
func describeContent(t testing.TB, path string, size int64) string {
	file, err := os.Open(path)
	must(t, err)
	defer file.Close()
	var b strings.Builder
	fmt.Fprintf(&b, " size %d", size)
	block := make([]byte, blockSize)
	for at := int64(0); at < size; {
		data, err := unix.Seek(int(file.Fd()), at, unix.SEEK_DATA)
		if err != nil {
			break
		}
		at = data / blockSize * blockSize
		n, _ := file.ReadAt(block, at)
		if sum := fnv(block[:n]); sum != fnv(make([]byte, n)) {
			fmt.Fprintf(&b, " %d:%x", at/blockSize, sum)
		}
		at += blockSize
	}
	return b.String()
}

func fnv(b []byte) uint64 {
	h := uint64(14695981039346656037)
	for _, c := range b {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return h
}

func describeXattrs(t testing.TB, path string) string {
	buffer := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, buffer)
	must(t, err)
	names := strings.FieldsFunc(string(buffer[:n]), func(r rune) bool { return r == 0 })
	slices.Sort(names)
	var b strings.Builder
	for _, name := range names {
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(path, name, value)
		must(t, err)
		fmt.Fprintf(&b, " %s=%x", name, fnv(value[:n]))
	}
	return b.String()
}

// allocated is what the files of a directory take on the disk.
func allocated(t testing.TB, root string) (bytes int64) {
	t.Helper()
	must(t, filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		var stat unix.Stat_t
		must(t, unix.Lstat(path, &stat))
		bytes += stat.Blocks * 512
		return err
	}))
	return bytes
}

func compareTrees(t testing.TB, want, got string) {
	t.Helper()
	a, b := describeTree(t, want), describeTree(t, got)
	differences := 0
	for path, line := range a {
		if b[path] != line {
			if differences++; differences < 5 {
				t.Errorf("%q: got\n%.600s, want\n%.600s", path, b[path], line)
			}
		}
	}
	for path, line := range b {
		if _, there := a[path]; !there {
			if differences++; differences < 5 {
				t.Errorf("%q is there: %.300s", path, line)
			}
		}
	}
	if differences > 0 {
		t.Fatalf("%d differences", differences)
	}
}
