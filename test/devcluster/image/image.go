package image

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Contents is what an image is made of.
type Contents struct {
	// Binaries maps absolute paths in the image to static binaries on disk.
	Binaries map[string]string
	// Entrypoint is the program and its first arguments.
	Entrypoint []string
	// User is a uid or uid:gid; empty means root.
	User string
}

// Build writes an archive with one image that runs as root. See Contents.Write.
func Build(archivePath, reference string, binaries map[string]string, entrypoint []string) error {
	return Contents{Binaries: binaries, Entrypoint: entrypoint}.Write(archivePath, reference)
}

// Write writes the image to an archive that ctr, docker, podman, kind and
// others can load. The reference needs its registry and tag, like
// docker.io/ai-storage/workload:dev: container runtimes assume nothing. The
// archive appears complete or not at all.
func (c Contents) Write(archivePath, reference string) error {
	tag, err := name.NewTag(reference, name.StrictValidation)
	if err != nil {
		return fmt.Errorf("build image %s: %w", reference, err)
	}
	built, err := c.build()
	if err != nil {
		return fmt.Errorf("build image %s: %w", reference, err)
	}
	if err := os.MkdirAll(filepath.Dir(archivePath), 0o755); err != nil {
		return fmt.Errorf("build image %s: %w", reference, err)
	}
	unfinished, err := os.CreateTemp(filepath.Dir(archivePath), filepath.Base(archivePath)+".*")
	if err != nil {
		return fmt.Errorf("build image %s: %w", reference, err)
	}
	defer os.Remove(unfinished.Name())
	err = tarball.Write(tag, built, unfinished)
	if closeErr := unfinished.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Chmod(unfinished.Name(), 0o644)
	}
	if err == nil {
		err = os.Rename(unfinished.Name(), archivePath)
	}
	if err != nil {
		return fmt.Errorf("write image %s: %w", reference, err)
	}
	return nil
}

func (c Contents) build() (v1.Image, error) {
	architecture, err := c.architecture()
	if err != nil {
		return nil, err
	}
	layerTar, err := c.layer()
	if err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(layerTar)), nil
	}, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, err
	}
	base := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	base = mutate.ConfigMediaType(base, types.OCIConfigJSON)
	withLayer, err := mutate.Append(base, mutate.Addendum{
		Layer:   layer,
		History: v1.History{CreatedBy: "static binaries", Created: v1.Time{Time: epoch}},
	})
	if err != nil {
		return nil, err
	}
	config, err := withLayer.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.Architecture, config.OS = architecture, "linux"
	config.Created = v1.Time{Time: epoch}
	config.Config = v1.Config{Entrypoint: c.Entrypoint, User: c.User, WorkingDir: "/", Env: []string{"PATH=/"}}
	return mutate.ConfigFile(withLayer, config)
}

// epoch is the time of everything in an image, so that it follows from the
// binaries alone.
var epoch = time.Unix(0, 0).UTC()

// layer is a tar of the binaries and the directories above them.
func (c Contents) layer() ([]byte, error) {
	var out bytes.Buffer
	writer := tar.NewWriter(&out)
	for _, directory := range c.directories() {
		header := &tar.Header{Typeflag: tar.TypeDir, Name: directory + "/", Mode: 0o755, ModTime: epoch}
		if err := writer.WriteHeader(header); err != nil {
			return nil, err
		}
	}
	for _, inside := range c.paths() {
		content, err := os.ReadFile(c.Binaries[inside])
		if err != nil {
			return nil, err
		}
		header := &tar.Header{
			Typeflag: tar.TypeReg, Name: strings.TrimPrefix(inside, "/"),
			Size: int64(len(content)), Mode: 0o755, ModTime: epoch,
		}
		if err := writer.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := writer.Write(content); err != nil {
			return nil, err
		}
	}
	if err := writer.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func (c Contents) paths() []string {
	paths := make([]string, 0, len(c.Binaries))
	for inside := range c.Binaries {
		paths = append(paths, inside)
	}
	sort.Strings(paths)
	return paths
}

// directories lists the directories above the binaries, outer ones first.
func (c Contents) directories() []string {
	seen := map[string]bool{}
	var directories []string
	for inside := range c.Binaries {
		for directory := path.Dir(inside); directory != "/" && directory != "."; directory = path.Dir(directory) {
			if !seen[directory] {
				seen[directory] = true
				directories = append(directories, strings.TrimPrefix(directory, "/"))
			}
		}
	}
	sort.Strings(directories)
	return directories
}

// goArchitectures names what images may be for, in the words of Go and OCI.
var goArchitectures = map[elf.Machine]string{
	elf.EM_X86_64:  "amd64",
	elf.EM_AARCH64: "arm64",
	elf.EM_PPC64:   "ppc64le",
	elf.EM_S390:    "s390x",
	elf.EM_RISCV:   "riscv64",
}

// architecture checks that all binaries are static and for the same kind of
// machine: an image without a loader could not run others, and would say so
// only with "no such file".
func (c Contents) architecture() (string, error) {
	if len(c.Binaries) == 0 {
		return "", fmt.Errorf("no binary")
	}
	var architecture string
	for _, inside := range c.paths() {
		if !path.IsAbs(inside) || path.Clean(inside) != inside {
			return "", fmt.Errorf("%q is not a clean absolute path", inside)
		}
		found, err := staticArchitecture(c.Binaries[inside])
		if err != nil {
			return "", err
		}
		if architecture != "" && architecture != found {
			return "", fmt.Errorf("binaries for %s and for %s in one image", architecture, found)
		}
		architecture = found
	}
	return architecture, nil
}

func staticArchitecture(binary string) (string, error) {
	file, err := elf.Open(binary)
	if err != nil {
		return "", fmt.Errorf("%s is no Linux binary: %w", binary, err)
	}
	defer file.Close()
	for _, segment := range file.Progs {
		if segment.Type == elf.PT_INTERP {
			return "", fmt.Errorf("%s is not static: build it with CGO_ENABLED=0", binary)
		}
	}
	architecture, known := goArchitectures[file.Machine]
	if !known {
		return "", fmt.Errorf("%s is for %s, which is not supported", binary, file.Machine)
	}
	return architecture, nil
}
