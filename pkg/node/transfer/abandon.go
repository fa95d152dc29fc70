package transfer

import (
	"context"
	"slices"
	"sync"
	"time"
)

// A system call on a volume may never return: its disk is gone, or its server does not
// answer, and nothing ends a call that waits for them (state D). So what works on volumes
// runs in goroutines of its own, which are abandoned when the context has ended. What they
// hold is released whenever the call returns.

// graceTime is how long work on volumes is waited for after its context has ended: a disk
// that is busy takes seconds. Tests shorten it.
var graceTime = 10 * time.Second

// errHung says that work was abandoned.
var errHung = failure(ReasonFailed, "the storage of a volume does not answer: a system call has not returned in time, and its goroutine was abandoned")

// abandonable runs work and returns what comes of it, or errHung when its context has
// ended graceTime ago. In that case late gets what comes of it later.
func abandonable[T any](ctx context.Context, work func() (T, error), late func(T)) (T, error) {
	return abandonAfter(ctx.Done(), work, late)
}

func abandonAfter[T any](done <-chan struct{}, work func() (T, error), late func(T)) (T, error) {
	type outcome struct {
		value T
		err   error
	}
	ended := make(chan outcome, 1)
	go func() {
		value, err := work()
		ended <- outcome{value, err}
	}()
	select {
	case o := <-ended:
		return o.value, o.err
	case <-done:
	}
	timer := time.NewTimer(graceTime)
	defer timer.Stop()
	select {
	case o := <-ended:
		return o.value, o.err
	case <-timer.C:
	}
	go func() { late((<-ended).value) }()
	var none T
	return none, errHung
}

// over is closed.
var over = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// briefly runs work that has no context: it is abandoned after graceTime.
func briefly(work func() error) error {
	_, err := abandonAfter(over, func() (struct{}, error) { return struct{}{}, work() }, func(struct{}) {})
	return err
}

// waitBriefly reports whether all have ended within graceTime.
func waitBriefly(all *sync.WaitGroup) bool {
	return briefly(func() error { all.Wait(); return nil }) == nil
}

// occupied has the directories that something in this process writes. What was abandoned
// may write again when its storage answers: until it has ended nothing else may begin there.
var occupied = struct {
	sync.Mutex
	paths map[string]bool
}{paths: map[string]bool{}}

// occupy reserves directories, all or none, until they are released.
func occupy(paths ...string) (release func(), err error) {
	occupied.Lock()
	defer occupied.Unlock()
	for i, path := range paths {
		if occupied.paths[path] || slices.Contains(paths[:i], path) {
			return nil, failure(ReasonFailed, "%s is in use, by what must be closed first; if it was, its storage does not answer", path)
		}
	}
	for _, path := range paths {
		occupied.paths[path] = true
	}
	return sync.OnceFunc(func() {
		occupied.Lock()
		defer occupied.Unlock()
		for _, path := range paths {
			delete(occupied.paths, path)
		}
	}), nil
}
