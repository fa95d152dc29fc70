package image

import (
	"archive/tar"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

const reference = "docker.io/ai-storage/hello:dev"

// staticBinary builds the smallest real program.
func staticBinary(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	source := filepath.Join(dir, "main.go")
	if err := os.WriteFile(source, []byte("package main\n\nfunc main() { println(1) }\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(dir, "hello")
	command := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", binary, source)
	command.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=arm64", "GOFLAGS=", "GO111MODULE=off")
	if output, err := command.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	return binary
}

func TestWrite(t *testing.T) {
	binary := staticBinary(t)
	contents := Contents{
		Binaries:   map[string]string{"/hello": binary, "/usr/bin/hello": binary},
		Entrypoint: []string{"/hello", "world"},
		User:       "65532:65532",
	}
	archive := filepath.Join(t.TempDir(), "made", "hello.tar")
	if err := contents.Write(archive, reference); err != nil {
		t.Fatal(err)
	}
	tag, err := name.NewTag(reference)
	if err != nil {
		t.Fatal(err)
	}
	image, err := tarball.ImageFromPath(archive, &tag)
	if err != nil {
		t.Fatal(err)
	}
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	type facts struct {
		Architecture, OS, User string
		Entrypoint             []string
	}
	got := facts{config.Architecture, config.OS, config.Config.User, config.Config.Entrypoint}
	want := facts{"arm64", "linux", "65532:65532", []string{"/hello", "world"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
	layers, err := image.Layers()
	if err != nil || len(layers) != 1 {
		t.Fatalf("%d layers, error %v", len(layers), err)
	}
	reader, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	want2 := []string{"usr/ 755", "usr/bin/ 755", "hello 755", "usr/bin/hello 755"}
	if diff := cmp.Diff(want2, listing(t, reader)); diff != "" {
		t.Errorf("layer (-want +got):\n%s", diff)
	}
}

func listing(t *testing.T, layer io.Reader) []string {
	t.Helper()
	var files []string
	for reader := tar.NewReader(layer); ; {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if !header.ModTime.Equal(epoch) || header.Uid != 0 {
			t.Errorf("%s is of %s and user %d", header.Name, header.ModTime, header.Uid)
		}
		files = append(files, header.Name+" "+map[int64]string{0o755: "755"}[header.Mode])
	}
}

func TestWriteIsReproducible(t *testing.T) {
	binary := staticBinary(t)
	var archives [2][]byte
	for i := range archives {
		copied := filepath.Join(t.TempDir(), "copy")
		content, err := os.ReadFile(binary)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(copied, content, 0o700); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "hello.tar")
		if err := Build(path, reference, map[string]string{"/hello": copied}, []string{"/hello"}); err != nil {
			t.Fatal(err)
		}
		if archives[i], err = os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
	}
	if string(archives[0]) != string(archives[1]) {
		t.Error("the same binary gave two different archives")
	}
}

func TestWriteRefuses(t *testing.T) {
	binary := staticBinary(t)
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, reference string
		binaries        map[string]string
	}{
		{"a reference without registry", "ai-storage/hello:dev", map[string]string{"/hello": binary}},
		{"a reference without tag", "docker.io/ai-storage/hello", map[string]string{"/hello": binary}},
		{"no binary", reference, nil},
		{"a relative path", reference, map[string]string{"hello": binary}},
		{"a path with dots", reference, map[string]string{"/a/../hello": binary}},
		{"a missing binary", reference, map[string]string{"/hello": binary + "-missing"}},
		{"a script", reference, map[string]string{"/hello": script}},
		{"a dynamic binary", reference, map[string]string{"/sh": "/bin/sh"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			archive := filepath.Join(t.TempDir(), "hello.tar")
			if err := Build(archive, test.reference, test.binaries, []string{"/hello"}); err == nil {
				t.Error("no error")
			}
			if left, _ := filepath.Glob(archive + "*"); len(left) > 0 {
				t.Errorf("%q are left", left)
			}
		})
	}
}

func TestBuildLocalNeedsItsPrograms(t *testing.T) {
	if _, err := BuildLocal(t.TempDir(), t.TempDir()); err == nil {
		t.Error("no error without the workload binary")
	}
}
