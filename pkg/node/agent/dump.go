package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ai-storage/orchestrator/pkg/node/ociruntime"
)

const (
	// dumpConfig is CRIU's configuration. The other ends of established
	// connections stay where they are, so those close. Files that were removed while
	// a process has them open are carried up to 1 GiB.
	dumpConfig = "tcp-close\nnetwork-lock skip\nghost-limit 1073741824\n"
	// dumpTimeout bounds a dump: CRIU can hang where it should fail.
	dumpTimeout = 25 * time.Second
	// outputDelay is how long the output of a killed binary may stay open.
	outputDelay = time.Second
)

// Dump implements nodeOps. The directory has the same path for the agent and on its
// node.
func (m Machine) Dump(ctx context.Context, container, directory string) error {
	p, err := m.runtimeInfo(container)
	if err != nil {
		return err
	}
	images, config := filepath.Join(directory, "memory"), filepath.Join(directory, "criu.conf")
	if err := clearDirectory(images); err != nil {
		return fmt.Errorf("preparing the dump: %w", err)
	}
	if err := os.WriteFile(config, []byte(dumpConfig), 0o600); err != nil {
		return fmt.Errorf("preparing the dump: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, dumpTimeout)
	defer cancel()
	work := filepath.Join(directory, "work")
	out, err := m.onHost(ctx, p, []string{"CRIU_CONFIG_FILE=" + config}, p.runtime, "--root", runcRoot, "checkpoint",
		"--leave-running", "--image-path", images, "--work-path", work, "--manage-cgroups-mode", "ignore",
		"--file-locks", "--tcp-skip-in-flight", p.id)
	if err != nil {
		said := ociruntime.LastErrors(filepath.Join(work, "dump.log"))
		if said == "" {
			said = ": " + lastLine(out)
		}
		return fmt.Errorf("CRIU cannot dump container %s: %w%s", p.id, err, said)
	}
	return nil
}

// clearDirectory makes an empty directory that stays the same one: it may be open.
func clearDirectory(path string) error {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(path)
	for _, entry := range entries {
		err = errors.Join(err, os.RemoveAll(filepath.Join(path, entry.Name())))
	}
	return err
}

func lastLine(out []byte) string {
	lines := bytes.Split(bytes.TrimSpace(out), []byte("\n"))
	return string(lines[len(lines)-1])
}

// HostCommand is the command of this program that runs another one in the mount
// and cgroup namespaces of a process: see Enter.
const HostCommand = "on-host"

// onHost runs a program of the node as its container runtime would. It ends with
// all that it started when the context does.
func (m Machine) onHost(ctx context.Context, p *runtimeInfo, environment []string, program string, arguments ...string) ([]byte, error) {
	out, err := m.hostCommand(ctx, p, environment, program, arguments...).CombinedOutput()
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return out, err
}

func (m Machine) hostCommand(ctx context.Context, p *runtimeInfo, environment []string, program string, arguments ...string) *exec.Cmd {
	command := exec.CommandContext(ctx, "/proc/self/exe", append([]string{HostCommand, strconv.Itoa(p.shim), "--", program}, arguments...)...)
	command.Env = append(environment, m.searchPath(p.shim))
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	command.Cancel = func() error { return syscall.Kill(-command.Process.Pid, syscall.SIGKILL) }
	command.WaitDelay = outputDelay
	return command
}

// searchPath is where the container runtime looks for programs.
func (m Machine) searchPath(shim int) string {
	content, err := os.ReadFile(filepath.Join(m.Proc, strconv.Itoa(shim), "environ"))
	if err == nil {
		for variable := range strings.SplitSeq(string(content), "\x00") {
			if strings.HasPrefix(variable, "PATH=") {
				return variable
			}
		}
	}
	return "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
}

// Enter puts another program in the place of this process, in the mount and the
// cgroup namespaces of a process. It returns only when that fails.
func Enter(pid string, command []string) error {
	// A thread can change its mount namespace alone, once it shares no file system
	// state with the others; executing leaves that thread only (setns(2), execve(2)).
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("unsharing: %w", err)
	}
	for _, name := range []string{"cgroup", "mnt"} {
		namespace, err := os.Open(filepath.Join("/proc", pid, "ns", name))
		if err != nil {
			return err
		}
		err = unix.Setns(int(namespace.Fd()), 0)
		_ = namespace.Close()
		if err != nil {
			return fmt.Errorf("entering the %s namespace of process %s: %w", name, pid, err)
		}
	}
	program := command[0]
	if !strings.Contains(program, "/") {
		found, err := exec.LookPath(program)
		if err != nil {
			return err
		}
		program = found
	}
	err := syscall.Exec(program, command, os.Environ())
	return fmt.Errorf("running %s: %w", program, err)
}
