// Command images builds the container images of the product for a cluster of
// one's own, as OCI archives, without Docker.
package main

import (
	"fmt"
	"os"

	"github.com/spf13/pflag"

	"github.com/ai-storage/orchestrator/test/devcluster/image"
)

func main() {
	binDirs := pflag.StringSlice("bin-dir", []string{"bin"}, "directory of the binaries of one architecture; can be repeated")
	output := pflag.String("output", "dist", "directory for the archives")
	pflag.Parse()
	archives, err := image.BuildIndexes(*binDirs, *output)
	for _, archive := range archives {
		fmt.Println(archive)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}
