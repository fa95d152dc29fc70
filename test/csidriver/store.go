//go:build linux

package main

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	mebibyte    = int64(1) << 20
	smallest    = 16 * mebibyte
	defaultSize = 64 * mebibyte
)

// store keeps the volumes in a directory. Only the controller writes it.
type store struct{ directory string }

// volume is what is known of one.
type volume struct {
	ID       string `json:"id"`
	Capacity int64  `json:"capacity"`
	// Nodes are those that the volume is attached to, and Device the loop device
	// that it is there.
	Nodes  []string `json:"nodes,omitempty"`
	Device string   `json:"device,omitempty"`
}

// volumeID follows from the name that the provisioner asks for, so that asking
// twice gives one volume.
func volumeID(name string) string {
	return fmt.Sprintf("vol-%x", sha256.Sum256([]byte(name)))[:24]
}

func (s store) path(id string, elements ...string) string {
	return filepath.Join(append([]string{s.directory, "volumes", filepath.Base(id)}, elements...)...)
}

func (s store) image(id string) string { return s.path(id, "image.ext4") }

// read returns a gRPC NotFound for a volume that is not there.
func (s store) read(id string) (volume, error) {
	content, err := os.ReadFile(s.path(id, "volume.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return volume{}, status.Errorf(codes.NotFound, "volume %s is not there", id)
	}
	if err != nil {
		return volume{}, err
	}
	var v volume
	if err := json.Unmarshal(content, &v); err != nil {
		return volume{}, fmt.Errorf("volume %s: %w", id, err)
	}
	return v, nil
}

func (s store) write(v volume) error {
	content, err := json.Marshal(v)
	if err != nil {
		return err
	}
	path := s.path(v.ID, "volume.json")
	if err := os.WriteFile(path+".new", content, 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

func (s store) remove(id string) error { return os.RemoveAll(s.path(id)) }
