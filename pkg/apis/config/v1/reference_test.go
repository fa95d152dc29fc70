package v1

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

// marker is what docs/api-reference.md shows of a field.
var marker = regexp.MustCompile(`(?m)^\+kubebuilder:default="?([^"\n]+)"?$`)

// documentedDefaults reads the markers of types.go, by type and Go name.
func documentedDefaults(t *testing.T) map[string]map[string]string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "types.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]map[string]string{}
	for _, declaration := range file.Decls {
		types, is := declaration.(*ast.GenDecl)
		if !is || types.Tok != token.TYPE {
			continue
		}
		for _, spec := range types.Specs {
			name := spec.(*ast.TypeSpec).Name.Name
			found[name] = map[string]string{}
			for _, field := range spec.(*ast.TypeSpec).Type.(*ast.StructType).Fields.List {
				var text []string
				if field.Doc != nil {
					for _, line := range field.Doc.List {
						text = append(text, strings.TrimPrefix(line.Text, "// "))
					}
				}
				if m := marker.FindStringSubmatch(strings.Join(text, "\n")); m != nil && len(field.Names) == 1 {
					found[name][field.Names[0].Name] = m[1]
				}
			}
		}
	}
	return found
}

// The default that the reference shows of a field is the one that it gets.
func TestDocumentedDefaults(t *testing.T) {
	documented := documentedDefaults(t)
	rebalance, volume := &RebalanceArgs{Signals: SignalArgs{Prometheus: &PrometheusArgs{}}}, &CheckpointVolumeArgs{}
	SetDefaults_RebalanceArgs(rebalance)
	SetDefaults_CheckpointVolumeArgs(volume)
	seen := 0
	for _, args := range []any{rebalance, volume} {
		seen += compareDefaults(t, documented, reflect.ValueOf(args).Elem())
	}
	if seen < 20 {
		t.Errorf("only %d defaults were compared", seen)
	}
}

// compareDefaults goes through a struct and those in it, and counts what it compared.
func compareDefaults(t *testing.T, documented map[string]map[string]string, value reflect.Value) (seen int) {
	t.Helper()
	for i := range value.NumField() {
		field, name := value.Field(i), value.Type().Field(i).Name
		if want, has := documented[value.Type().Name()][name]; has {
			seen++
			if got := written(field); got != want {
				t.Errorf("%s.%s defaults to %s, its marker says %s", value.Type().Name(), name, got, want)
			}
			continue
		}
		if field.Kind() == reflect.Slice && field.Len() > 0 {
			field = field.Index(0)
		}
		if field.Kind() == reflect.Pointer && !field.IsNil() {
			field = field.Elem()
		}
		if field.Kind() == reflect.Struct && documented[field.Type().Name()] != nil {
			seen += compareDefaults(t, documented, field)
		}
	}
	return seen
}

var zeroUnits = regexp.MustCompile(`([hm])0[ms](0s)?$`)

// written is a value as a file has it: 2m for 2m0s.
func written(value reflect.Value) string {
	encoded, err := json.Marshal(value.Interface())
	if err != nil {
		return fmt.Sprint(err)
	}
	return zeroUnits.ReplaceAllString(strings.Trim(string(encoded), `"`), "$1")
}
