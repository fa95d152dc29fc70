// Command mutants runs hand-made mutants: each is one change of one line that
// breaks a promise of the product, and some test must notice it. A mutant that
// all its tests accept has survived, which is a failure.
//
//	mutants -root .. [-only NAME]
//
// The sources are not touched: `go test -overlay` compiles the mutant in place
// of its file. Exit status 1 is for a survivor, 2 of a mutant that does not
// apply or does not compile.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"
)

func main() {
	root := flag.String("root", "..", "directory of the product's module")
	only := flag.String("only", "", "run the mutants whose name contains this")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	survivors, err := run(ctx, *root, *only, os.Stdout)
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(2)
	case survivors > 0:
		os.Exit(1)
	}
}

// run prints a line for each mutant and the score. It returns how many survived.
func run(ctx context.Context, root, only string, out io.Writer) (int, error) {
	chosen := mutants
	if only != "" {
		chosen = nil
		for _, m := range mutants {
			if strings.Contains(m.name, only) {
				chosen = append(chosen, m)
			}
		}
	}
	if len(chosen) == 0 {
		return 0, fmt.Errorf("no mutant's name contains %q", only)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	survivors := 0
	for _, m := range chosen {
		began := time.Now()
		killed, err := m.test(ctx, root)
		if err != nil {
			return survivors, errors.Join(err, w.Flush())
		}
		verdict := "killed"
		if !killed {
			verdict = "SURVIVED"
			survivors++
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%.1f s\n", verdict, m.name, m.file, time.Since(began).Seconds())
	}
	fmt.Fprintf(w, "score: %d of %d killed\n", len(chosen)-survivors, len(chosen))
	return survivors, w.Flush()
}

// mutant is one change. The text must stand exactly once in the file.
type mutant struct {
	name, file    string
	text, changed string
	// packages are those whose tests must notice, relative to the root; the file's
	// own where it is empty.
	packages []string
}

// apply returns the changed content of the file.
func (m mutant) apply(root string) (string, error) {
	content, err := os.ReadFile(filepath.Join(root, m.file))
	if err != nil {
		return "", fmt.Errorf("mutant %q: %w", m.name, err)
	}
	if found := strings.Count(string(content), m.text); found != 1 {
		return "", fmt.Errorf("mutant %q: its text stands %d times in %s, want once", m.name, found, m.file)
	}
	return strings.Replace(string(content), m.text, m.changed, 1), nil
}

// test reports whether a test failed with the mutant in place.
func (m mutant) test(ctx context.Context, root string) (bool, error) {
	content, err := m.apply(root)
	if err != nil {
		return false, err
	}
	directory, err := os.MkdirTemp("", "mutant")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(directory)
	overlay, err := m.overlay(root, directory, content)
	if err != nil {
		return false, fmt.Errorf("mutant %q: %w", m.name, err)
	}
	packages := m.packages
	if len(packages) == 0 {
		packages = []string{"./" + filepath.Dir(m.file)}
	}
	out, err := goTest(ctx, root, overlay, packages)
	if strings.Contains(out, "[build failed]") || strings.Contains(out, "[setup failed]") {
		return false, fmt.Errorf("mutant %q does not compile:\n%s", m.name, out)
	}
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || ctx.Err() != nil) {
		return false, fmt.Errorf("mutant %q: %w", m.name, err)
	}
	return err != nil, nil
}

// overlay writes the mutant and the map that puts it in place of its file.
func (m mutant) overlay(root, directory, content string) (string, error) {
	original, err := filepath.Abs(filepath.Join(root, m.file))
	if err != nil {
		return "", err
	}
	changed := filepath.Join(directory, filepath.Base(m.file))
	if err := os.WriteFile(changed, []byte(content), 0o600); err != nil {
		return "", err
	}
	replace, err := json.Marshal(map[string]map[string]string{"Replace": {original: changed}})
	if err != nil {
		return "", err
	}
	overlay := filepath.Join(directory, "overlay.json")
	return overlay, os.WriteFile(overlay, replace, 0o600)
}

func goTest(ctx context.Context, root, overlay string, packages []string) (string, error) {
	command := exec.CommandContext(ctx, "go", append([]string{"test", "-overlay", overlay, "-vet=off", "-failfast", "-timeout=5m"}, packages...)...)
	command.Dir = root
	out, err := command.CombinedOutput()
	return string(out), err
}
