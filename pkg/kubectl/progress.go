package kubectl

import (
	"fmt"
	"io"
	"time"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// progress shows how far a migration is: a terminal has one line for each phase,
// in which time goes by; everything else gets a line for each thing that is new.
type progress struct {
	out io.Writer
	now func() time.Time
	// width of the terminal; 0 where there is none.
	width int

	began, phaseBegan time.Time
	phase             v1alpha1.Phase
	message           string
	trouble           string
}

func newProgress(out io.Writer, now func() time.Time, width int) *progress {
	return &progress{out: out, now: now, width: width, began: now(), phaseBegan: now()}
}

// see takes in a new state of the migration.
func (p *progress) see(m *v1alpha1.PodMigration) {
	phase := m.Status.Phase
	if phase == "" {
		phase = v1alpha1.PhasePending
	}
	isNew := phase != p.phase || m.Status.Message != p.message || p.trouble != ""
	p.trouble = ""
	if p.isLive() && p.phase != "" && phase != p.phase {
		p.message = ""
		p.draw()
		fmt.Fprintln(p.out)
	}
	if phase != p.phase {
		p.phase, p.phaseBegan = phase, p.now()
	}
	p.message = m.Status.Message
	switch {
	case p.isLive():
		p.draw()
	case isNew:
		fmt.Fprintf(p.out, "%6s  %-11s  %s\n", elapsed(p.now().Sub(p.began)), p.phase, p.message)
	}
}

// complain shows why nothing can be seen at the moment, once.
func (p *progress) complain(err error) {
	if p.trouble == err.Error() {
		return
	}
	p.trouble = err.Error()
	if p.isLive() {
		p.draw()
		return
	}
	fmt.Fprintf(p.out, "%6s  %-11s  retrying: %s\n", elapsed(p.now().Sub(p.began)), p.phase, p.trouble)
}

// tick updates the time in the live line.
func (p *progress) tick() {
	if p.isLive() && p.phase != "" {
		p.draw()
	}
}

// end leaves the live line behind.
func (p *progress) end() {
	if p.isLive() && p.phase != "" {
		fmt.Fprintln(p.out)
	}
	p.phase = ""
}

func (p *progress) isLive() bool { return p.width > 0 }

// draw writes the line of the phase over what is there.
func (p *progress) draw() {
	words := p.message
	if p.trouble != "" {
		words = "retrying: " + p.trouble
	}
	line := fmt.Sprintf("%-11s %7s  %s", p.phase, elapsed(p.now().Sub(p.phaseBegan)), words)
	if p.phase.IsFinished() {
		line = fmt.Sprintf("%-11s %7s  %s", p.phase, elapsed(p.now().Sub(p.began)), words)
	}
	fmt.Fprintf(p.out, "\r\x1b[K%s", cut(line, p.width-1))
}

func cut(line string, width int) string {
	runes := []rune(line)
	if len(runes) <= width {
		return line
	}
	return string(runes[:max(0, width-1)]) + "…"
}
