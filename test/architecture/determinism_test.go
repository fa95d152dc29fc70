package architecture

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// mayStartGoroutines are the pure packages that may, and why their answers are
// the same all the same.
var mayStartGoroutines = map[string]string{
	// Chains share nothing: each has a state and a seed of its own, and their number
	// is fixed, so how many run at once changes the time and not the result.
	"pkg/scheduling/annealing": "its chains share nothing",
}

// checker reads packages together with their types.
type checker struct {
	files *token.FileSet
	info  *types.Info
	from  types.Importer
}

// newChecker compiles what the patterns import, as go vet does, and reads the
// types from there.
func newChecker(t *testing.T, directory string, patterns ...string) *checker {
	t.Helper()
	command := exec.Command("go", append([]string{"list", "-export", "-deps", "-json=ImportPath,Export"}, patterns...)...)
	command.Dir = directory
	var stderr bytes.Buffer
	command.Stderr = &stderr
	out, err := command.Output()
	if err != nil {
		t.Fatalf("go list -export: %v\n%s", err, stderr.String())
	}
	compiled := map[string]string{}
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct{ ImportPath, Export string }
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		compiled[p.ImportPath] = p.Export
	}
	files := token.NewFileSet()
	return &checker{files: files, from: importer.ForCompiler(files, "gc", func(path string) (io.ReadCloser, error) {
		if compiled[path] == "" {
			return nil, fmt.Errorf("%s was not compiled", path)
		}
		return os.Open(compiled[path])
	})}
}

// check returns what is not deterministic in the files of one package.
func (c *checker) check(t *testing.T, path string, files []*ast.File) []impurity {
	t.Helper()
	c.info = &types.Info{
		Types: map[ast.Expr]types.TypeAndValue{}, Uses: map[*ast.Ident]types.Object{}, Defs: map[*ast.Ident]types.Object{},
		Selections: map[*ast.SelectorExpr]*types.Selection{},
	}
	config := types.Config{Importer: c.from}
	if _, err := config.Check(path, c.files, files, c.info); err != nil {
		t.Fatalf("reading the types of %s: %v", path, err)
	}
	var found []impurity
	for _, file := range files {
		found = append(found, c.goroutines(file)...)
		for _, declaration := range file.Decls {
			if function, is := declaration.(*ast.FuncDecl); is && function.Body != nil {
				found = append(found, c.mapOrder(function.Body)...)
			}
		}
	}
	return found
}

// goroutines finds the methods that start one without a go statement.
func (c *checker) goroutines(file *ast.File) []impurity {
	var found []impurity
	ast.Inspect(file, func(node ast.Node) bool {
		selector, is := node.(*ast.SelectorExpr)
		if !is || c.info.Selections[selector] == nil {
			return true
		}
		function, is := c.info.Selections[selector].Obj().(*types.Func)
		if is && slices.Contains([]string{"(*sync.WaitGroup).Go", "(*golang.org/x/sync/errgroup.Group).Go", "(*golang.org/x/sync/errgroup.Group).TryGo"}, function.FullName()) {
			found = append(found, impurity{selector.Pos(), "starts a goroutine by " + function.FullName()})
		}
		return true
	})
	return found
}

// mapOrder finds the loops over maps in a function whose order can reach an
// answer. It does not follow calls in the body of the loop.
func (c *checker) mapOrder(function *ast.BlockStmt) []impurity {
	var found []impurity
	ast.Inspect(function, func(node ast.Node) bool {
		switch n := node.(type) {
		case *ast.RangeStmt:
			if c.isUnordered(n.X) {
				found = append(found, (&loop{checker: c, statement: n, function: function}).impurities()...)
			}
		case *ast.AssignStmt:
			for i, value := range n.Rhs {
				if c.isCollected(value) && !c.isSortedAfter(function, n.Lhs[i], n.End()) {
					found = append(found, impurity{n.Pos(), "collects keys or values of a map and does not sort them"})
				}
			}
		}
		return true
	})
	return found
}

// isUnordered reports whether ranging over an expression has an order of chance.
func (c *checker) isUnordered(e ast.Expr) bool {
	if _, isMap := underlying(c.info.TypeOf(e)).(*types.Map); isMap {
		return true
	}
	call, is := e.(*ast.CallExpr)
	return is && slices.Contains([]string{"maps.Keys", "maps.Values", "maps.All"}, c.nameOf(call.Fun))
}

