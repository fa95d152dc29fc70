package checkpoint

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"
)

const (
	manifestName = "manifest.json"
	volumesName  = "volumes"
	// format changes when an older program could not read a manifest.
	format = 1
	// maxManifest bounds what is read into memory: the claim may have been
	// tampered with. It is enough for about three million files.
	maxManifest = 1 << 30
)

type entryType string

const (
	typeDir     entryType = "dir"
	typeFile    entryType = "file"
	typeSymlink entryType = "symlink"
	typeFIFO    entryType = "fifo"
	// typeWhiteout hides a name of a lower layer; only in a Layer.
	typeWhiteout entryType = "whiteout"
	// typeLink is another name of a file that comes before.
	typeLink entryType = "link"
)

// manifest describes one complete pass.
type manifest struct {
	Format    int              `json:"format"`
	Migration types.UID        `json:"migration"`
	Pass      int32            `json:"pass"`
	Sealed    bool             `json:"sealed,omitempty"`
	Volumes   []volumeManifest `json:"volumes"`
}

type volumeManifest struct {
	Name string `json:"name"`
	// Entries are in the order of their paths, directories before what is in them.
	Entries []entry `json:"entries"`
}

// entry is one name in a volume. Names and link targets are bytes: file names
// need not be text.
type entry struct {
	Path []byte    `json:"path"`
	Type entryType `json:"type"`
	// Mode has permissions, set-user-ID, set-group-ID and sticky bits.
	Mode    uint32            `json:"mode,omitempty"`
	UID     uint32            `json:"uid"`
	GID     uint32            `json:"gid"`
	Seconds int64             `json:"mtime"`
	Nanos   int64             `json:"mtimeNanos,omitempty"`
	Size    int64             `json:"size,omitempty"`
	Link    []byte            `json:"link,omitempty"`
	Xattrs  map[string][]byte `json:"xattrs,omitempty"`
	// Chunks are the SHA-256 of every chunkSize bytes; an empty one is a hole.
	Chunks [][]byte `json:"chunks,omitempty"`
}

func (e *entry) name() string { return string(e.Path) }

func (m *manifest) volume(name string) *volumeManifest {
	for i := range m.Volumes {
		if m.Volumes[i].Name == name {
			return &m.Volumes[i]
		}
	}
	return nil
}

// writeManifest replaces the manifest as a whole, durably, and returns its digest.
func (d disk) writeManifest(claim *os.Root, m *manifest) (digest string, err error) {
	content, err := json.Marshal(m)
	if err != nil {
		return "", err
	}
	directory := string(m.Migration)
	unfinished := path.Join(directory, manifestName+".unfinished")
	if err := d.writeDurably(claim, unfinished, content); err != nil {
		return "", fmt.Errorf("writing the manifest: %w", err)
	}
	final := path.Join(directory, manifestName)
	if stat, err := lstat(claim, final); err == nil && stat.Mode&unix.S_IFMT == unix.S_IFDIR {
		// By a container that sees the claim: no file takes the place of a directory.
		if err := claim.RemoveAll(final); err != nil {
			return "", fmt.Errorf("writing the manifest: %w", err)
		}
	}
	if err := claim.Rename(unfinished, final); err != nil {
		return "", fmt.Errorf("writing the manifest: %w", err)
	}
	if err := d.syncAll(claim, []string{directory}); err != nil {
		return "", fmt.Errorf("writing the manifest: %w", err)
	}
	return digestOf(content), nil
}

func (d disk) writeDurably(root *os.Root, name string, content []byte) error {
	if err := root.RemoveAll(name); err != nil {
		return err
	}
	file, _, err := openRegular(root, name, os.O_CREATE|os.O_WRONLY|os.O_TRUNC)
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	if err == nil {
		err = d.sync(file)
	}
	return errors.Join(err, file.Close())
}

// readManifest reads the last complete manifest and its digest.
func readManifest(claim *os.Root, migration types.UID) (*manifest, string, error) {
	file, _, err := openRegular(claim, path.Join(string(migration), manifestName), os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, "", failure(ReasonNoManifest, "no complete pass of migration %s is on the claim", migration)
	}
	if err != nil {
		return nil, "", fmt.Errorf("reading the manifest: %w", err)
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, maxManifest))
	if err != nil {
		return nil, "", fmt.Errorf("reading the manifest: %w", err)
	}
	m := &manifest{}
	if err := json.Unmarshal(content, m); err != nil {
		return nil, "", failure(ReasonCorrupt, "the manifest cannot be read: %w", err)
	}
	if m.Format != format || m.Migration != migration {
		return nil, "", failure(ReasonCorrupt, "the manifest has format %d and is of migration %s, want format %d of migration %s", m.Format, m.Migration, format, migration)
	}
	return m, digestOf(content), nil
}

func digestOf(content []byte) string {
	sum := sha256.Sum256(content)
	return "sha256:" + hex.EncodeToString(sum[:])
}
