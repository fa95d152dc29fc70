package kubectl

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestCompletion(t *testing.T) {
	b := newBench(t, trainer().Obj(), web("web-0").Phase(corev1.PodSucceeded).Obj(), node("node-a"), node("node-b"),
		through(asked("done", 0), accept, succeed), through(asked("under-way", 0), accept),
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "team-b"}})
	for args, want := range map[string]string{
		"pod ":                      "trainer",
		"pod trainer ":              "",
		"pod trainer --to ":         "node-a node-b",
		"pod --checkpoint-claim ":   "WhenNeeded Always Never",
		"pod --checkpoint-mode ":    "Frozen Process Live Application None",
		"drain --fallback ":         "None FreshStart",
		"drain ":                    "node-a node-b",
		"top node-a ":               "node-b",
		"describe ":                 "done under-way",
		"describe done ":            "under-way",
		"cancel ":                   "under-way",
		"list --phase ":             "Pending Preparing Placing HandingOver Succeeded Failed Cancelled",
		"top --sort-by ":            "name cpu cpu-reclaimable cpu-requested memory memory-reclaimable memory-requested pods",
		"pod --namespace ":          "team-b",
		"pause --system-namespace ": "team-b",
	} {
		got := b.run(append([]string{"__complete"}, strings.Split(args, " ")...)...)
		var names []string
		for line := range strings.Lines(got.out) {
			if name := nameOf(strings.TrimSpace(line)); name != "" && !strings.HasPrefix(name, ":") {
				names = append(names, name)
			}
		}
		if joined := strings.Join(names, " "); joined != want || got.code != ExitDone {
			t.Errorf("%q completes to %q, want %q (%s)", args, joined, want, got)
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if got := b.run("completion", shell); got.code != ExitDone || !strings.Contains(got.out, "kubectl-migrate") {
			t.Errorf("%s: %s", shell, got)
		}
	}
}

func TestRoot(t *testing.T) {
	b := newBench(t)
	for _, args := range [][]string{{}, {"--help"}} {
		if got := b.run(args...); got.code != ExitDone || !strings.Contains(got.out, exitCodesHelp) || !strings.Contains(got.out, "kubectl migrate [command]") {
			t.Errorf("%v: %s", args, got)
		}
	}
	for args, says := range map[string]string{"lst": "did you mean list?", "nonsense": `unknown command "nonsense"`, "list extra": "takes no arguments"} {
		if got := b.run(strings.Fields(args)...); got.code != ExitUsage || !strings.Contains(got.err, says) {
			t.Errorf("%s: %s", args, got)
		}
	}
	if got := b.run("version", "--client"); got.code != ExitDone || !strings.Contains(got.out, "kubectl migrate ") {
		t.Error(got)
	}
	if got := b.run("version", "-o", "yaml"); got.code != ExitDone || !strings.Contains(got.out, "api: migration.ai-storage/v1alpha1") || !strings.Contains(got.out, "served: true") {
		t.Error(got)
	}
}
