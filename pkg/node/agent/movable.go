package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ai-storage/orchestrator/pkg/node/ociruntime"
)

// Movable returns how much memory the processes of a container hold, in bytes,
// and the first thing of theirs that CRIU is known not to carry.
func (m Machine) Movable(container string) (memory int64, obstacle string, err error) {
	p, err := m.runtimeInfo(container)
	if err != nil {
		return 0, "", err
	}
	if filepath.Base(p.runtime) != ociruntime.Program {
		return 0, fmt.Sprintf("it was started by %q, not by %s", p.runtime, ociruntime.Program), nil
	}
	for _, pid := range m.members(container) {
		for _, field := range []string{"RssAnon:", "RssShmem:", "VmSwap:"} {
			if value, err := m.statusField(pid, field); err == nil {
				kibibytes, _ := strconv.ParseInt(value, 10, 64)
				memory += kibibytes << 10
			}
		}
		if found := m.obstacle(pid); found != "" && obstacle == "" {
			name, _ := m.statusField(pid, "Name:")
			obstacle = fmt.Sprintf("its process %s %s", name, found)
		}
	}
	return memory, obstacle, nil
}

// obstacle looks at the state and the open files of a process. What vanishes
// meanwhile is no obstacle.
func (m Machine) obstacle(pid int) string {
	if state, err := m.statusField(pid, "State:"); err == nil && state == "T" {
		return "is stopped by a signal"
	}
	// CRIU asks the same. Root of a node in a sandbox may lack that capability.
	if err := unix.Prlimit(pid, unix.RLIMIT_CPU, nil, &unix.Rlimit{}); errors.Is(err, unix.EPERM) {
		return "belongs to a user whose limits the node agent may not read (CAP_SYS_RESOURCE)"
	}
	directory := filepath.Join(m.Proc, strconv.Itoa(pid), "fd")
	entries, err := os.ReadDir(directory)
	if err != nil {
		return ""
	}
	for _, entry := range entries {
		path := filepath.Join(directory, entry.Name())
		target, err := os.Readlink(path)
		if err != nil {
			continue
		}
		if found := obstacleOf(path, target); found != "" {
			return found
		}
	}
	return ""
}

// carriedInodes are the anonymous inodes that CRIU 4.2 dumps.
var carriedInodes = map[string]bool{
	"[eventfd]": true, "[eventpoll]": true, "[signalfd]": true, "[timerfd]": true, "inotify": true, "[fanotify]": true, "[pidfd]": true,
}

// refusedProtocols are those of sockets that CRIU 4.2 does not dump, with what
// helps.
var refusedProtocols = map[string]string{
	"MPTCP":   " (programs in Go listen so unless GODEBUG=multipathtcp=0)",
	"MPTCPv6": " (programs in Go listen so unless GODEBUG=multipathtcp=0)",
	"SCTP":    "", "SCTPv6": "", "RAW": "", "RAWv6": "", "PING": "", "PINGv6": "", "VSOCK": "", "AF_VSOCK": "", "SMC": "", "SMC6": "", "TIPC": "", "XDP": "", "ALG": "", "KCM": "", "RDS": "", "CAN": "",
}

func obstacleOf(path, target string) string {
	switch {
	case strings.HasPrefix(target, "anon_inode:"):
		if kind := strings.TrimPrefix(target, "anon_inode:"); !carriedInodes[kind] {
			return fmt.Sprintf("has an open %s, which CRIU does not carry", strings.Trim(kind, "[]"))
		}
	case strings.HasPrefix(target, "socket:"):
		name := make([]byte, 64)
		n, err := unix.Getxattr(path, "system.sockprotoname", name)
		if err != nil {
			return ""
		}
		protocol := strings.TrimRight(string(name[:n]), "\x00")
		if help, refused := refusedProtocols[protocol]; refused {
			return fmt.Sprintf("has a socket of %s, which CRIU does not carry%s", protocol, help)
		}
	case strings.HasPrefix(target, "/"):
		return deviceObstacle(path, target)
	}
	return ""
}

// Numbers of devices that are the same everywhere (Documentation/admin-guide/devices.txt).
const (
	majorMemory  = 1
	majorTTY     = 5
	majorPTYs    = 136
	majorPTYsEnd = 143
)

func deviceObstacle(path, target string) string {
	var stat unix.Stat_t
	if err := unix.Stat(path, &stat); errors.Is(err, unix.ENOENT) || err != nil {
		return ""
	}
	major, minor := unix.Major(stat.Rdev), unix.Minor(stat.Rdev)
	switch stat.Mode & unix.S_IFMT {
	case unix.S_IFCHR:
		memory := major == majorMemory && (minor == 3 || minor == 5 || minor >= 7 && minor <= 9)
		if memory || major == majorTTY && (minor == 0 || minor == 2) || major >= majorPTYs && major <= majorPTYsEnd {
			return ""
		}
	case unix.S_IFBLK:
	default:
		return ""
	}
	return fmt.Sprintf("has device %s open, which cannot move to another node", target)
}
