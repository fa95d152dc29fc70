package documents

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/ai-storage/orchestrator/pkg/kubectl"
)

// Programs of ours that the pages name in commands, by the words before their
// arguments.
var programs = map[string]string{
	"scheduler": "scheduler", "rebalancer": "rebalancer", "node-agent": "node-agent", "devcluster": "devcluster", "kubectl migrate": "kubectl-migrate",
}

var (
	shellBlock = regexp.MustCompile("(?ms)^```(?:sh|bash|shell|console)?\n(.*?)^```$")
	indented   = regexp.MustCompile(`(?m)(?:^    \S.*\n?)+`)
	inline     = regexp.MustCompile("`([^`\n]+)`")
	separators = regexp.MustCompile(`\s(?:\||&&|;|>|<)\s`)
	flagWord   = regexp.MustCompile(`^(--[a-z][a-z0-9-]*|-[a-zA-Z])(?:=.*)?$`)
)

// commandsIn are the commands that a page shows: in blocks, and in the text as
// code.
func commandsIn(page string) []string {
	var lines []string
	add := func(block string) {
		lines = append(lines, strings.Split(strings.ReplaceAll(block, "\\\n", " "), "\n")...)
	}
	for _, block := range shellBlock.FindAllStringSubmatch(page, -1) {
		add(block[1])
	}
	text := fence.ReplaceAllString(page, "")
	for _, block := range indented.FindAllString(text, -1) {
		add(block)
	}
	for _, m := range inline.FindAllStringSubmatch(text, -1) {
		add(m[1])
	}
	var commands []string
	for _, line := range lines {
		line = strings.TrimPrefix(strings.TrimSpace(line), "$ ")
		if comment := strings.Index(line+" ", " # "); comment >= 0 {
			line = line[:comment]
		}
		commands = append(commands, separators.Split(line, -1)...)
	}
	return commands
}

// invocation is a command of make or of a program of ours.
type invocation struct {
	program string
	args    []string
}

// invocationOf finds what a command calls; not everything is ours.
func invocationOf(command string) (invocation, bool) {
	words := strings.Fields(command)
	for len(words) > 0 && regexp.MustCompile(`^[A-Z_0-9]+=`).MatchString(words[0]) {
		words = words[1:]
	}
	if len(words) < 2 {
		return invocation{}, false
	}
	name := strings.TrimPrefix(words[0], "bin/")
	if name == "make" {
		return invocation{"make", words[1:]}, true
	}
	if name == "kubectl" && words[1] == "migrate" {
		return invocation{"kubectl-migrate", words[2:]}, true
	}
	program, ours := programs[name]
	return invocation{program, words[1:]}, ours
}

// problemOf says what is wrong with an invocation: a target, a variable, a
// command or a flag that does not exist.
func (world *commandWorld) problemOf(i invocation) string {
	if i.program == "make" {
		return world.problemOfMake(i.args)
	}
	subcommand := ""
	if i.program == "devcluster" || i.program == "kubectl-migrate" {
		if len(i.args) == 0 || strings.HasPrefix(i.args[0], "-") {
			return ""
		}
		subcommand = i.args[0]
		if !regexp.MustCompile(`^[a-z]+$`).MatchString(subcommand) {
			return "" // a word for a command, such as SUBCOMMAND
		}
	}
	help, err := world.help(i.program, subcommand)
	if err != nil {
		return err.Error()
	}
	for _, word := range i.args {
		m := flagWord.FindStringSubmatch(strings.Trim(word, "[],"))
		if m != nil && m[1] != "--help" && !regexp.MustCompile(`(^|[\s,])`+regexp.QuoteMeta(m[1])+`([\s,=\[]|$)`).MatchString(help) {
			return fmt.Sprintf("%s %s has no flag %s", i.program, subcommand, m[1])
		}
	}
	return ""
}

func (world *commandWorld) problemOfMake(args []string) string {
	for _, word := range args {
		name, _, isVariable := strings.Cut(word, "=")
		switch {
		case isVariable && !strings.Contains(world.makefile, name):
			return "make knows no variable " + name
		case !isVariable && regexp.MustCompile(`^[a-z][a-z0-9-]*$`).MatchString(word) && !strings.Contains(world.makefile, "\n"+word+":"):
			return "make has no target " + word
		}
	}
	return ""
}

