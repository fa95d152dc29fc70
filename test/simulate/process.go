package simulate

import (
	"iter"
	"time"
)

// process is an actor that gives way whenever it waits: a coroutine. The world resumes
// it, one at a time.
type process struct {
	name string
	// wait is what the coroutine yields: for how long it wants to sleep.
	next  func() (time.Duration, bool)
	stop  func()
	ended bool
	// calls counts the calls to the API server of the actor that the process is of.
	calls *int
	// held is true while the process must not be resumed: it stalls.
	held bool
	// skew is by how much the clock of its machine is ahead.
	skew  time.Duration
	yield func(time.Duration) bool
}

// crashed unwinds a process whose machine or program ends.
type crashed struct{}

// spawn starts a process at the current moment. done runs when it has ended by itself,
// and not when it was killed.
func (w *world) spawn(name string, skew time.Duration, calls *int, body func(p *process), done func()) *process {
	p := &process{name: name, skew: skew, calls: calls}
	killed := false
	p.next, p.stop = iter.Pull(func(yield func(time.Duration) bool) {
		p.yield = yield
		defer func() {
			if r := recover(); r != nil {
				if _, is := r.(crashed); !is {
					panic(r)
				}
				killed = true
			}
		}()
		body(p)
	})
	w.processes = append(w.processes, p)
	w.at(w.now, func() { w.resume(p, done, &killed) })
	return p
}

func (w *world) resume(p *process, done func(), killed *bool) {
	if p.ended {
		return
	}
	if p.held {
		w.at(w.now+stallPoll, func() { w.resume(p, done, killed) })
		return
	}
	before, actor := w.running, w.actor
	w.running = p
	sleep, more := p.next()
	w.running, w.actor = before, actor
	if more {
		w.at(w.now+sleep, func() { w.resume(p, done, killed) })
		return
	}
	p.ended = true
	if done != nil && !*killed {
		done()
	}
}

// stallPoll is how often a process that stalls is looked at again.
const stallPoll = 100 * time.Millisecond

// sleep gives way for a while. A process that was killed meanwhile ends here.
func (p *process) sleep(d time.Duration) {
	if !p.yield(d) {
		panic(crashed{})
	}
}

// kill ends a process where it waits.
func (p *process) kill() {
	if !p.ended {
		p.ended = true
		p.stop()
	}
}
