package main

import (
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// krewPlugin is what krew reads (krew.googlecontainertools.github.com/v1alpha2).
type krewPlugin struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Name string `json:"name"`
	} `json:"metadata"`
	Spec struct {
		Version          string `json:"version"`
		Homepage         string `json:"homepage"`
		ShortDescription string `json:"shortDescription"`
		Description      string `json:"description"`
		Caveats          string `json:"caveats"`
		Platforms        []struct {
			Selector struct {
				MatchLabels map[string]string `json:"matchLabels"`
			} `json:"selector"`
			URI    string `json:"uri"`
			Sha256 string `json:"sha256"`
			Bin    string `json:"bin"`
		} `json:"platforms"`
	} `json:"spec"`
}

func TestKrewManifest(t *testing.T) {
	template, err := os.ReadFile("krew.yaml")
	if err != nil {
		t.Fatal(err)
	}
	script, err := os.ReadFile("krew.sh")
	if err != nil {
		t.Fatal(err)
	}
	plugin := krewPlugin{}
	if err := yaml.UnmarshalStrict(template, &plugin); err != nil {
		t.Fatal(err)
	}
	if plugin.APIVersion != "krew.googlecontainertools.github.com/v1alpha2" || plugin.Kind != "Plugin" || plugin.Metadata.Name != "migrate" || plugin.Spec.Version != "VERSION" {
		t.Errorf("%+v", plugin)
	}
	// krew's limit for one line of its listing.
	if len(plugin.Spec.ShortDescription) > 50 || strings.HasSuffix(plugin.Spec.ShortDescription, ".") {
		t.Errorf("the short description is too long, or a sentence: %q", plugin.Spec.ShortDescription)
	}
	var found []string
	for _, p := range plugin.Spec.Platforms {
		system, arch := p.Selector.MatchLabels["os"], p.Selector.MatchLabels["arch"]
		found = append(found, system+"/"+arch)
		if want := "kubectl-migrate_VERSION_" + system + "_" + arch + ".tar.gz"; !strings.HasSuffix(p.URI, "/VERSION/"+want) {
			t.Errorf("uri %s does not end in %s", p.URI, want)
		}
		if want := "SHA256_" + system + "_" + arch; p.Sha256 != want {
			t.Errorf("sha256 %s, want %s for krew.sh to fill in", p.Sha256, want)
		}
		if isExe := strings.HasSuffix(p.Bin, ".exe"); isExe != (system == "windows") || !strings.HasPrefix(p.Bin, "kubectl-migrate") {
			t.Errorf("bin %s for %s", p.Bin, system)
		}
	}
	built := strings.Fields(regexp.MustCompile(`for platform in (.*); do`).FindStringSubmatch(string(script))[1])
	if !slices.Equal(found, built) || len(found) != 6 {
		t.Errorf("the manifest has %v, krew.sh builds %v", found, built)
	}
}

func TestKrewScriptWantsAVersion(t *testing.T) {
	for _, version := range []string{"", "1.2.3", "v1.2", "latest"} {
		out, err := exec.Command("./krew.sh", version, t.TempDir()).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "must look like v1.2.3") {
			t.Errorf("%q: %v, %s", version, err, out)
		}
	}
}
