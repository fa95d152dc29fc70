package words

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const repository = "../.."

// skipped are files that we do not write, and those that say the words on purpose.
var skipped = []string{
	"LICENSE", "go.sum", "test/go.sum", "test/tools/", "test/page/package-lock.json", "pkg/server/dashboard/assets/vendor/",
	"test/words/words.go", "docs/api-reference.md", "docs/metrics.md", "docs/proofs.md",
}

// tracked returns the text files of the repository by their paths.
func tracked(t *testing.T) map[string]string {
	t.Helper()
	command := exec.Command("git", "ls-files", "--cached", "--others", "--exclude-standard")
	command.Dir = repository
	out, err := command.Output()
	if err != nil {
		t.Fatalf("git ls-files: %v", err)
	}
	files := map[string]string{}
	for path := range strings.Lines(string(out)) {
		path = strings.TrimSpace(path)
		if hasPrefix(path, skipped) {
			continue
		}
		info, err := os.Lstat(filepath.Join(repository, path))
		if err != nil || !info.Mode().IsRegular() {
			continue // deleted and not committed yet, or a link to another of them
		}
		content, err := os.ReadFile(filepath.Join(repository, path))
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(content[:min(len(content), 8000)], 0) {
			files[path] = string(content)
		}
	}
	if len(files) < 100 {
		t.Fatalf("only %d files", len(files))
	}
	return files
}

func hasPrefix(path string, prefixes []string) bool {
	return slices.ContainsFunc(prefixes, func(prefix string) bool { return strings.HasPrefix(path, prefix) })
}

func TestWordsDoNotComeBack(t *testing.T) {
	used, all := map[allowance]bool{}, finders()
	for path, content := range tracked(t) {
		number := 0
		for text := range strings.Lines(content) {
			number++
			current := lineOf(strings.TrimRight(text, "\n"))
			for i := range all {
				f := &all[i]
				found := f.find(current)
				switch {
				case found == "":
				case isAllowed(f.expression, path):
					markUsed(used, f.expression, path)
				default:
					t.Errorf("%s:%d says %q: %s", path, number, found, f.instead)
				}
			}
		}
	}
	for _, a := range allowed {
		if !used[a] {
			t.Errorf("%s does not say %s any more: take it off the allowances", a.where, a.expression)
		}
	}
}

func markUsed(used map[allowance]bool, expression, path string) {
	for _, a := range allowed {
		if a.expression == expression && strings.HasPrefix(path, a.where) {
			used[a] = true
		}
	}
}

func TestTheCheckOfWordsCanFail(t *testing.T) {
	for _, f := range finders() {
		if f.instead == "" {
			t.Errorf("%s: what to say instead?", f.expression)
		}
		if f.find(lineOf(f.bad)) == "" {
			t.Errorf("%s does not find %q", f.expression, f.bad)
		}
		if found := f.find(lineOf(f.good)); found != "" {
			t.Errorf("%s finds %q in %q", f.expression, found, f.good)
		}
	}
	first := allowed[0]
	if !isAllowed(first.expression, first.where) || isAllowed(first.expression, "pkg/server/restapi/view.go") {
		t.Error("an allowance does not end where it should")
	}
	for _, a := range allowed {
		known := slices.ContainsFunc(words, func(w word) bool { return w.expression == a.expression })
		if a.reason == "" || a.where == "" || !known {
			t.Errorf("the allowance of %s in %q has no reason, no place or no word", a.expression, a.where)
		}
	}
}
