// Command oci-runtime stands between containerd and runc: a container that the
// node agent has left a checkpoint for is restored instead of created. See
// docs/process-checkpoint.md.
package main

import (
	"os"

	"github.com/ai-storage/orchestrator/pkg/node/ociruntime"
)

func main() {
	runtime, err := ociruntime.New()
	status := 1
	if err == nil {
		status, err = runtime.Run(os.Args[1:])
	}
	if err != nil {
		_, _ = os.Stderr.WriteString("oci-runtime: " + err.Error() + "\n")
	}
	os.Exit(status)
}
