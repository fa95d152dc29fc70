package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// saveInterval is how much work a kill can lose.
const saveInterval = 500 * time.Millisecond

// run works by its arguments and returns the exit code. An error ends with code 1.
func run(o runOptions, output io.Writer) (int, error) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(signals)

	done, err := loadProgress(o.ProgressFile, time.Now())
	if err != nil {
		return 1, err
	}
	began := time.Now()
	memory, err := occupy(o.Memory)
	if err != nil {
		return 1, fmt.Errorf("use %d bytes of memory: %w", o.Memory, err)
	}
	defer runtime.KeepAlive(memory)

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if err := serve(ctx, o.HTTP, done); err != nil {
		return 1, err
	}
	fmt.Fprintf(output, "filled %d bytes of memory in %s\n", len(memory), time.Since(began).Round(time.Millisecond))
	if err := announce(o, done, output); err != nil {
		return 1, err
	}
	go burn(ctx, o.MilliCPU)
	return work(ctx, o, done, signals, output)
}

func announce(o runOptions, done progress, output io.Writer) error {
	fmt.Fprintf(output, "using %dm CPU and %d bytes of memory, %s done before\n",
		o.MilliCPU, o.Memory, done.before.Round(time.Millisecond))
	if o.ReadyFile == "" {
		return nil
	}
	if err := os.WriteFile(o.ReadyFile, nil, 0o644); err != nil {
		return fmt.Errorf("tell readiness: %w", err)
	}
	return nil
}

// work waits for its end or a signal, and keeps the progress.
func work(ctx context.Context, o runOptions, done progress, signals <-chan os.Signal, output io.Writer) (int, error) {
	end := make(chan struct{})
	finished := sync.OnceFunc(func() { close(end) })
	if o.For > 0 {
		defer time.AfterFunc(max(0, o.For-done.before), finished).Stop()
	}
	if o.Until != "" {
		go awaitAnswer(ctx, o.Until, finished)
	}
	ticker := time.NewTicker(saveInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			if err := done.save(o.ProgressFile, time.Now()); err != nil {
				return 1, err
			}
		case <-end:
			fmt.Fprintf(output, "finished after %s, %.2f CPU-seconds here\n", done.at(time.Now()).Round(time.Millisecond), cpuSeconds())
			return finish(o, done, o.ExitCode)
		case received := <-signals:
			fmt.Fprintf(output, "%s after %s\n", received, done.at(time.Now()).Round(time.Millisecond))
			return finish(o, done, o.TermExitCode)
		}
	}
}

// awaitAnswer asks an address again and again until it answers with 200.
func awaitAnswer(ctx context.Context, address string, answered func()) {
	client := &http.Client{Timeout: 2 * time.Second}
	for ctx.Err() == nil {
		if response, err := client.Get(address); err == nil {
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				answered()
				return
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(saveInterval):
		}
	}
}

// cpuSeconds is what this process has used, in user and in system mode.
func cpuSeconds() float64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano()).Seconds()
}

// finish gives the exit code only when the work is saved.
func finish(o runOptions, done progress, code int) (int, error) {
	if err := done.save(o.ProgressFile, time.Now()); err != nil {
		return 1, err
	}
	return code, nil
}

// serve tells the time run so far in milliseconds, and readiness.
func serve(ctx context.Context, address string, done progress) error {
	if address == "" {
		return nil
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("serve: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		name, _ := os.Hostname()
		fmt.Fprintf(w, "%s %d\n", name, done.at(time.Now()).Milliseconds())
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = server.Serve(listener) }()
	context.AfterFunc(ctx, func() { _ = server.Close() })
	return nil
}
