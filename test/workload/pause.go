package main

import (
	"os"
	"os/signal"
	"syscall"
)

// pause is the first process of a pod: it holds the pod's namespaces until it
// gets the signal to end, and reaps what others leave when the pod shares processes.
func pause() int {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGCHLD)
	return pauseUntil(signals)
}

func pauseUntil(signals <-chan os.Signal) int {
	for received := range signals {
		if received != syscall.SIGCHLD {
			return 0
		}
		reap()
	}
	return 0
}

// reap waits for all that has ended: several ends may give one signal.
func reap() {
	for {
		pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
	}
}
