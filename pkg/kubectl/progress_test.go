package kubectl

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// A terminal sees one line for each phase: what is drawn over is gone.
func TestLiveProgress(t *testing.T) {
	var out bytes.Buffer
	clock := noon
	p := newProgress(&out, func() time.Time { return clock }, 60)
	pass := func(d time.Duration) { clock = clock.Add(d) }
	m := &v1alpha1.PodMigration{}
	p.see(m)
	pass(1500 * time.Millisecond)
	p.tick()
	accept(m)
	p.see(m)
	pass(2 * time.Second)
	p.complain(errors.New("connection refused"))
	pass(time.Second)
	m.Status.Message = "a message that is far too long for a line of a terminal as narrow as this one"
	p.see(m)
	pass(time.Second)
	succeed(m)
	p.see(m)
	p.end()
	p.end()

	var lines []string
	for line := range strings.Lines(out.String()) {
		drawn := strings.Split(strings.TrimSuffix(line, "\n"), "\r\x1b[K")
		lines = append(lines, drawn[len(drawn)-1])
	}
	want := []string{
		"Pending        1.5s  ",
		"Preparing      4.0s  ",
		"Succeeded      5.5s  moved from node node-a to node node-b…",
	}
	if len(lines) != len(want) {
		t.Fatalf("%d lines: %q", len(lines), lines)
	}
	for i := range want {
		if lines[i] != want[i] {
			t.Errorf("line %d: %q, want %q", i, lines[i], want[i])
		}
		if length := len([]rune(lines[i])); length >= 60 {
			t.Errorf("line %d has %d characters, which a terminal of 60 wraps", i, length)
		}
	}
	if !strings.Contains(out.String(), "retrying: connection refused") {
		t.Errorf("trouble is not shown: %q", out.String())
	}
}

func TestPlainProgressRepeatsNothing(t *testing.T) {
	var out bytes.Buffer
	p := newProgress(&out, func() time.Time { return noon }, 0)
	m := through(asked("m", 0), accept)
	for range 3 {
		p.see(m)
		p.tick()
	}
	p.complain(errors.New("timeout"))
	p.complain(errors.New("timeout"))
	p.see(m)
	p.end()
	want := []string{"preparing to move", "retrying: timeout", "preparing to move"}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != len(want) {
		t.Fatalf("%d lines: %q", len(lines), lines)
	}
	for i := range want {
		if !strings.Contains(lines[i], want[i]) {
			t.Errorf("line %d: %q, want %q", i, lines[i], want[i])
		}
	}
}
