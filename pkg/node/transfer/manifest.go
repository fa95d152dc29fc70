package transfer

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// A manifest is the sequence of the records of all volumes, in their order, each behind
// its length. Its digest is the SHA-256 of that.
//
// In the state directory it is a file that is read and written from its begin to its end,
// never held in memory: about 100 bytes for a name, 33 more for 4 MiB of content. There
// each record is followed by the signature of the file that it was made from.

const (
	stateMagic = "transfer-manifest-1\n"
	// stateFile is complete: a writer works on a file beside it.
	stateFile = "manifest"
	// maxRecord is what a record can have in bytes: its path twice, attributes, digests.
	maxRecord = 2*maxPath + 2*maxXattrs + maxChunks*(sha256.Size+12) + 1024
	// signatureSize is that of a signature in a state file.
	signatureSize = 20
)

// manifestWriter writes a manifest to a state file.
type manifestWriter struct {
	file    *os.File
	to      *bufio.Writer
	digest  hash.Hash
	origin  string
	scratch []byte
	entries int64
	check   sequence
}

// createManifest begins a file in the state directory.
func createManifest(directory, origin string) (*manifestWriter, error) {
	file, err := os.CreateTemp(directory, "."+stateFile+".*")
	if err != nil {
		return nil, err
	}
	w := &manifestWriter{file: file, origin: origin, to: bufio.NewWriterSize(file, 256<<10), digest: sha256.New()}
	if _, err := w.to.WriteString(stateMagic + origin + "\n"); err != nil {
		return nil, errors.Join(err, w.discard())
	}
	return w, nil
}

// add writes a record. It fails for one that is not in order.
func (w *manifestWriter) add(r *record, s signature) error {
	w.scratch = appendRecord(w.scratch[:0], r)
	return w.addEncoded(w.scratch, r, s)
}

func (w *manifestWriter) addEncoded(encoded []byte, r *record, s signature) error {
	if err := w.check.next(r); err != nil {
		return err
	}
	return w.append(encoded, s)
}

// append writes a record that was checked.
func (w *manifestWriter) append(encoded []byte, s signature) error {
	w.entries++
	var head [binary.MaxVarintLen64]byte
	prefix := head[:binary.PutUvarint(head[:], uint64(len(encoded)))]
	w.digest.Write(prefix)
	w.digest.Write(encoded)
	var tail [signatureSize]byte
	binary.BigEndian.PutUint64(tail[:], s.ino)
	binary.BigEndian.PutUint64(tail[8:], uint64(s.sec))
	binary.BigEndian.PutUint32(tail[16:], s.nsec)
	for _, b := range [][]byte{prefix, encoded, tail[:]} {
		if _, err := w.to.Write(b); err != nil {
			return w.explain(err)
		}
	}
	return nil
}

// finish completes the file, to be read by openManifest. A temporary one has no name.
func (w *manifestWriter) finish(directory string) (*manifest, error) {
	m := &manifest{entries: w.entries, origin: w.origin, digest: hex.EncodeToString(w.digest.Sum(nil))}
	err := w.to.WriteByte(0) // a record has a length
	if err == nil {
		err = w.explain(w.to.Flush())
	}
	if err == nil {
		m.path = filepath.Join(directory, stateFile)
		err = os.Rename(w.file.Name(), m.path)
	}
	if err != nil {
		return nil, errors.Join(err, w.discard())
	}
	return m, w.file.Close()
}

// explain says what is full while the unfinished file takes its space.
func (w *manifestWriter) explain(err error) error {
	return explainSpace(int(w.file.Fd()), "the state directory "+filepath.Dir(w.file.Name()), err)
}

func (w *manifestWriter) discard() error {
	return errors.Join(w.file.Close(), os.Remove(w.file.Name()))
}

// manifest is a complete one in a state directory.
type manifest struct {
	path    string
	entries int64
	// digest is in hexadecimal digits.
	digest string
	// origin names the boot of the node, after which its disk may have something older,
	// and the hash of the chunks.
	origin string
}