// commandWorld is what commands are held against.
type commandWorld struct {
	makefile string
	help     func(program, subcommand string) (string, error)
}

// newCommandWorld asks the programs for help. Those that are not run within this
// process are built as make builds them, so that what was compiled counts.
func newCommandWorld(t *testing.T) *commandWorld {
	t.Helper()
	dir, known := t.TempDir(), map[string]string{}
	return &commandWorld{makefile: read(t, "Makefile"), help: func(program, subcommand string) (string, error) {
		key := program + " " + subcommand
		if help, ok := known[key]; ok {
			return help, nil
		}
		help, err := helpOf(t.Context(), dir, program, append(strings.Fields(subcommand), "--help"))
		if err != nil {
			return "", err
		}
		// cobra shows the help of the root when it does not know the command.
		if subcommand != "" && !regexp.MustCompile(`Usage:\n\s+\S+( migrate)? `+subcommand+`\b`).MatchString(help) {
			return "", fmt.Errorf("%s has no command %q", program, subcommand)
		}
		known[key] = help
		return help, nil
	}}
}

func helpOf(ctx context.Context, dir, program string, args []string) (string, error) {
	if program == "kubectl-migrate" {
		streams, _, out, errOut := genericiooptions.NewTestIOStreams()
		if code := kubectl.Run(ctx, args, streams, func() {}); code != 0 {
			return "", fmt.Errorf("kubectl migrate %v ends with %d: %s", args, code, errOut)
		}
		return out.String(), nil
	}
	path := filepath.Join(dir, program)
	if _, err := os.Stat(path); err != nil {
		directory, source := repository, "./cmd/"+program
		if program == "devcluster" { // of the module of the tests
			directory, source = filepath.Join(repository, "test"), "./devcluster/cmd"
		}
		command := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path, source)
		command.Dir, command.Env = directory, append(os.Environ(), "CGO_ENABLED=0")
		if out, err := command.CombinedOutput(); err != nil {
			return "", fmt.Errorf("building %s: %w\n%s", program, err, out)
		}
	}
	// pflag's own programs end with 2 after their help.
	out, err := exec.CommandContext(ctx, path, args...).CombinedOutput()
	if len(out) == 0 {
		return "", fmt.Errorf("%s %v says nothing: %w", program, args, err)
	}
	return string(out), nil
}

func TestCommandsExist(t *testing.T) {
	if testing.Short() {
		t.Skip("builds programs")
	}
	world, found := newCommandWorld(t), map[string]int{}
	for path, page := range pages(t) {
		commands := commandsIn(page)
		if path == "docs/kubectl.md" {
			commands = append(commands, rowsOfCommands(page)...)
		}
		for _, command := range commands {
			i, ours := invocationOf(command)
			if !ours {
				continue
			}
			found[i.program]++
			if problem := world.problemOf(i); problem != "" {
				t.Errorf("%s: %q: %s", path, command, problem)
			}
		}
	}
	checkBareFlags(t, world)
	for _, program := range []string{"make", "rebalancer", "devcluster", "kubectl-migrate"} {
		if found[program] < 2 {
			t.Errorf("only %d commands of %s were found", found[program], program)
		}
	}
}

func TestTheCheckOfCommandsCanFail(t *testing.T) {
	world := &commandWorld{makefile: "VERSION ?= 1\n\ndemo: build\n", help: func(program, subcommand string) (string, error) {
		if subcommand == "nothing" {
			return "", fmt.Errorf("no command")
		}
		return "  -A, --all-namespaces\n      --wait\n", nil
	}}
	page := "Use `bin/devcluster nothing`, or `kubectl migrate pod X --wait -A` and\n\n    make demo VERSION=2   # make that\n    make demo2\n    make demo COLOUR=red\n\n" +
		"```sh\nX=1 kubectl migrate pod X \\\n  --to node-b\n$ rebalancer --dry\n```\n"
	var problems []string
	for _, command := range commandsIn(page) {
		if i, ours := invocationOf(command); ours {
			if problem := world.problemOf(i); problem != "" {
				problems = append(problems, problem)
			}
		}
	}
	want := []string{"kubectl-migrate pod has no flag --to", "rebalancer  has no flag --dry", "make has no target demo2", "make knows no variable COLOUR", "no command"}
	if !slices.Equal(problems, want) {
		t.Errorf("got %q, want %q", problems, want)
	}
}
