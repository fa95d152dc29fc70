// Package events holds docs/events.md against the reasons in the code.
package events

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// sources are the files whose constants are reasons, with what their names begin.
var sources = map[string]string{
	"pkg/controllers/migration/decide/reasons.go": "Reason",
	"pkg/pods/containers/refusal.go":              "Refusal",
	"pkg/pods/containers/shared.go":               "Refusal",
	"pkg/pods/owners/refuse.go":                   "Refusal",
	"pkg/controllers/reclaim/reconciler.go":       "Reason",
}

func TestEveryReasonIsDocumented(t *testing.T) {
	content, err := os.ReadFile("../../docs/events.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]bool{}
	for _, row := range regexp.MustCompile(`(?m)^\| (\x60[^|]+) \|`).FindAllStringSubmatch(string(content), -1) {
		for _, reason := range strings.Split(row[1], ", ") {
			documented[strings.Trim(reason, "`")] = true
		}
	}
	found := 0
	for path, prefix := range sources {
		for _, reason := range constants(t, path, prefix) {
			found++
			if !documented[reason] {
				t.Errorf("%s: reason %s is not in docs/events.md", path, reason)
			}
			if !regexp.MustCompile(`^([A-Z][a-z]+|UID)+$`).MatchString(reason) {
				t.Errorf("%s: reason %s is not CamelCase", path, reason)
			}
			delete(documented, reason)
		}
	}
	if found < 70 {
		t.Errorf("%d reasons found", found)
	}
	for reason := range documented {
		t.Errorf("docs/events.md describes %s, which no program gives", reason)
	}
}

// constants are the values of the string constants of a file whose names begin so.
func constants(t *testing.T, path, prefix string) []string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join("../..", path), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var values []string
	for _, declaration := range file.Decls {
		block, isBlock := declaration.(*ast.GenDecl)
		if !isBlock || block.Tok != token.CONST {
			continue
		}
		for _, spec := range block.Specs {
			value := spec.(*ast.ValueSpec)
			if literal, isLiteral := value.Values[0].(*ast.BasicLit); isLiteral && literal.Kind == token.STRING && strings.HasPrefix(value.Names[0].Name, prefix) {
				text, err := strconv.Unquote(literal.Value)
				if err != nil {
					t.Fatal(err)
				}
				values = append(values, text)
			}
		}
	}
	return values
}
