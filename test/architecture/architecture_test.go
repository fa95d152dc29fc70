// Package architecture checks the plan of the house: which room may import
// which, and what the pure rooms must not do.
package architecture

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/ai-storage/orchestrator"

// pureRooms decide from data alone. They may import the standard library, the
// API types and each other.
var pureRooms = []string{"pkg/cluster", "pkg/containers", "pkg/planner", "pkg/reassignment", "pkg/budget", "pkg/owners", "pkg/reclaim", "pkg/reclaim/record"}

var allowedInPureRooms = []string{"k8s.io/api", "k8s.io/apimachinery", module + "/pkg/apis/migration"}

// worldly are the parts of the standard library that a pure room must not
// import, with all below them: their answers are not the same for the same data.
var worldly = []string{"os", "net", "syscall", "log", "math/rand", "crypto/rand", "io/ioutil"}

// layers from the bottom up: a room imports only rooms of its own layer or
// below. Rooms are matched by their longest prefix.
var layers = map[string]int{
	"pkg/apis":               0,
	"pkg/cluster":            0,
	"pkg/dashboard":          0,
	"pkg/ociruntime":         0,
	"pkg/containers":         1,
	"pkg/budget":             1,
	"pkg/checkpoint":         1,
	"pkg/owners":             2,
	"pkg/reclaim":            2,
	"pkg/reclaim/record":     1,
	"pkg/reclaim/controller": 4,
	"pkg/reassignment":       1,
	"pkg/planner":            2,
	"pkg/nodeview":           3,
	"pkg/plugins":            3,
	"pkg/simulation":         4,
	"pkg/skew":               1,
	"pkg/tracing":            1,
	"pkg/observe":            4,
	"pkg/migration":          4,
	"pkg/admission":          4,
	"pkg/nodeagent":          4,
	"pkg/rebalance":          5,
	"pkg/restapi":            5,
	"pkg/restapi/auth":       4,
	"pkg/devcluster":         5,
	"pkg/kubectl":            5,
	"cmd":                    6,
	"test":                   7,
}

type goPackage struct {
	ImportPath string
	Dir        string
	GoFiles    []string
	Imports    []string
}

func listPackages(t *testing.T) []goPackage {
	t.Helper()
	command := exec.Command("go", "list", "-json=ImportPath,Dir,GoFiles,Imports", module+"/...")
	var stderr bytes.Buffer
	command.Stderr = &stderr
	out, err := command.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	var packages []goPackage
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
	if len(packages) < len(layers) {
		t.Fatalf("go list found %d packages, fewer than there are rooms", len(packages))
	}
	return packages
}

func room(importPath string) string {
	return strings.TrimPrefix(strings.TrimPrefix(importPath, module), "/")
}

func isWithin(path, prefix string) bool {
	return path == prefix || strings.HasPrefix(path, prefix+"/")
}

// layerOf returns the layer of the longest prefix that names the room.
func layerOf(path string) (int, bool) {
	for path != "." && path != "" {
		if layer, ok := layers[path]; ok {
			return layer, true
		}
		path = filepath.Dir(path)
	}
	return 0, false
}

func TestImportsPointOneWay(t *testing.T) {
	for _, p := range listPackages(t) {
		from, known := layerOf(room(p.ImportPath))
		if !known {
			t.Errorf("%s has no layer: give the new room its place", p.ImportPath)
			continue
		}
		for _, imported := range p.Imports {
			if !isWithin(imported, module) {
				continue
			}
			if to, _ := layerOf(room(imported)); to > from {
				t.Errorf("%s (layer %d) imports %s (layer %d)", p.ImportPath, from, imported, to)
			}
		}
	}
}

func TestPureRoomsImportOnlyTypes(t *testing.T) {
	checked := 0
	for _, p := range listPackages(t) {
		if !slices.Contains(pureRooms, room(p.ImportPath)) {
			continue
		}
		checked++
		for _, imported := range p.Imports {
			if problem := impureImport(imported); problem != "" {
				t.Errorf("%s imports %s: %s", p.ImportPath, imported, problem)
			}
		}
	}
	if checked != len(pureRooms) {
		t.Errorf("checked %d pure rooms, want %d", checked, len(pureRooms))
	}
}

func impureImport(imported string) string {
	isStandard := !strings.Contains(strings.Split(imported, "/")[0], ".")
	switch {
	case slices.ContainsFunc(worldly, func(p string) bool { return isWithin(imported, p) }):
		return "a pure room reads nothing of the world"
	case isStandard:
		return ""
	}
	for _, allowed := range allowedInPureRooms {
		if isWithin(imported, allowed) {
			return ""
		}
	}
	if slices.Contains(pureRooms, room(imported)) {
		return ""
	}
	return "a pure room imports the standard library, API types and pure rooms only"
}

func TestPureRoomsReadNoClockAndStartNoGoroutine(t *testing.T) {
	for _, p := range listPackages(t) {
		if !slices.Contains(pureRooms, room(p.ImportPath)) {
			continue
		}
		for _, name := range p.GoFiles {
			set := token.NewFileSet()
			file, err := parser.ParseFile(set, filepath.Join(p.Dir, name), nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, problem := range impurities(file) {
				t.Errorf("%s: %s", set.Position(problem.at), problem.what)
			}
		}
	}
}

type impurity struct {
	at   token.Pos
	what string
}

func impurities(file *ast.File) []impurity {
	var found []impurity
	ast.Inspect(file, func(node ast.Node) bool {
		switch n := node.(type) {
		case *ast.GoStmt:
			found = append(found, impurity{n.Pos(), "starts a goroutine"})
		case *ast.SelectorExpr:
			if name := fmt.Sprint(n.X); name == "time" && slices.Contains([]string{"Now", "Since", "Until", "Sleep", "After", "NewTimer"}, n.Sel.Name) {
				found = append(found, impurity{n.Pos(), "reads the clock"})
			}
			if fmt.Sprint(n.X) == "metav1" && (n.Sel.Name == "Now" || n.Sel.Name == "NowMicro") {
				found = append(found, impurity{n.Pos(), "reads the clock"})
			}
		}
		return true
	})
	return found
}

func TestTheChecksCanFail(t *testing.T) {
	for _, imported := range []string{"k8s.io/client-go/kubernetes", "k8s.io/klog/v2", "net/http", "os", "os/exec", "syscall", "crypto/rand", module + "/pkg/observe"} {
		if impureImport(imported) == "" {
			t.Errorf("import of %s by a pure room is not noticed", imported)
		}
	}
	file, err := parser.ParseFile(token.NewFileSet(), "x.go", "package x\nfunc f() { go f(); _ = time.Now(); _ = metav1.Now() }", 0)
	if err != nil {
		t.Fatal(err)
	}
	if found := impurities(file); len(found) != 3 {
		t.Errorf("found %d impurities, want 3", len(found))
	}
}
