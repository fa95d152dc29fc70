package documents

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	testName    = regexp.MustCompile("`(Test[A-Z][A-Za-z0-9]*)`")
	testDeclare = regexp.MustCompile(`(?m)^func (Test[A-Z][A-Za-z0-9]*)\(`)
)

// missingTests are the tests that a page names as proof and that are not there.
func missingTests(page string, exists map[string]bool) (missing []string) {
	for _, m := range testName.FindAllStringSubmatch(page, -1) {
		if !exists[m[1]] {
			missing = append(missing, m[1])
		}
	}
	return missing
}

// A cell that says "tested by" must name a test that exists.
func TestTestsThatPagesNameExist(t *testing.T) {
	command := exec.Command("git", "ls-files", "--cached", "--others", "--exclude-standard", "*_test.go")
	command.Dir = repository
	out, err := command.Output()
	if err != nil {
		t.Skipf("not a git checkout: %v", err)
	}
	exists := map[string]bool{}
	for path := range strings.FieldsSeq(string(out)) {
		content, err := os.ReadFile(filepath.Join(repository, path))
		if err != nil {
			continue // deleted, and not committed yet
		}
		for _, m := range testDeclare.FindAllStringSubmatch(string(content), -1) {
			exists[m[1]] = true
		}
	}
	named := 0
	for path, page := range pages(t) {
		named += len(testName.FindAllString(page, -1))
		for _, name := range missingTests(page, exists) {
			t.Errorf("%s names %s, which is no test", path, name)
		}
	}
	if named < 5 {
		t.Errorf("pages name only %d tests", named)
	}
}

func TestTheCheckOfTestsCanFail(t *testing.T) {
	missing := missingTests("`TestA` shows it, and `TestGone`; TestOther is not code", map[string]bool{"TestA": true})
	if len(missing) != 1 || missing[0] != "TestGone" {
		t.Errorf("missing %q, want TestGone", missing)
	}
}
