package image

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/v1/layout"
)

func TestBuildIndexes(t *testing.T) {
	source := filepath.Join(t.TempDir(), "main.go")
	if err := os.WriteFile(source, []byte("package main\n\nfunc main() { println(1) }\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	var directories []string
	for _, architecture := range []string{"amd64", "arm64"} {
		directory := filepath.Join(t.TempDir(), architecture)
		for _, e := range productEntries {
			for _, program := range e.programs() {
				command := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(directory, program), source)
				command.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+architecture, "GOFLAGS=", "GO111MODULE=off")
				if output, err := command.CombinedOutput(); err != nil {
					t.Fatalf("%v: %s", err, output)
				}
			}
		}
		directories = append(directories, directory)
	}
	archives, err := BuildIndexes(directories, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if len(archives) != len(productEntries) {
		t.Fatalf("%d archives, want %d", len(archives), len(productEntries))
	}
	for i, archive := range archives {
		unpacked := t.TempDir()
		if output, err := exec.Command("tar", "-xf", archive, "-C", unpacked).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, output)
		}
		// Only the node agent is root: it reads every pod's volumes.
		user := map[string]string{"scheduler.tar": nonRoot, "rebalancer.tar": nonRoot, "node-agent.tar": ""}[filepath.Base(archive)]
		want := []string{productEntries[i].reference, "linux/amd64 as " + user, "linux/arm64 as " + user}
		if diff := cmp.Diff(want, platforms(t, unpacked)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", archive, diff)
		}
	}
	_, err = BuildIndexes([]string{directories[0], directories[0]}, t.TempDir())
	if err == nil || !strings.Contains(err.Error(), "amd64, as a directory before it") {
		t.Errorf("one architecture twice: %v", err)
	}
}

// platforms reads an OCI layout as a registry would get it: the name of its one
// index, and for and as what each of its images runs.
func platforms(t *testing.T, directory string) []string {
	t.Helper()
	outer, err := layout.ImageIndexFromPath(directory)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := outer.IndexManifest()
	if err != nil || len(manifest.Manifests) != 1 {
		t.Fatalf("%d manifests, error %v", len(manifest.Manifests), err)
	}
	found := []string{manifest.Manifests[0].Annotations["io.containerd.image.name"]}
	index, err := outer.ImageIndex(manifest.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	inner, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	for _, image := range inner.Manifests {
		built, err := index.Image(image.Digest)
		if err != nil {
			t.Fatal(err)
		}
		config, err := built.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, image.Platform.String()+" as "+config.Config.User)
	}
	return found
}
