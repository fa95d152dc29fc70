package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A module of its own with a test of each kind, run as .ci/run does.
const sample = `package sample

import (
	"fmt"
	"os"
	"testing"
)

func TestPasses(t *testing.T)  { t.Log("said by a test that passes") }
func TestFails(t *testing.T)   { t.Run("inner", func(t *testing.T) { t.Error("said by a test that fails") }) }
func TestSkipped(t *testing.T) { t.Skip("said by a test that is skipped") }
func TestZNeverEnds(t *testing.T) {
	fmt.Println("said before the end")
	os.Exit(1)
}
`

func TestARunIsPrintedAndRecorded(t *testing.T) {
	directory := t.TempDir()
	for name, content := range map[string]string{"go.mod": "module sample\n\ngo 1.24\n", "sample_test.go": sample} {
		if err := os.WriteFile(filepath.Join(directory, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	record := filepath.Join(directory, "tests.jsonl")
	code, output := captured(t, func() (int, error) {
		return run([]string{"run", "--record=" + record, "go", "-C", directory, "test", "-count=1", "."})
	})
	if code != 1 {
		t.Errorf("exit code %d, want that of go test", code)
	}
	for _, want := range []string{"--- FAIL: TestFails", "said by a test that fails", "said before the end", "FAIL\tsample"} {
		if !strings.Contains(output, want) {
			t.Errorf("%q is missing in:\n%s", want, output)
		}
	}
	if strings.Contains(output, "said by a test that passes") {
		t.Errorf("a test that passes is printed:\n%s", output)
	}
	code, output = captured(t, func() (int, error) { return run([]string{"report", "--record=" + record}) })
	for _, want := range []string{"skipped: sample TestSkipped (NOT EXPECTED)", "said by a test that is skipped", "1 passed, 2 failed, 1 skipped"} {
		if !strings.Contains(output, want) {
			t.Errorf("%q is missing in:\n%s", want, output)
		}
	}
	if code != 1 {
		t.Errorf("exit code %d after a skip that is not expected, want 1", code)
	}
}

// captured runs something and returns what it printed.
func captured(t *testing.T, do func() (int, error)) (code int, output string) {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), "output"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	stdout := os.Stdout
	os.Stdout = file
	defer func() { os.Stdout = stdout }()
	code, err = do()
	content, readErr := os.ReadFile(file.Name())
	if readErr != nil {
		t.Fatal(readErr)
	}
	t.Logf("code %d, error %v", code, err)
	return code, string(content)
}

func TestSummary(t *testing.T) {
	results := []result{
		{testName{"x/test/e2e", "TestLong"}, "skip", 0, "it waits"},
		{testName{"x/test/e2e", "TestQuick"}, "pass", 1, ""},
		{testName{"x/test/e2e", "TestSlow"}, "pass", 0, ""},
		{testName{"x/test/e2e", "TestSlow/parallel"}, "pass", 20, ""},
		{testName{"x/pkg/a", "TestRoot/case"}, "skip", 0, "needs root"},
		{testName{"x/pkg/a", "TestTwice"}, "skip", 0, "not here"},
		{testName{"x/pkg/a", "TestTwice"}, "pass", 2, ""},
	}
	s := summarize(results, []skip{{"e2e", "TestLong"}, {"b", "TestRoot"}}, 2)
	want := strings.Join([]string{
		"the slowest tests:",
		"    20.0 s  e2e TestSlow",
		"     2.0 s  a TestTwice",
		"skipped: a TestRoot/case (NOT EXPECTED): needs root",
		"skipped: e2e TestLong: it waits",
		"tests: 4 passed, 0 failed, 2 skipped",
		"",
	}, "\n")
	if s.text != want {
		t.Errorf("got:\n%s\nwant:\n%s", s.text, want)
	}
	if len(s.unexpected) != 1 || s.unexpected[0] != "TestRoot/case" {
		t.Errorf("unexpected: %v", s.unexpected)
	}
}

// The exit code of a command that is no test run is an error too, and at once.
func TestACommandThatIsNoTestRun(t *testing.T) {
	start := time.Now()
	if code, err := run([]string{"run", "sleep", "60"}); err == nil || code == 0 || time.Since(start) > 10*time.Second {
		t.Errorf("code %d, error %v", code, err)
	}
}
