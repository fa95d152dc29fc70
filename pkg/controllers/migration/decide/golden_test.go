package decide

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden is a file with the whole decision of each row of a test. Of the status,
// and of objects that exist, it has what the decision changes.
type golden struct {
	path string
	want map[string]string
	got  map[string]string
	rows []string
}

const rowMark = "== "

// newGolden reads the golden file of a test, and compares it when the test ends.
func newGolden(t *testing.T) *golden {
	t.Helper()
	g := &golden{path: filepath.Join("testdata", t.Name()+".golden"), want: map[string]string{}, got: map[string]string{}}
	content, err := os.ReadFile(g.path)
	if err != nil && !*update {
		t.Fatalf("%v (write it with -update)", err)
	}
	for _, section := range strings.Split("\n"+string(content), "\n"+rowMark)[1:] {
		name, text, _ := strings.Cut(section, "\n")
		g.want[name] = strings.TrimSpace(text)
	}
	t.Cleanup(func() { g.finish(t) })
	return g
}

// check compares the decision of a row.
func (g *golden) check(t *testing.T, row string, s State, d Decision) {
	t.Helper()
	if _, twice := g.got[row]; twice {
		t.Fatalf("two rows are called %q", row)
	}
	text := strings.TrimSpace(describe(s, d))
	g.got[row], g.rows = text, append(g.rows, row)
	if *update {
		return
	}
	if diff := cmp.Diff(strings.Split(g.want[row], "\n"), strings.Split(text, "\n")); diff != "" {
		t.Errorf("the decision differs from %s (-want +got, write it with -update):\n%s", g.path, diff)
	}
}

func (g *golden) finish(t *testing.T) {
	if *update {
		var text strings.Builder
		for _, row := range g.rows {
			fmt.Fprintf(&text, "%s%s\n%s\n\n", rowMark, row, g.got[row])
		}
		if err := os.WriteFile(g.path, []byte(strings.TrimSpace(text.String())+"\n"), 0o644); err != nil {
			t.Error(err)
		}
		return
	}
	if flag.Lookup("test.run").Value.String() != "" {
		return // Not every row was asked for.
	}
	for row := range g.want {
		if _, ran := g.got[row]; !ran {
			t.Errorf("%s has %q, which is no row", g.path, row)
		}
	}
}

// describe writes a decision down, as what it changes.
func describe(s State, d Decision) string {
	var out strings.Builder
	if d.Step != "" {
		fmt.Fprintf(&out, "step: %s\n", d.Step)
	}
	if d.Action != nil {
		fmt.Fprintf(&out, "action: %s\n", strings.TrimPrefix(fmt.Sprintf("%T", d.Action), "decide."))
		object, becomes, probe := objects(d.Action)
		describeObject(&out, "object", s, object, nil)
		describeObject(&out, "becomes", s, becomes, object)
		if probe != nil {
			describeObject(&out, "probe", s, probe, nil)
		}
	}
	if d.Wait != 0 {
		fmt.Fprintf(&out, "wait: %v\n", d.Wait)
	}
	// The step is shown once.
	decided := *d.Status.DeepCopy()
	decided.Step = s.Migration.Status.Step
	if status := changes("  ", s.Migration.Status, decided); status != "" {
		out.WriteString("status:\n" + status)
	}
	for _, e := range d.Events {
		fmt.Fprintf(&out, "event: %s", e.Reason)
		if e.Warning {
			out.WriteString(", a warning")
		}
		if e.Pod != nil {
			fmt.Fprintf(&out, ", on pod %s (UID %s)", e.Pod.Name, e.Pod.UID)
		}
		fmt.Fprintf(&out, ": %s\n", e.Message)
	}
	return out.String()
}

func describeObject(out *strings.Builder, what string, s State, object, from Object) {
	if object == nil || reflect.ValueOf(object).IsNil() {
		return
	}
	known := []any{s.Pod, s.Replacement, s.Placeholder, s.Claim, s.PreviousClaim, s.StrayClaim, s.Migration}
	isSibling := slices.ContainsFunc(s.Siblings, func(p corev1.Pod) bool { return p.UID == object.GetUID() })
	switch {
	case from != nil:
		fmt.Fprintf(out, "  %s:\n%s", what, changes("    ", from, object))
	case isSibling, slices.Contains(known, any(object)):
		fmt.Fprintf(out, "  %s: %s (UID %s), which exists\n", what, object.GetName(), object.GetUID())
	default:
		fmt.Fprintf(out, "  %s:\n%s", what, changes("    ", nil, object))
	}
}

// changes lists the leaves that differ between two objects, by their paths.
func changes(indent string, before, after any) string {
	was, is := map[string]string{}, map[string]string{}
	flatten("", toJSON(before), was)
	flatten("", toJSON(after), is)
	paths := maps.Clone(was)
	maps.Copy(paths, is)
	var out strings.Builder
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		old, existed := was[path]
		now, exists := is[path]
		switch {
		case existed && exists && old == now:
		case !exists:
			fmt.Fprintf(&out, "%s%s: removed, was %s\n", indent, path, old)
		case existed:
			fmt.Fprintf(&out, "%s%s: %s, was %s\n", indent, path, now, old)
		default:
			fmt.Fprintf(&out, "%s%s: %s\n", indent, path, now)
		}
	}
	return out.String()
}

func toJSON(object any) any {
	text, err := json.Marshal(object)
	if err != nil {
		panic(err)
	}
	var value any
	if err := json.Unmarshal(text, &value); err != nil {
		panic(err)
	}
	return value
}

// flatten writes the leaves of a JSON value into a map. Elements of lists go by their
// type or name where they have one.
func flatten(path string, value any, into map[string]string) {
	switch v := value.(type) {
	case nil:
	case map[string]any:
		for key, field := range v {
			flatten(strings.TrimPrefix(path+"."+key, "."), field, into)
		}
	case []any:
		for i, element := range v {
			key := fmt.Sprint(i)
			if fields, isObject := element.(map[string]any); isObject {
				for _, field := range []string{"type", "name"} {
					if name, isString := fields[field].(string); isString {
						key = name
						break
					}
				}
			}
			flatten(fmt.Sprintf("%s[%s]", path, key), element, into)
		}
	default:
		text, err := json.Marshal(v)
		if err != nil {
			panic(err)
		}
		into[path] = string(text)
	}
}
