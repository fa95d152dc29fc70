package transfer

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// Restore makes the volumes of a destination equal to a sealed copy whose manifest has
// this digest, in hexadecimal digits, and to nothing else. It is a transfer, from the
// copy: what is there already is not written again. Nothing of a manifest with another
// digest is believed. state is a directory of this restoration alone.
//
// ReasonCorrupt says that the copy is not what was sealed, or not complete.
func Restore(ctx context.Context, from Copy, digest, state string, to *Destination) (PassResult, error) {
	s, err := abandonable(ctx, func() (*Source, error) { return openCopySource(from, digest, state, to) }, func(s *Source) {
		if s != nil {
			_ = s.Close()
		}
	})
	if err != nil {
		return PassResult{}, fmt.Errorf("opening the sealed copy: %w", err)
	}
	defer s.Close()
	return passLocally(ctx, s, to)
}

// passLocally makes the last pass of a source to a destination in the same process.
func passLocally(ctx context.Context, from *Source, to *Destination) (PassResult, error) {
	ours, theirs := net.Pipe()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	served := make(chan error, 1)
	go func() {
		c, stop := connect(ctx, theirs, receiveBuffers, nil)
		defer stop()
		served <- receiveHello(ctx, c, func(Hello) (*Destination, error) { return to, nil })
	}()
	result, err := PassResult{}, from.Connect(ctx, ours)
	if err == nil {
		result, err = from.Pass(ctx, PassOptions{Frozen: true, Last: true})
	}
	cancel()
	serveErr := briefly(func() error { return <-served })
	if err != nil && ReasonOf(serveErr) != ReasonDisconnected && !errors.Is(serveErr, context.Canceled) {
		err = errors.Join(serveErr, err)
	}
	return result, err
}

// copySource is a sealed copy that is read.
type copySource struct {
	fd       int
	manifest *manifest
	marks    []string
	names    []string
}

func (c *copySource) closeAll() error {
	if c == nil {
		return nil
	}
	return unix.Close(c.fd)
}

// openCopySource reads the manifest of a copy, if it has the digest.
func openCopySource(from Copy, digest, state string, to *Destination) (*Source, error) {
	s, err := newSource(SourceConfig{Migration: to.config.Migration, State: state})
	if err != nil {
		return nil, err
	}
	fd, err := openRoot(from.Root, from.Path)
	if err != nil {
		s.release()
		return nil, err
	}
	s.copy = &copySource{fd: fd, marks: volumeMarks(to.volumes)}
	for _, v := range to.volumes {
		s.copy.names = append(s.copy.names, v.Name)
	}
	if s.copy.manifest, err = readSealedManifest(fd, digest, joinPath(state, "sealed"), originOf(s.boot, plainHash)); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func readSealedManifest(copyFD int, digest, state, origin string) (*manifest, error) {
	if _, err := prepareState(state); err != nil {
		return nil, err
	}
	var stat unix.Stat_t
	fd, err := openRegular(copyFD, copyManifest, unix.O_RDONLY, &stat)
	if isGone(err) {
		return nil, failure(ReasonCorrupt, "there is no manifest: the copy is not complete: %w", err)
	}
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), copyManifest)
	defer file.Close()
	// First the digest: nothing that it does not vouch for is interpreted.
	sum := sha256.New()
	if _, err := io.Copy(sum, io.LimitReader(file, maxManifest)); err != nil {
		return nil, err
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != digest {
		return nil, failure(ReasonCorrupt, "the manifest of the copy has digest %s, want %s", got, digest)
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	m, err := importManifest(file, state, origin, nil)
	if err == nil && m.digest != digest {
		err = failure(ReasonCorrupt, "the manifest of the copy changed while it was read")
	}
	return m, err
}

// plan plans all volumes from the manifest.
func (c *copySource) plan(p *planner) error {
	r, err := c.manifest.open()
	if err != nil {
		return err
	}
	defer r.close()
	volumes, err := openDirectory(c.fd, copyVolumes)
	if err != nil {
		return notSealed(err)
	}
	defer unix.Close(volumes)
	reading := copyReading{planner: p}
	defer reading.close()
	for number := 0; ; {
		rec, err := r.next()
		if err != nil {
			return err
		}
		if rec == nil {
			if number != len(c.names) {
				return failure(ReasonCorrupt, "the copy has %d volumes, want %d", number, len(c.names))
			}
			return p.endVolume()
		}
		if rec.kind != kindVolume {
			if err := reading.visit(rec); err != nil {
				return fmt.Errorf("%q: %w", rec.path, err)
			}
			continue
		}
		if number >= len(c.names) || c.names[number] != rec.path {
			return failure(ReasonCorrupt, "the copy has a volume %q, want %q", rec.path, c.names)
		}
		if number > 0 {
			if err := p.endVolume(); err != nil {
				return err
			}
		}
		number++
		if err := reading.begin(volumes, rec.path); err != nil {
			return err
		}
	}
}

// copyReading plans one volume of a copy.
type copyReading struct {
	*planner
	volume openVolume
	root   int
	// directory is the one that was opened last.
	directory *directory
}

func (c *copyReading) begin(volumes int, name string) error {
	c.close()
	root, err := openDirectory(volumes, name)
	if err != nil {
		return notSealed(err)
	}
	c.root = root
	c.volume = openVolume{Volume: Volume{Name: name}, fd: root}
	return c.beginVolume(&c.volume)
}

func (c *copyReading) close() {
	if c.directory != nil {
		c.directory.release()
		c.directory = nil
	}
	if c.volume.Name != "" {
		unix.Close(c.root)
		c.volume.Name = ""
	}
}

// in returns the directory of a path, open.
func (c *copyReading) in(path string) (*directory, error) {
	if c.directory != nil && c.directory.path == path {
		return c.directory, nil
	}
	fd, err := openPath(c.root, path)
	if err != nil {
		return nil, err
	}
	if c.directory != nil {
		c.directory.release()
	}
	c.directory = newDirectory(fd, path)
	return c.directory, nil
}

func (c *copyReading) visit(r *record) error {
	base, _, err := c.find(r.path)
	if err != nil {
		return err
	}
	i := &item{rec: r, base: base, volume: &c.volume}
	if r.kind != kindDir || base != nil && base.kind != kindDir {
		if err := c.dropBelow(r.path); err != nil {
			return err
		}
	}
	if base != nil && base.equal(r) {
		i.op = opSame
		return c.put(i)
	}
	if !r.kind.hasContent() {
		i.op = opPut
		return c.put(i)
	}
	parent, name := splitPath(r.path)
	d, err := c.in(parent)
	if err != nil {
		return notSealed(err)
	}
	i.name = name
	if r.size <= smallFile {
		i.op, i.directory, i.sealed, i.ready = opSmall, d.hold(), r, make(chan struct{})
		i.cost = r.size + 1024
		if err := c.budget.acquire(c.ctx, i.cost); err != nil {
			i.directory.release()
			return err
		}
		return c.put(i)
	}
	file := &openFile{sealed: r}
	if file.fd, err = openRegular(d.fd, name, unix.O_RDONLY, &file.stat); err != nil {
		return notSealed(err)
	}
	file.users.Store(1)
	if file.stat.Size != r.size {
		file.release()
		return failure(ReasonCorrupt, "its content in the sealed copy has %d bytes, want %d", file.stat.Size, r.size)
	}
	file.sparse = file.stat.Blocks*512 < file.stat.Size
	return c.sendLarge(i, file)
}

func notSealed(err error) error {
	if isGone(err) {
		return failure(ReasonCorrupt, "its content is not in the sealed copy: %w", err)
	}
	return err
}
