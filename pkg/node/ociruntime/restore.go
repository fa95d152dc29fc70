package ociruntime

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
)

// restore restores the processes of a container instead of creating it.
func (r *Runtime) restore(c command, entry Entry) error {
	if err := entry.take(r.Patience); err != nil {
		return fmt.Errorf("container cannot be restored: %w", err)
	}
	err := r.restoreFrom(c, entry)
	if finishErr := entry.finish(c.container, err); finishErr != nil && err == nil {
		err = finishErr
	}
	if err != nil {
		return fmt.Errorf("container cannot be restored: %w", err)
	}
	return nil
}

func (r *Runtime) restoreFrom(c command, entry Entry) error {
	rootfs := filepath.Join(c.bundle(), "rootfs")
	if err := applyLayer(entry.Layer(), rootfs); err != nil {
		return fmt.Errorf("applying its writable layer: %w", err)
	}
	// Before it is there, so that no start can come between.
	if err := os.MkdirAll(r.RestoredDir, 0o700); err != nil {
		return err
	}
	mark := filepath.Join(r.RestoredDir, c.container)
	if err := os.WriteFile(mark, nil, 0o600); err != nil {
		return err
	}
	if err := r.runRestore(c, entry); err != nil {
		_ = os.Remove(mark)
		return err
	}
	return nil
}

func (r *Runtime) runRestore(c command, entry Entry) error {
	// Should this process be killed, because the pod is deleted or the kubelet has
	// waited long enough, runc goes too.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	command := exec.Command(r.Runc, c.restoreArguments(entry)...)
	command.Stdin, command.Stdout, command.Stderr = os.Stdin, os.Stdout, os.Stderr
	command.Env = append(os.Environ(), "CRIU_CONFIG_FILE="+entry.path(configFile))
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := command.Run(); err != nil {
		return fmt.Errorf("runc restore: %w%s", err, LastErrors(filepath.Join(entry.Work(), "restore.log")))
	}
	return nil
}

// restoreArguments are those of the creation, as far as runc restore has them.
// The container has its cgroups from runc; CRIU does not touch them.
func (c command) restoreArguments(entry Entry) []string {
	arguments := append(append([]string{}, c.global...), "restore", "--detach",
		"--bundle", c.bundle(), "--image-path", entry.Memory(), "--work-path", entry.Work(),
		"--manage-cgroups-mode", "ignore", "--file-locks")
	for _, name := range []string{"console-socket", "pid-file"} {
		if value := c.flags[name]; value != "" {
			arguments = append(arguments, "--"+name, value)
		}
	}
	if c.switches["no-pivot"] {
		arguments = append(arguments, "--no-pivot")
	}
	return append(arguments, c.container)
}

// maxErrors bounds what is quoted of a log: a message of the API has 1 KiB.
const maxErrors = 3

// LastErrors quotes the last errors in a log of CRIU; empty when there is none.
func LastErrors(path string) string {
	file, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer file.Close()
	var found []string
	for lines := bufio.NewScanner(file); lines.Scan(); {
		_, message, isError := strings.Cut(lines.Text(), "Error (")
		// CRIU asks for more files than it needs where it may.
		if !isError || strings.Contains(message, "RLIMIT_NOFILE") {
			continue
		}
		if found = append(found, "("+message); len(found) > maxErrors {
			found = found[1:]
		}
	}
	if len(found) == 0 {
		return ""
	}
	return ": " + strings.Join(found, "; ")
}
