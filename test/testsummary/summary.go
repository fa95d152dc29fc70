package main

import (
	"cmp"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
)

// skip is a test that may be skipped, with its subtests. The last elements of its
// package are enough.
type skip struct{ Package, Test string }

// loadSkips reads lines of a package and a test; # begins a comment.
func loadSkips(file string) (skips []skip, err error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	for number, line := range strings.Split(string(content), "\n") {
		line, _, _ = strings.Cut(line, "#")
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		if len(fields) != 2 {
			return nil, fmt.Errorf("%s:%d: want a package and a test, not %q", file, number+1, line)
		}
		skips = append(skips, skip{fields[0], fields[1]})
	}
	return skips, nil
}

func (s skip) covers(name testName) bool {
	return (name.Package == s.Package || strings.HasSuffix(name.Package, "/"+s.Package)) &&
		(name.Test == s.Test || strings.HasPrefix(name.Test, s.Test+"/"))
}

type summary struct {
	text       string
	unexpected []string
}

// summarize names the slowest tests and all that were skipped. The last of the results
// of a test counts: it may have been run by two commands.
func summarize(results []result, expected []skip, slowest int) (s summary) {
	last := map[testName]result{}
	for _, r := range results {
		if old, known := last[r.testName]; !known || old.Action == "skip" {
			last[r.testName] = r
		}
	}
	counts := map[string]int{}
	var all, skipped []result
	for _, r := range last {
		counts[r.Action]++
		if !strings.Contains(r.Test, "/") {
			r.Seconds = longest(r, last)
			all = append(all, r)
		}
		if r.Action == "skip" {
			skipped = append(skipped, r)
		}
	}
	slices.SortFunc(all, func(a, b result) int {
		return cmp.Or(cmp.Compare(b.Seconds, a.Seconds), cmp.Compare(a.Package, b.Package), cmp.Compare(a.Test, b.Test))
	})
	slices.SortFunc(skipped, func(a, b result) int { return cmp.Or(cmp.Compare(a.Package, b.Package), cmp.Compare(a.Test, b.Test)) })
	var text strings.Builder
	fmt.Fprintf(&text, "the slowest tests:\n")
	for _, r := range all[:min(slowest, len(all))] {
		fmt.Fprintf(&text, "%8.1f s  %s %s\n", r.Seconds, path.Base(r.Package), r.Test)
	}
	for _, r := range skipped {
		note := ""
		if !slices.ContainsFunc(expected, func(e skip) bool { return e.covers(r.testName) }) {
			note = " (NOT EXPECTED)"
			s.unexpected = append(s.unexpected, r.Test)
		}
		fmt.Fprintf(&text, "skipped: %s %s%s: %s\n", path.Base(r.Package), r.Test, note, r.Reason)
	}
	fmt.Fprintf(&text, "tests: %d passed, %d failed, %d skipped\n", counts["pass"], counts["fail"], counts["skip"])
	s.text = text.String()
	return s
}

// longest is how long a test took, or the longest of its subtests: go test does not
// count the time in which a test waits for subtests that are parallel.
func longest(r result, all map[testName]result) float64 {
	seconds := r.Seconds
	for name, other := range all {
		if name.Package == r.Package && strings.HasPrefix(name.Test, r.Test+"/") {
			seconds = max(seconds, other.Seconds)
		}
	}
	return seconds
}