// loadManifest finds the manifest of an earlier process; nil where there is none that
// could be read to its end.
func loadManifest(directory string) (*manifest, error) {
	m := &manifest{path: filepath.Join(directory, stateFile)}
	reader, err := m.open()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer reader.close()
	digest := sha256.New()
	for {
		r, err := reader.next()
		if err != nil {
			return nil, nil // of another version, or a disk was full: it is only a help
		}
		if r == nil {
			break
		}
		var head [binary.MaxVarintLen64]byte
		digest.Write(head[:binary.PutUvarint(head[:], uint64(len(reader.raw)))])
		digest.Write(reader.raw)
		m.entries++
	}
	m.digest, m.origin = hex.EncodeToString(digest.Sum(nil)), reader.origin
	return m, nil
}

func (m *manifest) open() (*manifestReader, error) {
	file, err := os.Open(m.path)
	if err != nil {
		return nil, err
	}
	r := &manifestReader{file: file, from: bufio.NewReaderSize(file, 256<<10)}
	magic, err := r.from.ReadString('\n')
	if err == nil {
		r.origin, err = r.from.ReadString('\n')
	}
	if err != nil || magic != stateMagic {
		return nil, errors.Join(failure(ReasonCorrupt, "%s is no manifest of this version", m.path), file.Close())
	}
	r.origin = strings.TrimSuffix(r.origin, "\n")
	return r, nil
}

// manifestReader reads a state file. The record that peek returns is valid until next.
type manifestReader struct {
	file   *os.File
	from   *bufio.Reader
	origin string
	// raw is the encoded form of the record that was read last, sig its signature.
	raw    []byte
	sig    signature
	peeked *record
	ended  bool
}

// peek returns the next record without reading past it; nil at the end.
func (r *manifestReader) peek() (*record, error) {
	if r.peeked != nil || r.ended {
		return r.peeked, nil
	}
	size, err := binary.ReadUvarint(r.from)
	if err != nil {
		return nil, failure(ReasonCorrupt, "a manifest is cut off: %w", err)
	}
	if size == 0 {
		r.ended = true
		return nil, nil
	}
	if r.raw, err = readSized(r.from, r.raw, size); err != nil {
		return nil, err
	}
	var tail [signatureSize]byte
	if _, err := io.ReadFull(r.from, tail[:]); err != nil {
		return nil, failure(ReasonCorrupt, "a manifest is cut off: %w", err)
	}
	r.sig = signature{ino: binary.BigEndian.Uint64(tail[:]), sec: int64(binary.BigEndian.Uint64(tail[8:])), nsec: binary.BigEndian.Uint32(tail[16:])}
	if r.peeked, err = decodeRecord(r.raw); err != nil {
		return nil, err
	}
	return r.peeked, nil
}

func (r *manifestReader) next() (*record, error) {
	record, err := r.peek()
	r.peeked = nil
	return record, err
}

func (r *manifestReader) close() error { return r.file.Close() }

// readSized reads size bytes, at most maxRecord, into a buffer that grows as they come:
// a size that is a lie costs nothing.
func readSized(from io.Reader, buffer []byte, size uint64) ([]byte, error) {
	if size > maxRecord {
		return nil, failure(ReasonTooLarge, "a record has %d bytes, at most %d can be carried", size, maxRecord)
	}
	buffer = buffer[:0]
	for uint64(len(buffer)) < size {
		n := min(int(size)-len(buffer), 64<<10)
		buffer = append(buffer, make([]byte, n)...)
		if _, err := io.ReadFull(from, buffer[len(buffer)-n:]); err != nil {
			return nil, failure(ReasonCorrupt, "a manifest is cut off: %w", err)
		}
	}
	return buffer, nil
}

// importManifest reads records from another side, checks that they are a manifest of
// these volumes, and gives those that known has in the same form their signature.
func importManifest(from io.Reader, directory, origin string, known *manifestReader) (*manifest, error) {
	to, err := createManifest(directory, origin)
	if err != nil {
		return nil, err
	}
	if err := copyRecords(from, to, known); err != nil {
		return nil, errors.Join(err, to.discard())
	}
	return to.finish(directory)
}

