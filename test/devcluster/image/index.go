package image

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
)

// BuildIndexes writes the images of our programs for several architectures, one
// OCI archive a program, and returns the paths of the archives. Each directory of
// binDirs has the programs for one architecture.
func BuildIndexes(binDirs []string, outDir string) ([]string, error) {
	var archives []string
	for _, e := range productEntries {
		archive := filepath.Join(outDir, e.archive)
		if err := e.writeIndex(binDirs, archive); err != nil {
			return archives, fmt.Errorf("build image %s: %w", e.reference, err)
		}
		archives = append(archives, archive)
	}
	return archives, nil
}

func (e entry) writeIndex(binDirs []string, archive string) error {
	tag, err := name.NewTag(e.reference, name.StrictValidation)
	if err != nil {
		return err
	}
	index := v1.ImageIndex(empty.Index)
	seen := map[string]bool{}
	for _, binDir := range binDirs {
		contents := e.contents(binDir)
		architecture, err := contents.architecture()
		if err != nil {
			return err
		}
		if seen[architecture] {
			return fmt.Errorf("%s is for %s, as a directory before it", binDir, architecture)
		}
		seen[architecture] = true
		built, err := contents.build()
		if err != nil {
			return err
		}
		platform := &v1.Platform{OS: "linux", Architecture: architecture}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: built, Descriptor: v1.Descriptor{Platform: platform}})
	}
	if err := os.MkdirAll(filepath.Dir(archive), 0o755); err != nil {
		return err
	}
	// Beside the archive: it holds as much.
	directory, err := os.MkdirTemp(filepath.Dir(archive), "layout-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(directory)
	written, err := layout.Write(directory, empty.Index)
	if err != nil {
		return err
	}
	// By the first, containerd names an image that it imports; by the second, others do.
	names := map[string]string{"io.containerd.image.name": e.reference, "org.opencontainers.image.ref.name": tag.TagStr()}
	if err := written.AppendIndex(index, layout.WithAnnotations(names)); err != nil {
		return err
	}
	return tarDirectory(directory, archive)
}

// tarDirectory writes a tar of a directory, in order and without times and owners. It
// appears complete or not at all.
func tarDirectory(directory, archive string) error {
	unfinished, err := os.CreateTemp(filepath.Dir(archive), filepath.Base(archive)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(unfinished.Name())
	writer := tar.NewWriter(unfinished)
	err = filepath.WalkDir(directory, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == directory {
			return err
		}
		return addToTar(writer, directory, path, entry)
	})
	if err := errors.Join(err, writer.Close(), unfinished.Chmod(0o644), unfinished.Close()); err != nil {
		return err
	}
	return os.Rename(unfinished.Name(), archive)
}

func addToTar(writer *tar.Writer, directory, path string, entry fs.DirEntry) error {
	relative, err := filepath.Rel(directory, path)
	if err != nil {
		return err
	}
	if entry.IsDir() {
		return writer.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: relative + "/", Mode: 0o755, ModTime: epoch})
	}
	info, err := entry.Info()
	if err != nil {
		return err
	}
	header := &tar.Header{Typeflag: tar.TypeReg, Name: relative, Size: info.Size(), Mode: 0o644, ModTime: epoch}
	if err := writer.WriteHeader(header); err != nil {
		return err
	}
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = io.Copy(writer, file)
	return err
}
