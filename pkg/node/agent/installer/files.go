package installer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	securejoin "github.com/cyphar/filepath-securejoin"

	"github.com/ai-storage/orchestrator/pkg/node/atomicfile"
)

// root is the node's root directory, as the agent reaches it. Links on the way are
// those of the node.
type root string

func (r root) path(path string) (string, error) { return securejoin.SecureJoin(string(r), path) }

// read returns nil when there is no such file.
func (r root) read(path string) ([]byte, error) {
	at, err := r.path(path)
	if err != nil {
		return nil, err
	}
	content, err := os.ReadFile(at)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return content, err
}

// write puts a file in its place in one step, and on the disk.
func (r root) write(path string, content []byte, mode fs.FileMode) error {
	at, err := r.path(path)
	if err != nil {
		return err
	}
	return atomicfile.WriteDurably(at, bytes.NewReader(content), mode)
}

// remove is content when the file is gone.
func (r root) remove(path string) error {
	at, err := r.path(path)
	if err == nil {
		err = os.Remove(at)
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil
	}
	return err
}

// missing are the directories that a file needs and that are not there, the innermost first.
func (r root) missing(file string) ([]string, error) {
	var directories []string
	for directory := filepath.Dir(file); directory != "/"; directory = filepath.Dir(directory) {
		at, err := r.path(directory)
		if err != nil {
			return nil, err
		}
		if _, err := os.Stat(at); err == nil {
			break
		}
		directories = append(directories, directory)
	}
	return directories, nil
}

func (r root) makeDirectory(path string) error {
	at, err := r.path(path)
	if err != nil {
		return err
	}
	return os.MkdirAll(at, 0o755)
}

// record remembers on the node what the installer made there.
type record struct {
	// DropIn and Program are paths of the node; empty when nothing was made.
	DropIn  string `json:"dropIn,omitempty"`
	Program string `json:"program,omitempty"`
	// Directories were made for them, the innermost first.
	Directories []string `json:"directories,omitempty"`
	// Refused is a drop-in that containerd did not come back with, and Why.
	Refused []byte `json:"refused,omitempty"`
	Why     string `json:"why,omitempty"`
}

func (i *Installer) load() (*record, error) {
	content, err := os.ReadFile(i.recordFile)
	if errors.Is(err, fs.ErrNotExist) {
		return &record{}, nil
	}
	if err != nil {
		return nil, err
	}
	r := &record{}
	if err := json.Unmarshal(content, r); err != nil {
		return nil, fmt.Errorf("%s, which records what was installed: %w", i.recordFile, err)
	}
	return r, nil
}

// save removes the record when there is nothing to remember.
func (i *Installer) save(r *record) error {
	content, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if bytes.Equal(content, []byte("{}")) {
		if err := os.Remove(i.recordFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(i.recordFile), 0o755); err != nil {
		return err
	}
	return atomicfile.WriteDurably(i.recordFile, bytes.NewReader(content), 0o600)
}