func underlying(t types.Type) types.Type {
	if t == nil {
		return nil
	}
	return t.Underlying()
}

// isCollected recognises slices.Collect(maps.Keys(m)).
func (c *checker) isCollected(e ast.Expr) bool {
	call, is := e.(*ast.CallExpr)
	return is && c.nameOf(call.Fun) == "slices.Collect" && c.isUnordered(call.Args[0])
}

// nameOf is the full name of a function of another package; "" for all else.
func (c *checker) nameOf(e ast.Expr) string {
	selector, is := ast.Unparen(e).(*ast.SelectorExpr)
	if !is {
		return ""
	}
	if function, is := c.info.Uses[selector.Sel].(*types.Func); is {
		return function.FullName()
	}
	return ""
}

// isSortedAfter reports whether the function sorts the slice further down.
func (c *checker) isSortedAfter(function *ast.BlockStmt, list ast.Expr, after token.Pos) bool {
	sorted := false
	ast.Inspect(function, func(node ast.Node) bool {
		call, is := node.(*ast.CallExpr)
		if is && call.Pos() > after && len(call.Args) > 0 && types.ExprString(call.Args[0]) == types.ExprString(list) {
			name := c.nameOf(call.Fun)
			sorted = sorted || strings.HasPrefix(name, "slices.Sort") || strings.HasPrefix(name, "sort.S")
		}
		return true
	})
	return sorted
}

// loop is one loop over a map.
type loop struct {
	*checker
	statement *ast.RangeStmt
	function  *ast.BlockStmt
	found     []impurity
	// returned is the constant answer that the loop gives, wherever it finds one.
	returned string
}

func (l *loop) impurities() []impurity {
	l.inspect(l.statement.Body, false)
	return l.found
}

func (l *loop) report(at ast.Node, what string) {
	l.found = append(l.found, impurity{at.Pos(), what + ", in the order of a map"})
}

// inspect walks through the body. What is inside of another loop or switch has
// breaks of its own.
func (l *loop) inspect(node ast.Node, breaksElsewhere bool) {
	ast.Inspect(node, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncLit:
			return false
		case *ast.ForStmt, *ast.RangeStmt, *ast.SwitchStmt, *ast.TypeSwitchStmt, *ast.SelectStmt:
			if n != node {
				l.inspect(n, true)
				return false
			}
		case *ast.ReturnStmt:
			l.checkReturn(n)
		case *ast.BranchStmt:
			if n.Tok == token.GOTO || n.Tok == token.BREAK && (!breaksElsewhere || n.Label != nil) {
				l.report(n, "stops at one entry")
			}
		case *ast.AssignStmt:
			l.checkAssignment(n)
		case *ast.CallExpr:
			l.checkCall(n)
		}
		return true
	})
}

// checkReturn allows one answer that is the same wherever the loop stops.
func (l *loop) checkReturn(n *ast.ReturnStmt) {
	var texts []string
	for _, result := range n.Results {
		value := l.info.Types[result]
		if value.Value == nil && !value.IsNil() {
			l.report(n, "returns what belongs to one entry")
			return
		}
		texts = append(texts, types.ExprString(result))
	}
	text := strings.Join(texts, ",")
	switch {
	case len(texts) == 0:
		l.report(n, "stops at one entry")
	case l.returned != "" && l.returned != text:
		l.report(n, "returns one answer or another")
	}
	l.returned = text
}

func (l *loop) checkAssignment(n *ast.AssignStmt) {
	for i, target := range n.Lhs {
		if !l.isOutside(target) {
			continue
		}
		var value ast.Expr
		if len(n.Rhs) == len(n.Lhs) {
			value = n.Rhs[i]
		}
		switch basic, _ := underlying(l.info.TypeOf(target)).(*types.Basic); {
		case isAppend(value) && !l.isSortedAfter(l.function, target, l.statement.End()):
			l.report(n, "appends to "+types.ExprString(target)+", which is not sorted afterwards")
		case n.Tok == token.ADD_ASSIGN && basic != nil && basic.Info()&types.IsString != 0:
			l.report(n, "builds a string")
		case n.Tok != token.ASSIGN && basic != nil && basic.Info()&types.IsFloat != 0:
			l.report(n, "adds up floating-point numbers")
		case n.Tok == token.ASSIGN && !isAppend(value) && !l.isTheSameInAnyOrder(target, value):
			l.report(n, "keeps in "+types.ExprString(target)+" what belongs to one entry")
		}
	}
}

