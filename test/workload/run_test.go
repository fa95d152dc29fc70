package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain lets a test run this program as a process of its own.
func TestMain(m *testing.M) {
	if os.Getenv("RUN_AS_WORKLOAD") != "" {
		os.Exit(dispatch(os.Args[1:]))
	}
	os.Exit(m.Run())
}

func workload(ctx context.Context, arguments ...string) (*exec.Cmd, *bytes.Buffer) {
	command := exec.CommandContext(ctx, os.Args[0], arguments...)
	command.Env = append(os.Environ(), "RUN_AS_WORKLOAD=1")
	var output bytes.Buffer
	command.Stdout, command.Stderr = &output, &output
	return command, &output
}

func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no %s", what)
		}
	}
}

func exists(path string) func() bool {
	return func() bool { _, err := os.Stat(path); return err == nil }
}

func TestExitCodes(t *testing.T) {
	notProgress := filepath.Join(t.TempDir(), "progress")
	if err := os.WriteFile(notProgress, []byte("soon"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		arguments []string
		want      int
	}{
		{[]string{"run", "--for=1ms"}, 0},
		{[]string{"run", "--for=1ms", "--exit-code=7"}, 7},
		{[]string{"run", "--for=1ms", "--write=" + notProgress}, 1},
		{[]string{"run", "--for=1ms", "--write=/no/such/directory/file"}, 1},
		{[]string{"run", "--cpu=x"}, 2},
		{[]string{"run", "--help"}, 0},
		{[]string{"jump"}, 2},
		{nil, 2},
	} {
		command, output := workload(t.Context(), test.arguments...)
		_ = command.Run()
		if got := command.ProcessState.ExitCode(); got != test.want {
			t.Errorf("workload %q exits with %d, want %d:\n%s", test.arguments, got, test.want, output)
		}
	}
}

func TestWorkEndsWhenTheCollectorFinishes(t *testing.T) {
	c := &collector{writers: map[string]*ledger{}, now: time.Now}
	server := httptest.NewServer(c.handler())
	defer server.Close()
	ready := filepath.Join(t.TempDir(), "ready")
	command, output := workload(t.Context(), "run", "--until="+server.URL+"/finished", "--exit-code=7", "--ready-file="+ready)
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	await(t, "ready file", exists(ready))
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	select {
	case err := <-ended:
		t.Fatalf("it ended before the collector finished: %v\n%s", err, output)
	case <-time.After(2 * saveInterval):
	}
	response, err := http.Post(server.URL+"/finish", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	<-ended
	if code := command.ProcessState.ExitCode(); code != 7 {
		t.Errorf("it ended with %d, want 7:\n%s", code, output)
	}
}

func TestSignalEndsPromptly(t *testing.T) {
	ready := filepath.Join(t.TempDir(), "ready")
	command, output := workload(t.Context(), "run", "--cpu=100m", "--memory=1Mi", "--ready-file="+ready, "--term-exit-code=9")
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	await(t, "ready file", exists(ready))
	asked := time.Now()
	if err := command.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = command.Wait()
	if code := command.ProcessState.ExitCode(); code != 9 {
		t.Errorf("exit code %d after SIGTERM, want 9:\n%s", code, output)
	}
	if took := time.Since(asked); took > 5*time.Second {
		t.Errorf("the end took %s", took)
	}
}

func TestProgressIsCarriedOn(t *testing.T) {
	file := filepath.Join(t.TempDir(), "progress")
	if err := os.WriteFile(file, []byte("59900\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	command, output := workload(t.Context(), "run", "--for=60s", "--write="+file)
	if err := command.Run(); err != nil {
		t.Fatalf("%v:\n%s", err, output)
	}
	if took := time.Since(start); took > 30*time.Second {
		t.Errorf("the work started again: it took %s", took)
	}
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var millis int64
	if _, err := fmt.Sscan(string(content), &millis); err != nil || millis < 60_000 || millis > 90_000 {
		t.Errorf("progress file holds %q, want a little over 60000", content)
	}
}

func TestServesProgress(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	listener.Close()
	ctx, cancel := context.WithCancel(t.Context())
	command, _ := workload(ctx, "run", "--http="+address)
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	defer command.Wait()
	defer cancel()

	var body bytes.Buffer
	await(t, "answer", func() bool { body.Reset(); return get([]string{"http://" + address + "/"}, &body) == nil })
	if fields := strings.Fields(body.String()); len(fields) != 2 {
		t.Errorf("answer %q, want a host name and a number", body.String())
	}
	if err := get([]string{"http://" + address + "/nothing"}, &body); err == nil {
		t.Error("get does not mind an answer that is not OK")
	}
}

func TestPauseReapsAndEndsBySignal(t *testing.T) {
	child, err := syscall.ForkExec("/bin/true", []string{"true"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	// The end of a child is seen in its state, before anybody has waited for it.
	await(t, "end of the child", func() bool {
		content, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", child))
		return strings.Contains(string(content), ") Z ")
	})
	signals := make(chan os.Signal, 2)
	signals <- syscall.SIGCHLD
	signals <- syscall.SIGTERM
	if code := pauseUntil(signals); code != 0 {
		t.Errorf("pause ends with %d", code)
	}
	if exists(fmt.Sprintf("/proc/%d", child))() {
		t.Error("the child was not reaped")
	}
}
