package documents

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/ai-storage/orchestrator/pkg/apis/config/load"
	configv1 "github.com/ai-storage/orchestrator/pkg/apis/config/v1"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

var (
	yamlBlock    = regexp.MustCompile("(?ms)^```ya?ml\n(.*?)^```$")
	documentMark = regexp.MustCompile(`(?m)^---\n`)
)

// checkExample parses an example as strictly as the program that reads it. Of
// other kinds only the syntax is looked at.
func checkExample(text string) (ours bool, err error) {
	var kind struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
	}
	if err := yaml.Unmarshal([]byte(text), &kind); err != nil {
		return false, err
	}
	switch kind.APIVersion + " " + kind.Kind {
	case "migration.ai-storage/v1alpha1 PodMigration":
		migration := &v1alpha1.PodMigration{}
		if err := yaml.UnmarshalStrict([]byte(text), migration); err != nil {
			return true, err
		}
		if migration.Name == "" || migration.Spec.PodName == "" {
			return true, fmt.Errorf("no name, or no spec.podName")
		}
		return true, nil
	case "kubescheduler.config.k8s.io/v1 KubeSchedulerConfiguration":
		_, err := load.Bytes([]byte(text))
		return true, err
	case "kubescheduler.config.k8s.io/v1 RebalanceArgs":
		return true, yaml.UnmarshalStrict([]byte(text), &configv1.RebalanceArgs{})
	case "kubescheduler.config.k8s.io/v1 CheckpointVolumeArgs":
		return true, yaml.UnmarshalStrict([]byte(text), &configv1.CheckpointVolumeArgs{})
	}
	if strings.HasPrefix(kind.APIVersion, "migration.ai-storage/") {
		return true, fmt.Errorf("%s of %s is not a kind of ours", kind.Kind, kind.APIVersion)
	}
	return false, nil
}

func TestExamplesParse(t *testing.T) {
	found := 0
	for path, page := range pages(t) {
		for _, block := range yamlBlock.FindAllStringSubmatch(page, -1) {
			for _, text := range documentMark.Split(block[1], -1) {
				ours, err := checkExample(text)
				if err != nil {
					t.Errorf("%s: %v in\n%s", path, err, text)
				}
				if ours {
					found++
				}
			}
		}
	}
	if found < 2 { // README.md, configuration.md
		t.Errorf("only %d examples of our kinds", found)
	}
}

// The integration tests give the samples to a real API server; this one needs none.
func TestSamplesParse(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(repository, "config", "samples", "*.yaml"))
	if err != nil || len(files) < 5 {
		t.Fatalf("%d samples, %v", len(files), err)
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range documentMark.Split(string(content), -1) {
			if _, err := checkExample(text); err != nil {
				t.Errorf("%s: %v", filepath.Base(file), err)
			}
		}
	}
}

func TestTheCheckOfExamplesCanFail(t *testing.T) {
	migration := "apiVersion: migration.ai-storage/v1alpha1\nkind: PodMigration\nmetadata: {name: a}\nspec: {podName: b}\n"
	if ours, err := checkExample(migration); !ours || err != nil {
		t.Errorf("a good example: %t, %v", ours, err)
	}
	for name, text := range map[string]string{
		"unknown field":  strings.Replace(migration, "podName: b", "podName: b, target: c", 1),
		"wrong type":     strings.Replace(migration, "podName: b", "podName: b, timeoutSeconds: soon", 1),
		"no pod":         strings.Replace(migration, "podName: b", "targetNode: c", 1),
		"unknown kind":   strings.Replace(migration, "PodMigration", "PodMove", 1),
		"no YAML":        "a: [b",
		"no profile":     "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n",
		"wrong argument": "apiVersion: kubescheduler.config.k8s.io/v1\nkind: RebalanceArgs\nintervall: 30s\n",
	} {
		if _, err := checkExample(text); err == nil {
			t.Errorf("%s is not noticed", name)
		}
	}
}
