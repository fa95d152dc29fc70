package realnode

import (
	"bytes"
	"embed"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"text/template"

	"github.com/ai-storage/orchestrator/pkg/node/ociruntime"
	"github.com/ai-storage/orchestrator/test/devcluster/image"
)

//go:embed templates
var templateFiles embed.FS

var templates = template.Must(template.New("").
	// Go's quoting is valid in TOML, JSON and YAML for all that a path can hold.
	Funcs(template.FuncMap{"quote": strconv.Quote}).
	ParseFS(templateFiles, "templates/*.tmpl"))

// settings is what the configuration files of one node are made from.
type settings struct {
	Node, Dir, BinDir, Bridge string
	NodeIP, Subnet            string
	ClientCAFile              string
	Hierarchies               []nodeHierarchy
	Reserved                  reservation
	WithoutHandler            bool
}

// CarriesProcesses reports whether containerd gets the wrapper of runc, which has
// to have been built.
func (s settings) CarriesProcesses() bool {
	if s.WithoutHandler {
		return false
	}
	_, err := os.Stat(filepath.Join(s.BinDir, ociruntime.Program))
	return err == nil
}

func (settings) KubeletRoot() string      { return kubeletRoot }
func (settings) CNICache() string         { return cniCache }
func (settings) AgentState() string       { return agentState }
func (settings) AgentPrograms() string    { return agentPrograms }
func (settings) ReadyMark() string        { return readyMark }
func (settings) ContainerdSocket() string { return containerdSocket }
func (settings) CNIPlugins() string       { return cniPlugins }
func (settings) PauseImage() string       { return image.PauseReference }
func (settings) EvictionMemory() string   { return strconv.FormatInt(evictionMemory, 10) }

// configFiles are the node's files, by their path in its directory.
var configFiles = map[string]string{
	"namespaces.sh":     "namespaces.sh.tmpl",
	"enter.sh":          "enter.sh.tmpl",
	"containerd.toml":   "containerd.toml.tmpl",
	"cni/node.conflist": "cni.conflist.tmpl",
	"kubelet.yaml":      "kubelet.yaml.tmpl",
}

func (s settings) render(templateName string) ([]byte, error) {
	var out bytes.Buffer
	if err := templates.ExecuteTemplate(&out, templateName, s); err != nil {
		return nil, fmt.Errorf("render %s: %w", templateName, err)
	}
	return out.Bytes(), nil
}

func (s settings) write() error {
	for path, templateName := range configFiles {
		content, err := s.render(templateName)
		if err != nil {
			return err
		}
		path = filepath.Join(s.Dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			return err
		}
	}
	return nil
}