func isAppend(e ast.Expr) bool {
	call, is := e.(*ast.CallExpr)
	return is && types.ExprString(call.Fun) == "append"
}

// isTheSameInAnyOrder recognises x = max(x, …), x = x || …, x = x && …, a constant
// and an empty map or list.
func (l *loop) isTheSameInAnyOrder(target, value ast.Expr) bool {
	switch v := value.(type) {
	case *ast.CallExpr:
		name := types.ExprString(v.Fun)
		return (name == "max" || name == "min") && slices.ContainsFunc(v.Args, func(e ast.Expr) bool { return types.ExprString(e) == types.ExprString(target) })
	case *ast.CompositeLit:
		return len(v.Elts) == 0
	case *ast.BinaryExpr:
		return (v.Op == token.LOR || v.Op == token.LAND) && strings.HasPrefix(types.ExprString(v), types.ExprString(target)+" ")
	}
	return value != nil && (l.info.Types[value].Value != nil || l.info.Types[value].IsNil())
}

// isOutside reports whether an assignment changes what was there before the
// loop. An element of a map or slice is not meant: each entry has its own.
func (l *loop) isOutside(target ast.Expr) bool {
	switch e := ast.Unparen(target).(type) {
	case *ast.Ident:
		object := l.info.ObjectOf(e)
		return object != nil && (object.Pos() < l.statement.Pos() || object.Pos() > l.statement.End())
	case *ast.SelectorExpr:
		return l.isOutside(e.X)
	case *ast.StarExpr:
		return l.isOutside(e.X)
	}
	return false
}

// checkCall finds what writes text.
func (l *loop) checkCall(n *ast.CallExpr) {
	selector, is := n.Fun.(*ast.SelectorExpr)
	if is && (slices.Contains([]string{"Write", "WriteString", "WriteByte", "WriteRune"}, selector.Sel.Name) || strings.HasPrefix(l.nameOf(selector), "fmt.Fprint")) {
		l.report(n, "writes text")
	}
}

func TestPurePackagesAreDeterministic(t *testing.T) {
	var patterns []string
	for _, path := range purePackages {
		patterns = append(patterns, module+"/"+path)
	}
	c := newChecker(t, "../..", patterns...)
	loops := 0
	for _, p := range packagesOf(t, "../..") {
		path := within(p.ImportPath)
		if !slices.Contains(purePackages, path) {
			continue
		}
		var files []*ast.File
		for _, name := range p.GoFiles {
			file, err := parser.ParseFile(c.files, filepath.Join(p.Dir, name), nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, file)
		}
		for _, problem := range c.check(t, p.ImportPath, files) {
			if mayStartGoroutines[path] != "" && strings.HasPrefix(problem.what, "starts a goroutine") {
				continue
			}
			t.Errorf("%s: %s", c.files.Position(problem.at), problem.what)
		}
		for _, file := range files {
			ast.Inspect(file, func(node ast.Node) bool {
				if r, is := node.(*ast.RangeStmt); is && c.isUnordered(r.X) {
					loops++
				}
				return true
			})
		}
	}
	if loops < 10 {
		t.Errorf("saw %d loops over maps in pure packages, fewer than there are: the types are not read", loops)
	}
}

