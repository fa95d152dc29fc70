// Package architecture checks the layout of the packages: which may import
// which, and what the pure ones must not do.
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

// purePackages decide from data alone. They may import the standard library, the
// API types and each other.
var purePackages = []string{
	"pkg/pods", "pkg/pods/containers", "pkg/pods/owners", "pkg/pods/reclaimed",
	"pkg/scheduling/annealing", "pkg/scheduling/budget", "pkg/scheduling/cluster", "pkg/scheduling/planner", "pkg/scheduling/repack",
	"pkg/controllers/migration/decide", "pkg/controllers/reclaim/decide", "pkg/node/agent/decide",
}

// allowedInPurePackages are, beside types, two helpers that are functions of their
// arguments alone: component-helpers/resource counts the requests of a pod as the
// scheduler does, utils/ptr makes and reads pointers.
var allowedInPurePackages = []string{
	"k8s.io/api", "k8s.io/apimachinery", module + "/pkg/apis/migration",
	"k8s.io/component-helpers/resource", "k8s.io/utils/ptr",
}

// worldly are the parts of the standard library that a pure package must not
// import, with all below them: their answers are not the same for the same data.
var worldly = []string{"os", "net", "syscall", "log", "math/rand", "crypto/rand", "io/ioutil"}

// groups are the directories of the first level, from the bottom up: a package
// imports only packages of its own group or of groups below. Groups on one level
// do not import each other.
var groups = map[string]int{
	"pkg/apis":        0,
	"pkg/skew":        0,
	"pkg/tracing":     0,
	"pkg/pods":        1,
	"pkg/scheduling":  2,
	"pkg/node":        2,
	"pkg/controllers": 3,
	"pkg/server":      4,
	"pkg/kubectl":     5,
	"cmd":             6,
	"internal":        7,
	"test":            8,
}

// levels are those within a group, from the bottom up. Packages are matched by
// their longest prefix; packages on one level do not import each other.
var levels = map[string]int{
	"pkg/apis/config":            0,
	"pkg/apis/migration":         0,
	"pkg/apis/config/v1":         1,
	"pkg/apis/config/validation": 1,
	"pkg/apis/config/scheme":     2,
	"pkg/apis/config/load":       3,

	"pkg/pods":            0,
	"pkg/pods/reclaimed":  1,
	"pkg/pods/containers": 2,
	"pkg/pods/owners":     3,

	"pkg/scheduling/annealing":                0,
	"pkg/scheduling/budget":                   0,
	"pkg/scheduling/cluster":                  0,
	"pkg/scheduling/repack":                   1,
	"pkg/scheduling/observe":                  1,
	"pkg/scheduling/planner":                  2,
	"pkg/scheduling/plugins/checkpointvolume": 3,
	"pkg/scheduling/plugins/rebalance":        3,
	"pkg/scheduling/plugins":                  4,
	"pkg/scheduling/simulation":               5,

	"pkg/node/atomicfile":      0,
	"pkg/node/beneath":         0,
	"pkg/node/transfer":        1,
	"pkg/node/ociruntime":      1,
	"pkg/node/agent/decide":    0,
	"pkg/node/agent/installer": 1,
	"pkg/node/agent":           2,

	"pkg/controllers/migration/decide": 0,
	"pkg/controllers/reclaim/decide":   0,
	"pkg/controllers/migration":        1,
	"pkg/controllers/reclaim":          1,
	"pkg/controllers/rebalance":        1,

	"pkg/server/admission":    0,
	"pkg/server/dashboard":    0,
	"pkg/server/nodeview":     0,
	"pkg/server/restapi/auth": 0,
	"pkg/server/restapi":      1,
}

type goPackage struct {
	ImportPath string
	Dir        string
	GoFiles    []string
	Imports    []string
}

func listPackages(t *testing.T) []goPackage {
	t.Helper()
	return append(packagesOf(t, "../.."), packagesOf(t, "..")...)
}

// packagesOf lists the packages of the module in a directory.
func packagesOf(t *testing.T, directory string) []goPackage {
	t.Helper()
	command := exec.Command("go", "list", "-json=ImportPath,Dir,GoFiles,Imports", "./...")
	command.Dir = directory
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
	if len(packages) < 20 {
		t.Fatalf("go list found %d packages in %s, fewer than there are", len(packages), directory)
	}
	return packages
}

func within(importPath string) string {
	return strings.TrimPrefix(strings.TrimPrefix(importPath, module), "/")
}

func isWithin(path, prefix string) bool {
	return path == prefix || strings.HasPrefix(path, prefix+"/")
}

// longest returns the longest prefix of a path that is a key, and its value.
func longest(of map[string]int, path string) (string, int, bool) {
	for path != "." && path != "" {
		if level, ok := of[path]; ok {
			return path, level, true
		}
		path = filepath.Dir(path)
	}
	return "", 0, false
}

