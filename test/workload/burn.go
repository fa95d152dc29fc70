package main

import (
	"context"
	"math/rand/v2"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// burnPeriod is short enough that any measurement sees the average.
const burnPeriod = 50 * time.Millisecond

// machine is what burning works with.
type machine interface {
	// Now is the time, CPU what the whole process has used.
	Now() time.Time
	CPU() time.Duration
	// Work uses one thread's CPU for well under a period.
	Work()
	Sleep(context.Context, time.Duration)
}

// burner uses a share of CPU: a budget in every period, on as many threads as
// that takes. It counts the CPU time of the whole process, so that what waking
// up and saving progress cost is part of the share.
type burner struct {
	machine
	threads int
	budget  time.Duration
	// debt is what was used too much so far.
	debt time.Duration
}

func newBurner(m machine, milliCPU int64) *burner {
	return &burner{
		machine: m,
		threads: int((milliCPU + 999) / 1000),
		budget:  burnPeriod * time.Duration(milliCPU) / 1000,
	}
}

// burn uses the given CPU until ctx is done.
func burn(ctx context.Context, milliCPU int64) {
	if milliCPU == 0 {
		return
	}
	b := newBurner(process{}, milliCPU)
	for ctx.Err() == nil {
		b.period(ctx)
	}
}

// period uses the budget, less what the periods before used too much. What a
// busy machine does not grant is not caught up: the demand stays what was
// asked for.
func (b *burner) period(ctx context.Context) {
	start, startCPU := b.Now(), b.CPU()
	limit := startCPU + b.budget - b.debt
	var working sync.WaitGroup
	for range b.threads {
		working.Go(func() {
			for b.CPU() < limit && b.Now().Sub(start) < burnPeriod {
				b.Work()
			}
		})
	}
	working.Wait()
	if rest := burnPeriod - b.Now().Sub(start); rest > 0 {
		b.Sleep(ctx, rest)
	}
	b.debt = max(0, b.debt+b.CPU()-startCPU-b.budget)
}

// process is the real machine, seen by this process.
type process struct{}

func (process) Now() time.Time { return time.Now() }

func (process) CPU() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		panic(err) // the kernel knows this question (getrusage(2))
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func (process) Work() {
	const rounds = 50_000
	x := uint64(88172645463325252)
	for range rounds {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
	}
	runtime.KeepAlive(x)
}

func (process) Sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// occupy makes the given memory resident and returns it, full of data that does
// not compress. It is not the garbage collector's, which would ask for more than that.
func occupy(bytes int64) ([]byte, error) {
	if bytes == 0 {
		return nil, nil
	}
	memory, err := syscall.Mmap(-1, 0, int(bytes), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		return nil, err
	}
	if _, err := rand.NewChaCha8([32]byte{}).Read(memory); err != nil {
		return nil, err
	}
	return memory, nil
}