// TestTheDeterminismCheckCanFail: each of these is found, and nothing is found in
// the ones that give the same answer in any order.
func TestTheDeterminismCheckCanFail(t *testing.T) {
	c := newChecker(t, "..", "fmt", "maps", "slices", "sort", "strings", "sync", "golang.org/x/sync/errgroup")
	for name, test := range map[string]struct {
		body string
		want string
	}{
		"the first of a literal":    {`for k, v := range map[string]bool{"a": x > 0, "b": true} { if v { return k } }; return ""`, "returns what belongs to one entry"},
		"the first of a named map":  {`for k := range named(nil) { return k }; return ""`, "returns what belongs to one entry"},
		"the first of the keys":     {`for k := range maps.Keys(m) { return k }; return ""`, "returns what belongs to one entry"},
		"one of two constants":      {`for _, v := range m { if v == 1 { return "a" }; if v == 2 { return "b" } }; return ""`, "returns one answer or another"},
		"the last":                  {`last := ""; for k := range m { last = k }; return last`, "keeps in last"},
		"a break":                   {`n := 0; for _, v := range m { n += v; if n > x { break } }; return fmt.Sprint(n)`, "stops at one entry"},
		"a return without a result": {`func() { for _, v := range m { if v > x { return }; x += v } }(); return ""`, "stops at one entry"},
		"append":                    {`var all []string; for k := range m { all = append(all, k) }; return strings.Join(all, ",")`, "appends to all"},
		"append, another is sorted": {`var all, others []string; for k := range m { all = append(all, k) }; slices.Sort(others); return all[0]`, "appends to all"},
		"append, sorted before":     {`var all []string; slices.Sort(all); for k := range m { all = append(all, k) }; return all[0]`, "appends to all"},
		"collected keys":            {`all := slices.Collect(maps.Keys(m)); return all[0]`, "collects keys"},
		"a string":                  {`s := ""; for k := range m { s += k }; return s`, "builds a string"},
		"a builder":                 {`var b strings.Builder; for k := range m { b.WriteString(k) }; return b.String()`, "writes text"},
		"formatted text":            {`var b strings.Builder; for k := range m { fmt.Fprintln(&b, k) }; return b.String()`, "writes text"},
		"a sum of fractions":        {`f := 0.0; for _, v := range m { f += float64(v) / 3 }; return fmt.Sprint(f)`, "floating-point"},
		"a nested loop":             {`for k, v := range m { for range v { return k } }; return ""`, "returns what belongs to one entry"},
		"a wait group":              {`var g sync.WaitGroup; g.Go(func() {}); g.Wait(); return ""`, "starts a goroutine"},
		"an error group":            {`var g errgroup.Group; g.Go(func() error { return nil }); return fmt.Sprint(g.Wait())`, "starts a goroutine"},
		"one constant":              {`for _, v := range m { if v > x { return "a" } }; return ""`, ""},
		"append and sort":           {`var all []string; for k := range m { all = append(all, k) }; slices.Sort(all); return all[0]`, ""},
		"append and sort, old":      {`var all []string; for k := range m { all = append(all, k) }; sort.Strings(all); return all[0]`, ""},
		"sorted keys":               {`for _, k := range slices.Sorted(maps.Keys(m)) { return k }; return ""`, ""},
		"a sum of integers":         {`n := 0; for _, v := range m { n += v }; return fmt.Sprint(n)`, ""},
		"the largest":               {`n := 0; for _, v := range m { n = max(n, v) }; return fmt.Sprint(n)`, ""},
		"any":                       {`some := false; for _, v := range m { some = some || v > x }; return fmt.Sprint(some)`, ""},
		"an empty map":              {`var o map[string]int; for k, v := range m { if o == nil { o = map[string]int{} }; o[k] = v }; return fmt.Sprint(len(o))`, ""},
		"another map":               {`o := map[string]int{}; for k, v := range m { o[k] = v }; return fmt.Sprint(len(o))`, ""},
		"a switch's break":          {`n := 0; for _, v := range m { switch { case v > x: break; default: n++ } }; return fmt.Sprint(n)`, ""},
		"the first of a slice":      {`for _, k := range []string{"a", "b"} { return k }; return ""`, ""},
		"a return of a closure":     {`n := 0; for k := range m { if slices.ContainsFunc([]string{"a"}, func(s string) bool { return s == k }) { n++ } }; return fmt.Sprint(n)`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			source := "package x\nimport (\"fmt\"; \"maps\"; \"slices\"; \"sort\"; \"strings\"; \"sync\"; \"golang.org/x/sync/errgroup\")\n" +
				"var (_ = fmt.Sprint; _ = maps.Keys[map[int]int]; _ = slices.Max[[]int]; _ = sort.Strings; _ = strings.Join; _ sync.Mutex; _ errgroup.Group)\n" +
				"type named map[string]int\nfunc f(m map[string]int, x int) string { " + test.body + " }"
			file, err := parser.ParseFile(c.files, "x.go", source, 0)
			if err != nil {
				t.Fatal(err)
			}
			found := c.check(t, "x", []*ast.File{file})
			switch {
			case test.want == "" && len(found) > 0:
				t.Errorf("found %q, want nothing", found[0].what)
			case test.want != "" && (len(found) == 0 || !strings.Contains(found[0].what, test.want)):
				t.Errorf("found %v, want %q", found, test.want)
			}
		})
	}
}
