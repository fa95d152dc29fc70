package integration

import (
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/config/load"
)

// Every sample is one that the API server takes, without a field that it does
// not know, or a configuration that both programs start with.
func TestSamples(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(repository, "config", "samples", "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%d samples, %v", len(files), err)
	}
	strict := client.WithFieldValidation(k8s, "Strict")
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			if strings.HasPrefix(filepath.Base(file), "scheduler-configuration") {
				if _, err := load.File(file); err != nil {
					t.Error(err)
				}
				return
			}
			for _, object := range readManifests(t, filepath.Join("..", "config", "samples", filepath.Base(file))) {
				if err := strict.Create(t.Context(), object, client.DryRunAll); err != nil {
					t.Errorf("%s %s: %v", object.GetKind(), object.GetName(), err)
				}
			}
		})
	}
}
