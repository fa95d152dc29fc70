package installer

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

const (
	// criPlugin is containerd's CRI plugin, since version 3 of the configuration
	// (github.com/containerd/containerd/v2/plugins/cri/runtime).
	criPlugin = "io.containerd.cri.v1.runtime"
	// runcShim is the only shim that calls runc, and so the wrapper.
	runcShim = "io.containerd.runc.v2"
	// minVersion of the configuration is that of containerd 2.0. Older ones replace
	// the whole section of a plugin by that of a drop-in.
	minVersion = 3

	header = "# Written by the node agent of the AI Storage Orchestrator, which takes it away\n" +
		"# again: see docs/process-checkpoint.md. The runtime runc with another program.\n"
)

// document is a configuration of containerd.
type document map[string]any

func parse(content []byte) (document, error) {
	d := document{}
	if err := toml.Unmarshal(content, &d); err != nil {
		return nil, fmt.Errorf("reading containerd's configuration: %w", err)
	}
	return d, nil
}

// table is the table at a path; nil when there is none.
func (d document) table(path ...string) map[string]any {
	table := map[string]any(d)
	for _, key := range path {
		table, _ = table[key].(map[string]any)
	}
	return table
}

func (d document) runtimes() map[string]any {
	return d.table("plugins", criPlugin, "containerd", "runtimes")
}

// importedDirectory is the first directory of which the main configuration at path
// imports every file that ends in .toml; with it where the drop-in belongs.
func importedDirectory(main document, path string) (string, error) {
	imports, _ := main["imports"].([]any)
	for _, one := range imports {
		pattern, _ := one.(string)
		if filepath.Base(pattern) != "*.toml" || strings.Contains(filepath.Dir(pattern), "*") {
			continue
		}
		if !filepath.IsAbs(pattern) {
			pattern = filepath.Join(filepath.Dir(path), pattern)
		}
		return filepath.Dir(pattern), nil
	}
	return "", fmt.Errorf(`%s imports no directory of drop-ins: put imports = ["/etc/containerd/conf.d/*.toml"] into it and restart containerd`, path)
}

// dropIn is the runtime runc of a configuration, as containerd itself sees it,
// under another name and with another program.
func dropIn(dump document, handler, program string) ([]byte, error) {
	version, _ := dump["version"].(int64)
	if version < minVersion {
		return nil, fmt.Errorf("containerd has configuration version %d, want 2.0 or later, which has %d", version, minVersion)
	}
	base, _ := dump.runtimes()["runc"].(map[string]any)
	if base == nil || base["runtime_type"] != runcShim {
		return nil, fmt.Errorf("containerd has no runtime runc of type %s to take the settings from", runcShim)
	}
	runtime := clone(base)
	options, _ := runtime["options"].(map[string]any)
	if options == nil {
		options = map[string]any{}
		runtime["options"] = options
	}
	options["BinaryName"] = program
	var out bytes.Buffer
	out.WriteString(header)
	encoder := toml.NewEncoder(&out)
	err := encoder.Encode(document{"version": version, "plugins": map[string]any{
		criPlugin: map[string]any{"containerd": map[string]any{"runtimes": map[string]any{handler: runtime}}},
	}})
	return out.Bytes(), err
}

func clone(table map[string]any) map[string]any {
	copied := make(map[string]any, len(table))
	for key, value := range table {
		if inner, is := value.(map[string]any); is {
			value = clone(inner)
		}
		copied[key] = value
	}
	return copied
}

// without is the configuration without a handler.
func (d document) without(handler string) document {
	copied := document(clone(d))
	delete(copied.runtimes(), handler)
	return copied
}

// onlyAdds returns an error unless a configuration is another one with a handler
// that runs a program, and nothing else.
func onlyAdds(before, after document, handler, program string) error {
	runtime, _ := after.runtimes()[handler].(map[string]any)
	options, _ := runtime["options"].(map[string]any)
	if options["BinaryName"] != program {
		return fmt.Errorf("containerd does not read the drop-in: it has no runtime %s with the program %s", handler, program)
	}
	if !reflect.DeepEqual(before.without(handler), after.without(handler)) {
		return errors.New("with the drop-in more than the runtime would change in containerd's configuration")
	}
	return nil
}