func copyRecords(from io.Reader, to *manifestWriter, known *manifestReader) error {
	source := bufio.NewReaderSize(io.LimitReader(from, maxManifest), 64<<10)
	match := matcher{known: known}
	var raw []byte
	for {
		size, err := binary.ReadUvarint(source)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if size == 0 {
			return failure(ReasonCorrupt, "a record is empty")
		}
		if raw, err = readSized(source, raw, size); err != nil {
			return err
		}
		r, err := decodeRecord(raw)
		if err != nil {
			return err
		}
		sig, err := match.find(r, raw)
		if err != nil {
			return err
		}
		if err := to.addEncoded(raw, r, sig); err != nil {
			return err
		}
	}
}

// matcher finds the signatures of records that are known.
type matcher struct {
	known *manifestReader
	// volume is where known is.
	volume string
}

func (m *matcher) find(r *record, raw []byte) (signature, error) {
	for m.known != nil {
		k, err := m.known.peek()
		if err != nil {
			return signature{}, err
		}
		if k == nil {
			return signature{}, nil
		}
		if r.kind == kindVolume {
			// All before it are of volumes before.
			if k.kind == kindVolume && k.path >= r.path {
				if k.path == r.path {
					m.volume = k.path
					_, err = m.known.next()
				}
				return signature{}, err
			}
		} else if k.kind == kindVolume || comparePaths(k.path, r.path) > 0 {
			return signature{}, nil
		} else if k.path == r.path {
			found := signature{}
			if bytes.Equal(m.known.raw, raw) {
				found = m.known.sig
			}
			_, err = m.known.next()
			return found, err
		}
		if _, err := m.known.next(); err != nil {
			return signature{}, err
		}
	}
	return signature{}, nil
}

// sequence checks that records come in their order, below directories that came before.
type sequence struct {
	inVolume, hasRoot bool
	volume, last      string
	// directories are those that the last path is in, and itself if it is one.
	directories []string
	entries     int64
}

func (s *sequence) next(r *record) error {
	if s.entries++; s.entries > maxEntries {
		return failure(ReasonTooLarge, "there are more than %d files and directories, which is as many as can be carried", maxEntries)
	}
	if r.kind == kindVolume {
		if s.inVolume && r.path <= s.volume {
			return failure(ReasonCorrupt, "volume %q comes after %q", r.path, s.volume)
		}
		s.inVolume, s.hasRoot, s.volume, s.last, s.directories = true, false, r.path, "", s.directories[:0]
		return nil
	}
	switch {
	case !s.inVolume:
		return failure(ReasonCorrupt, "%q is in no volume", r.path)
	case r.path == "" && s.hasRoot, r.path != "" && !s.hasRoot, r.path != "" && comparePaths(r.path, s.last) <= 0:
		return failure(ReasonCorrupt, "%q comes after %q", r.path, s.last)
	}
	if r.path != "" {
		for len(s.directories) > 0 && !isBelow(r.path, s.directories[len(s.directories)-1]) {
			s.directories = s.directories[:len(s.directories)-1]
		}
		if parent, _ := splitPath(r.path); len(s.directories) == 0 || s.directories[len(s.directories)-1] != parent {
			return failure(ReasonCorrupt, "%q is in no directory that came before", r.path)
		}
	}
	s.hasRoot, s.last = true, r.path
	if r.kind == kindDir {
		s.directories = append(s.directories, r.path)
	}
	return nil
}

// copyRest appends the records of a manifest that come after the last one of another,
// but not what is in a name that is no directory any more. volume is the one that the
// reader is in.
func copyRest(base *manifestReader, volume string, next *manifestWriter) error {
	last := next.check
	isDirectory := len(last.directories) > 0 && last.directories[len(last.directories)-1] == last.last
	for {
		r, err := base.next()
		if err != nil || r == nil {
			return err
		}
		isNext := !last.inVolume
		if r.kind == kindVolume {
			volume = r.path
			isNext = isNext || volume > last.volume
		} else {
			isNext = isNext || volume > last.volume || volume == last.volume &&
				(!last.hasRoot || comparePaths(r.path, last.last) > 0 && (isDirectory || !isBelow(r.path, last.last)))
		}
		if !isNext {
			continue
		}
		if err := next.addEncoded(base.raw, r, base.sig); err != nil {
			return err
		}
	}
}
