package documents

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/ai-storage/orchestrator/pkg/kubectl"
)

var firstCell = regexp.MustCompile("(?m)^\\| (`[^|]*(?:\\\\\\|[^|]*)*) \\|")

// rowsOfCommands are the commands that the table in kubectl.md names without
// the words kubectl migrate.
func rowsOfCommands(page string) []string {
	var commands []string
	for _, cell := range firstCell.FindAllStringSubmatch(page, -1) {
		for _, m := range inline.FindAllStringSubmatch(cell[1], -1) {
			commands = append(commands, "kubectl migrate "+strings.ReplaceAll(m[1], `\\|`, "|"))
		}
	}
	return commands
}

// flagsOfOthers are named on the pages with the program that has them: kubectl,
// Helm and the API machinery.
var flagsOfOthers = []string{"--force-conflicts", "--force", "--timeout", "--disable-eviction", "--delete-emptydir-data", "--emulated-version", "--reuse-values"}

var bareFlag = regexp.MustCompile("`(--[a-z][a-z-]*)(?:[ =][^`]*)?`")

// unknownFlags are those that a page names by themselves and nobody has.
func unknownFlags(page, known string) []string {
	var unknown []string
	for _, m := range bareFlag.FindAllStringSubmatch(fence.ReplaceAllString(page, ""), -1) {
		if !slices.Contains(flagsOfOthers, m[1]) && !regexp.MustCompile(regexp.QuoteMeta(m[1])+`\b[^-]`).MatchString(known) {
			unknown = append(unknown, m[1])
		}
	}
	return unknown
}

// checkBareFlags looks for the flags that the text names in the help of the
// programs that run in a cluster, and of every command of kubectl migrate.
func checkBareFlags(t *testing.T, world *commandWorld) {
	t.Helper()
	var known string
	for program, subcommand := range map[string]string{"scheduler": "", "rebalancer": "", "node-agent": "run"} {
		help, err := world.help(program, subcommand)
		if err != nil {
			t.Fatal(err)
		}
		known += help
	}
	for _, command := range []string{"pod", "list", "describe", "cancel", "recover", "plan", "top", "pause", "resume", "drain", "version"} {
		streams, _, out, _ := genericiooptions.NewTestIOStreams()
		if code := kubectl.Run(t.Context(), []string{command, "--help"}, streams, func() {}); code != 0 {
			t.Errorf("kubectl migrate %s --help ends with %d", command, code)
		}
		known += fmt.Sprintln(out)
	}
	// Of docker, in install.md.
	known += "--build-arg \n"
	for path, page := range pages(t) {
		for _, flag := range unknownFlags(page, known) {
			t.Errorf("%s names the flag %s, which no program that runs in a cluster has, nor kubectl migrate", path, flag)
		}
	}
}

func TestTheCheckOfFlagsCanFail(t *testing.T) {
	page := "`--wait` and `--wait-for`, `--force-conflicts`, `--dry`\n```\n`--fenced`\n```\n| `pod NAME [--to NODE]`, `list` | moves |\n| `drain` | |\n"
	if got, want := unknownFlags(page, "  --wait   waits\n  --dry-run\n"), []string{"--wait-for", "--dry"}; !slices.Equal(got, want) {
		t.Errorf("unknown: %q, want %q", got, want)
	}
	if got, want := rowsOfCommands(page), []string{"kubectl migrate pod NAME [--to NODE]", "kubectl migrate list", "kubectl migrate drain"}; !slices.Equal(got, want) {
		t.Errorf("rows: %q, want %q", got, want)
	}
}