// upward says what is wrong with an import, and nothing when it points down.
func upward(from, to string) string {
	fromGroup, above, known := longest(groups, from)
	if !known {
		return from + " is in no group: give it its place"
	}
	toGroup, below, known := longest(groups, to)
	switch {
	case !known:
		return to + " is in no group: give it its place"
	case fromGroup != toGroup && below >= above:
		return fmt.Sprintf("%s (group %s, level %d) imports %s (group %s, level %d)", from, fromGroup, above, to, toGroup, below)
	case fromGroup != toGroup || !strings.HasPrefix(fromGroup, "pkg/"):
		return ""
	}
	fromKey, above, known := longest(levels, from)
	toKey, below, knownToo := longest(levels, to)
	if known && knownToo && fromKey != toKey && below >= above {
		return fmt.Sprintf("%s (level %d of %s) imports %s (level %d)", from, above, fromGroup, to, below)
	}
	return ""
}

func TestImportsPointOneWay(t *testing.T) {
	arrows := map[string]bool{}
	for _, p := range listPackages(t) {
		from := within(p.ImportPath)
		if group, _, _ := longest(groups, from); strings.HasPrefix(group, "pkg/") && from != group {
			if _, _, known := longest(levels, from); !known && hasSiblings(group) {
				t.Errorf("%s has no level in %s: give it its place", from, group)
			}
		}
		for _, imported := range p.Imports {
			if !isWithin(imported, module) {
				continue
			}
			to := within(imported)
			if problem := upward(from, to); problem != "" {
				t.Error(problem)
			}
			fromGroup, _, _ := longest(groups, from)
			toGroup, _, _ := longest(groups, to)
			if fromGroup != toGroup {
				arrows[fromGroup+" → "+toGroup] = true
			}
		}
	}
	t.Logf("%d groups, %d arrows between them, none points up", len(groups), len(arrows))
}

// hasSiblings reports whether a group has levels of its own.
func hasSiblings(group string) bool {
	for key := range levels {
		if isWithin(key, group) {
			return true
		}
	}
	return false
}

// TestTheProductDoesNotKnowTheTestBed: the product's module neither imports nor
// requires the module of the tests.
func TestTheProductDoesNotKnowTheTestBed(t *testing.T) {
	command := exec.Command("go", "list", "-deps", "-tags", "breakpoints", "./cmd/...")
	command.Dir = "../.."
	out, err := command.Output()
	if err != nil {
		t.Fatal(err)
	}
	listed := strings.Fields(string(out))
	if !slices.Contains(listed, module+"/pkg/controllers/migration") {
		t.Fatalf("go list does not show what the product imports: %d packages", len(listed))
	}
	for _, dependency := range listed {
		if isWithin(dependency, module+"/test") || isWithin(dependency, module+"/internal") {
			t.Errorf("the product imports %s", dependency)
		}
	}
}

func TestPurePackagesImportOnlyTypes(t *testing.T) {
	checked := 0
	for _, p := range listPackages(t) {
		if !slices.Contains(purePackages, within(p.ImportPath)) {
			continue
		}
		checked++
		for _, imported := range p.Imports {
			if problem := impureImport(imported); problem != "" {
				t.Errorf("%s imports %s: %s", p.ImportPath, imported, problem)
			}
		}
	}
	if checked != len(purePackages) {
		t.Errorf("checked %d pure packages, want %d", checked, len(purePackages))
	}
}

func impureImport(imported string) string {
	isStandard := !strings.Contains(strings.Split(imported, "/")[0], ".")
	switch {
	case slices.ContainsFunc(worldly, func(p string) bool { return isWithin(imported, p) }):
		return "a pure package reads nothing of the world"
	case isStandard:
		return ""
	}
	for _, allowed := range allowedInPurePackages {
		if isWithin(imported, allowed) {
			return ""
		}
	}
	if slices.Contains(purePackages, within(imported)) {
		return ""
	}
	return "a pure package imports the standard library, API types and pure packages only"
}

func TestPurePackagesReadNoClockAndStartNoGoroutine(t *testing.T) {
	for _, p := range listPackages(t) {
		if !slices.Contains(purePackages, within(p.ImportPath)) {
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
	for from, to := range map[string]string{
		"pkg/pods/containers": "pkg/pods/owners", "pkg/scheduling/cluster": "pkg/controllers/rebalance", "pkg/node/agent": "pkg/scheduling/budget",
		"pkg/controllers/migration": "pkg/controllers/rebalance", "pkg/controllers/migration/decide": "pkg/controllers/migration", "pkg/new": "pkg/apis/config", "cmd/scheduler": "test/devcluster",
	} {
		if upward(from, to) == "" {
			t.Errorf("an import of %s by %s is not noticed", to, from)
		}
	}
	for _, imported := range []string{"k8s.io/client-go/kubernetes", "k8s.io/klog/v2", "net/http", "os", "os/exec", "syscall", "crypto/rand", module + "/pkg/scheduling/observe"} {
		if impureImport(imported) == "" {
			t.Errorf("import of %s by a pure package is not noticed", imported)
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
