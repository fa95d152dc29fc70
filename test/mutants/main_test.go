package main

import (
	"strings"
	"testing"
)

const root = "../.."

// TestMutantsApply: a mutant that no longer applies checks nothing.
func TestMutantsApply(t *testing.T) {
	names := map[string]bool{}
	for _, m := range mutants {
		if names[m.name] {
			t.Errorf("two mutants are called %q", m.name)
		}
		names[m.name] = true
		if _, err := m.apply(root); err != nil {
			t.Error(err)
		}
	}
}

// TestASurvivorIsSeen: a change that no test can notice survives, one that breaks
// everything is killed.
func TestASurvivorIsSeen(t *testing.T) {
	harmless := mutant{name: "harmless", file: "pkg/scheduling/budget/doc.go", text: "package budget", changed: "package budget // as before"}
	killed, err := harmless.test(t.Context(), root)
	if err != nil || killed {
		t.Errorf("a change of a comment: killed %v, error %v, want a survivor", killed, err)
	}
	broken := mutant{name: "broken", file: "pkg/scheduling/budget/doc.go", text: "package budget", changed: "package budget\n\nfunc init() { panic(\"mutant\") }"}
	if killed, err = broken.test(t.Context(), root); err != nil || !killed {
		t.Errorf("a change that breaks every test: killed %v, error %v, want a killed one", killed, err)
	}
	absent := mutant{name: "absent", file: "pkg/scheduling/budget/doc.go", text: "no such text"}
	if _, err := absent.test(t.Context(), root); err == nil || !strings.Contains(err.Error(), "0 times") {
		t.Errorf("a mutant that does not apply: error %v", err)
	}
}
