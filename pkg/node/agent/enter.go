package agent

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

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
