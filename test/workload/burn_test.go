package main

import (
	"context"
	"testing"
	"time"
)

// fakeMachine has one thread. A step of work takes wall time and, where the
// machine is not busy with others, as much CPU time.
type fakeMachine struct {
	now      time.Time
	cpu      time.Duration
	step     time.Duration
	busy     bool
	wakeCost time.Duration
}

func (m *fakeMachine) Now() time.Time     { return m.now }
func (m *fakeMachine) CPU() time.Duration { return m.cpu }
func (m *fakeMachine) Work() {
	m.now = m.now.Add(m.step)
	if m.busy {
		m.cpu += m.step / 10
		return
	}
	m.cpu += m.step
}
func (m *fakeMachine) Sleep(_ context.Context, d time.Duration) {
	m.now = m.now.Add(d)
	m.cpu += m.wakeCost
}

func TestBurnerUsesItsShare(t *testing.T) {
	const elapsed = 10 * time.Second
	for _, test := range []struct {
		name     string
		milliCPU int64
		machine  fakeMachine
		want     time.Duration
	}{
		{"a twentieth", 50, fakeMachine{step: 100 * time.Microsecond}, elapsed / 20},
		{"three tenths", 300, fakeMachine{step: 100 * time.Microsecond}, elapsed * 3 / 10},
		{"coarse work is paid back", 50, fakeMachine{step: 2 * time.Millisecond}, elapsed / 20},
		{"waking up counts", 50, fakeMachine{step: 100 * time.Microsecond, wakeCost: time.Millisecond}, elapsed / 20},
		{"the whole thread", 1000, fakeMachine{step: 100 * time.Microsecond}, elapsed},
		{"a busy machine is not made up for", 300, fakeMachine{step: 100 * time.Microsecond, busy: true}, elapsed / 10},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := test.machine
			burner := newBurner(&m, test.milliCPU)
			for begin := m.now; m.now.Sub(begin) < elapsed; {
				burner.period(context.Background())
			}
			if difference := (m.cpu - test.want).Abs(); difference > test.want/50 {
				t.Errorf("used %s in %s, want %s", m.cpu, elapsed, test.want)
			}
		})
	}
}

func TestBurnerAfterAStallDoesNotCatchUp(t *testing.T) {
	m := &fakeMachine{step: 100 * time.Microsecond, busy: true}
	burner := newBurner(m, 500)
	for range 20 {
		burner.period(context.Background())
	}
	m.busy = false
	before, start := m.cpu, m.now
	for range 20 {
		burner.period(context.Background())
	}
	if used, want := m.cpu-before, m.now.Sub(start)/2; (used - want).Abs() > want/50 {
		t.Errorf("used %s in %s after the stall, want %s", used, m.now.Sub(start), want)
	}
}

// The real clock of this process: never more than the share, which a busy
// machine may not grant in full.
func TestBurnOnThisMachine(t *testing.T) {
	const share = 400
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	start, startCPU := time.Now(), process{}.CPU()
	burn(ctx, share)
	used, elapsed := process{}.CPU()-startCPU, time.Since(start)
	got := int64(1000 * used / elapsed)
	if got > share*5/4 || got < share/10 {
		t.Errorf("used %dm, want about %dm", got, share)
	}
}

func TestOccupy(t *testing.T) {
	memory, err := occupy(1 << 20)
	if err != nil || len(memory) != 1<<20 {
		t.Fatalf("occupy gave %d bytes, error %v", len(memory), err)
	}
	if memory, err := occupy(0); memory != nil || err != nil {
		t.Errorf("occupy(0) = %d bytes, %v", len(memory), err)
	}
}
