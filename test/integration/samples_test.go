package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/config/load"
)

// Every sample is one that the API server takes, without a field that it does
// not know, or a configuration that both programs start with.
func TestSamples(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(repository, "config", "samples", "*"))
	if err != nil || len(files) < 5 {
		t.Fatalf("%d samples, %v", len(files), err)
	}
	strict := client.WithFieldValidation(k8s, "Strict")
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if filepath.Ext(file) != ".yaml" || !strings.HasPrefix(string(content), "# ") {
				t.Error("a sample is YAML that begins by telling what it is for")
			}
			if strings.HasPrefix(filepath.Base(file), "scheduler-configuration") {
				if _, err := load.File(file); err != nil {
					t.Error(err)
				}
				return
			}
			objects := readManifests(t, filepath.Join("..", "config", "samples", filepath.Base(file)))
			if len(objects) == 0 {
				t.Error("no object in it")
			}
			for _, object := range objects {
				if err := strict.Create(t.Context(), object, client.DryRunAll); err != nil {
					t.Errorf("%s %s: %v", object.GetKind(), object.GetName(), err)
				}
			}
		})
	}
}
