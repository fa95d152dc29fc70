// Command rootimage puts a root directory, as a tar, into a container image of one
// layer: rootimage -layer root.tar -reference docker.io/x/y:dev -archive y.tar.
// test/devcluster/image knows static programs only, as all of ours are.
package main

import (
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// searchPath is where Debian keeps programs; PostgreSQL's have a directory of their own.
const searchPath = "PATH=/usr/lib/postgresql/15/bin:/usr/sbin:/usr/bin:/sbin:/bin"

func main() {
	layer := flag.String("layer", "", "tar of the root directory")
	reference := flag.String("reference", "", "name of the image, with registry and tag")
	archive := flag.String("archive", "", "file to write")
	flag.Parse()
	if err := build(*layer, *reference, *archive); err != nil {
		fmt.Fprintln(os.Stderr, "rootimage:", err)
		os.Exit(1)
	}
}

func build(layerPath, reference, archive string) error {
	tag, err := name.NewTag(reference, name.StrictValidation)
	if err != nil {
		return err
	}
	layer, err := tarball.LayerFromFile(layerPath, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return fmt.Errorf("reading layer %s: %w", layerPath, err)
	}
	base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	created := v1.Time{Time: time.Unix(0, 0).UTC()} // so that the image follows from its content
	withLayer, err := mutate.Append(base, mutate.Addendum{Layer: layer, History: v1.History{CreatedBy: "Debian packages", Created: created}})
	if err != nil {
		return err
	}
	config, err := withLayer.ConfigFile()
	if err != nil {
		return err
	}
	config = config.DeepCopy()
	config.Architecture, config.OS, config.Created = "amd64", "linux", created
	config.Config = v1.Config{WorkingDir: "/", Env: []string{searchPath, "LC_ALL=C"}}
	built, err := mutate.ConfigFile(withLayer, config)
	if err != nil {
		return err
	}
	// Complete or not at all: make takes what is there for done.
	if err := tarball.WriteToFile(archive+".new", tag, built); err != nil {
		return fmt.Errorf("writing %s: %w", archive, err)
	}
	return os.Rename(archive+".new", archive)
}
