package words

import (
	"regexp"
	"strings"
)

// word is a regular expression, read without regard to case, and what to say
// instead. Identifiers are split at their humps before it is applied, so
// "stand still" finds standStill, too; it is applied to the line as it stands as
// well. Every match contains the hint in lower case, which saves most of the time.
// Bad is a line that it finds, good one that it does not.
type word struct{ hint, expression, instead, bad, good string }

var words = []word{
	{"folder", `\bfolders?\b`, "directory", "the folder of the agent", "the directory"},
	{"still", `\b(stands?|stood|standing) still\b`, "freeze, frozen, paused", "ReasonStandStill", "what still stands in the table"},
	{"on", `\b(go|goes|went|going) on\b(?: (?:with|as|where|by|until|when|if|its|their|after|in|for|while|alone|meanwhile)\b|[.,:;)"']|$)`, "continue, run, thaw", "the original goes on.", "the pods that go on node a and b"},
	{"go", `\b(let|lets|letting)( \w+){0,2} go\b`, "evict, release, thaw", "func letGo()", "it lets each Gopher run"},
	{"back", `\b(put|puts|putting)( \w+)? back\b`, "roll back, restore", "everything is put back", "put the backup there"},
	{"back", `\b(take|takes|taken|took|taking)( \w+){0,2} back\b`, "undo, revert, roll back", "takeBack()", "it takes the backup"},
	{"giveup", `\bgiveUp`, "begin the rollback, fail", "st.giveUp(reason)", "it gives up after a minute"},
	{"good", `\bfails? for good\b`, "fail permanently", "failForGood()", "it fails for a good reason"},
	{"over", `\bstart(s|ing|ed)? over\b`, "restart the preparation", "Starting over: it changed", "it starts overutilized"},
	{"anew", `\b(make|makes|made|making|place[sd]?|create[sd]?)( \w+)? anew\b`, "recreate", "the pod was made anew", "a newer pod was created"},
	{"again", `\bmade again\b`, "recreated", "the pod is made again", "it is made against the API"},
	{"somebody", `\bsomebody\b`, "another client, a user", "deleted by somebody else", "deleted by another client"},
	{"alone", `\bleft alone\b|\bleav(e|es|ing)( \w+){0,4} alone\b`, "skipped, skip", "LeftAloneNode", "what is left, alone of all"},
	{"hot", `\bhot(ter|test)?\b`, "overutilized", "hotNodes", "a hotfix"},
	{"node", `\b(cool(er|est)?|cold(er|est)?) nodes?\b`, "underutilized", "coldNodes", "the nodes cool down"},
	{"apprais", `\bapprais(e|er|es|al|als)\b`, "preflight, check", "type Appraiser interface", "a praise"},
	{"dut", `\bdut(y|ies)\b`, "task", "sourceDuty", "a dutiful agent"},
	{"people", `\bfor people\b`, "human-readable, for users", "a sentence for people", "four people"},
	{"t", `\b(is|are|was|were|be) told\b|\btells? (of|about|all)\b`, "is reported, reports", "the agent is told of it", "tell me"},
	{"ask", `\b(pods?|containers?|tasks?|replacements?|originals?|steps?|workloads?)( \w+)? ask(s|ed)? for\b`, "request", "the pod asks for 1 GiB", "the client asks for a token"},
	{"room", `\bpure rooms?\b|\brooms? of the (code|house|tree)\b|\brooms of\b`, "package", "the rooms of the code", "no node has room for it"},
	{"house", `\bhouse\b`, "code, layout", "how the house is laid", "warehouse"},
	{"visitor", `\bvisitors?\b`, "running exec probes", "hasVisitors()", "a visit"},
	{"forgotten", `\bforgotten\b`, "orphaned", "the forgotten pods", "what it forgets"},
	{"board", `\bboard\b`, "status store", "Board.Publish()", "the dashboard"},
	{"fence", `\bFence(d?[A-Z]\w*)?\b`, "rollback barrier", "FencedAnnotation", "a fencing match"},
	{"e", `\b(GivesWay|KeepsPlace|DoesGiveWay)\b`, "WithLowestDeletionCost, WithoutDeletionCost", "owners.GivesWay(pod)", "it gives way"},
	{"work", `\bis working\b|\bworks on node\b|\breplacement works\b`, "is ready", "isWorking(pod)", "how the cache works"},
	{"as ever", `\bas ever\b`, "as usual", "pods are created as ever", "as every pod"},
	{"after", `\blook(s|ed|ing)? after\b`, "manage, or what it does", "Cannot look after frozen pods", "looks afterwards"},
	{"mend", `\bmend(s|ed|ing)?\b`, "fix, repair, correct", "mend the node", "recommended"},
	{`"why"`, `\b(Info|Error)\(.*"why"`, `"reason" as a log key`, `log.Info("Skipped", "why", reason)`, `"why": "a field of a golden"`},
}

// allowance lets a word be where it is right. The expression is that of the word;
// where is the beginning of a path, or a path.
type allowance struct{ expression, where, reason string }

var allowed = []allowance{
	{`\bleft alone\b|\bleav(e|es|ing)( \w+){0,4} alone\b`, "CHANGELOG.md", "names of before"},
	{`\bhot(ter|test)?\b`, "CHANGELOG.md", "names of before"},
	{`\bFence(d?[A-Z]\w*)?\b`, "test/documents/", "the fences of blocks in Markdown"},
}

var hump = regexp.MustCompile(`([a-z0-9])([A-Z])`)

// split separates the humps of identifiers: letGo becomes let Go.
func split(line string) string { return hump.ReplaceAllString(line, "$1 $2") }

// finder applies a word to a line.
type finder struct {
	word
	matches *regexp.Regexp
}

func finders() []finder {
	var found []finder
	for _, w := range words {
		found = append(found, finder{w, regexp.MustCompile("(?i)" + w.expression)})
	}
	return found
}

// line is one of a file, in the three forms that the words are looked for in.
type line struct{ raw, split, lower string }

func lineOf(text string) line {
	apart := split(text)
	return line{text, apart, strings.ToLower(text + "\n" + apart)}
}

// find returns what is said in the line, and nothing when the word is not in it.
func (f *finder) find(l line) string {
	if !strings.Contains(l.lower, f.hint) {
		return ""
	}
	if m := f.matches.FindString(l.raw); m != "" {
		return m
	}
	return f.matches.FindString(l.split)
}

// isAllowed reports whether a word may be in a file.
func isAllowed(expression, path string) bool {
	for _, a := range allowed {
		if a.expression == expression && strings.HasPrefix(path, a.where) {
			return true
		}
	}
	return false
}
