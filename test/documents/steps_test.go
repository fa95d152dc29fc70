package documents

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ai-storage/orchestrator/pkg/controllers/migration/decide"
)

var updateSteps = flag.Bool("update-steps", false, "write the steps of a migration into the document")

// The steps that docs/migration.md lists are those of the tables.
func TestStepsAreThoseOfTheTables(t *testing.T) {
	const begin, end = "<!-- steps: written by the tables, checked by a test -->\n", "<!-- /steps -->"
	var want strings.Builder
	want.WriteString("\n| when | steps |\n|---|---|\n")
	for _, table := range decide.Tables {
		var names []string
		for _, step := range decide.Steps(table.Name) {
			names = append(names, "`"+string(step)+"`")
		}
		fmt.Fprintf(&want, "| %s | %s |\n", table.Name, strings.Join(names, " → "))
	}
	want.WriteString("\n")
	path := filepath.Join(repository, "docs", "migration.md")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(text), begin)
	got, after, ended := strings.Cut(rest, end)
	if !found || !ended {
		t.Fatalf("%s has no part between %q and %q", path, begin, end)
	}
	if *updateSteps {
		if err := os.WriteFile(path, []byte(before+begin+want.String()+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got != want.String() {
		t.Errorf("docs/migration.md lists other steps (write them with -update-steps):\n%s\nwant\n%s", got, want.String())
	}
}
