package documents

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// pages are the Markdown files of the repository, by their paths in it.
func pages(t *testing.T) map[string]string {
	t.Helper()
	command := exec.Command("git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md")
	command.Dir = repository
	out, err := command.Output()
	if err != nil {
		t.Skipf("not a git checkout: %v", err)
	}
	found := map[string]string{}
	for path := range strings.FieldsSeq(string(out)) {
		if _, err := os.Stat(filepath.Join(repository, path)); err == nil {
			found[path] = read(t, path)
		}
	}
	if len(found) < 10 {
		t.Fatalf("only %d pages", len(found))
	}
	return found
}

var (
	fence   = regexp.MustCompile("(?ms)^```.*?^```$")
	code    = regexp.MustCompile("`[^`\n]*`")
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#{1,6} +(.+)$`)
)

// anchors of a page, as GitHub makes them of its headings.
func anchors(page string) map[string]bool {
	found := map[string]bool{}
	for _, m := range heading.FindAllStringSubmatch(fence.ReplaceAllString(page, ""), -1) {
		name := anchorOf(m[1])
		for i, base := 1, name; found[name]; i++ {
			name = fmt.Sprintf("%s-%d", base, i)
		}
		found[name] = true
	}
	return found
}

var notInAnchors = regexp.MustCompile(`[^\p{L}\p{N}\-_ ]`)

func anchorOf(title string) string {
	return strings.ReplaceAll(notInAnchors.ReplaceAllString(strings.ToLower(strings.TrimSpace(title)), ""), " ", "-")
}

// checkLinks follows the relative links of a page; exists and anchorsOf tell what
// there is. Links to the web are not followed.
func checkLinks(path, page string, exists func(string) bool, anchorsOf func(string) map[string]bool) (problems []string) {
	text := code.ReplaceAllString(fence.ReplaceAllString(page, ""), "")
	for _, m := range link.FindAllStringSubmatch(text, -1) {
		target, anchor, _ := strings.Cut(m[1], "#")
		if strings.Contains(m[1], "://") || strings.HasPrefix(m[1], "mailto:") {
			continue
		}
		file := path
		if target != "" {
			file = filepath.Join(filepath.Dir(path), target)
		}
		switch {
		case strings.HasPrefix(file, "..") || !exists(file):
			problems = append(problems, fmt.Sprintf("%s links to %s, which is not there", path, m[1]))
		case anchor != "" && strings.HasSuffix(file, ".md") && !anchorsOf(file)[anchor]:
			problems = append(problems, fmt.Sprintf("%s links to %s: no such heading", path, m[1]))
		}
	}
	return problems
}

func TestLinksLeadSomewhere(t *testing.T) {
	all := pages(t)
	exists := func(path string) bool {
		_, err := os.Stat(filepath.Join(repository, path))
		return err == nil
	}
	links := 0
	for path, page := range all {
		links += len(link.FindAllString(page, -1))
		for _, problem := range checkLinks(path, page, exists, func(file string) map[string]bool { return anchors(all[file]) }) {
			t.Error(problem)
		}
	}
	if links < 60 {
		t.Errorf("only %d links were found", links)
	}
}

func TestTheCheckOfLinksCanFail(t *testing.T) {
	page := "# A page\n\n[good](b.md#a-head-line-of-it) [web](https://x.example/#y) `[code](none.md)`\n```\n[fenced](none.md)\n# not a heading\n```\n" +
		"[gone](none.md) [no anchor](b.md#gone) [own](#not-a-heading) [own](#a-page) [out](../../x)\n"
	other := "# B\n\n## A `head` line, of it!\n"
	got := checkLinks("docs/a.md", page, func(path string) bool { return path == "docs/a.md" || path == "docs/b.md" }, func(file string) map[string]bool {
		return anchors(map[string]string{"docs/a.md": page, "docs/b.md": other}[file])
	})
	want := []string{"docs/a.md links to none.md, which is not there", "docs/a.md links to b.md#gone: no such heading",
		"docs/a.md links to #not-a-heading: no such heading", "docs/a.md links to ../../x, which is not there"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// The index of a directory names every page in it, and the index of docs those of
// the directories below, so that each page is found.
func TestTheIndexNamesEveryPage(t *testing.T) {
	all := pages(t)
	for path := range all {
		if !strings.HasPrefix(path, "docs/") || path == "docs/README.md" {
			continue
		}
		directory, name := filepath.Dir(path), filepath.Base(path)
		if name == "README.md" {
			directory, name = filepath.Dir(directory), filepath.Join(filepath.Base(directory), name)
		}
		if !strings.Contains(all[filepath.Join(directory, "README.md")], "("+name+")") {
			t.Errorf("%s/README.md does not name %s", directory, name)
		}
	}
}
