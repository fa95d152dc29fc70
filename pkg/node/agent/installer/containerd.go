package installer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"k8s.io/apimachinery/pkg/util/wait"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	// socket and defaultConfig are containerd's own defaults.
	socket        = "/run/containerd/containerd.sock"
	defaultConfig = "/etc/containerd/config.toml"

	// backTime is how long containerd may take to answer after a restart. It reads
	// the state of every container first.
	backTime   = time.Minute
	answerTime = 5 * time.Second
	lookAgain  = 200 * time.Millisecond
)

// Node is where containerd runs, and how it is restarted.
type Node struct {
	// Proc is where the node's processes are seen, Root its root directory.
	Proc, Root string
	// Run runs a program of the node, and returns what it writes to its standard
	// output. The error has the end of what it says otherwise.
	Run func(ctx context.Context, program string, arguments ...string) ([]byte, error)
	// BySignal ends containerd by SIGTERM, for others to start it again, where it is
	// no unit of systemd.
	BySignal bool

	// unit is that of systemd, known from when containerd ran.
	unit string
}

func (n *Node) socket() string { return filepath.Join(n.Root, socket) }

// process is the number of the process that answers at the socket.
func (n *Node) process() (int, error) {
	connection, err := net.DialTimeout("unix", n.socket(), answerTime)
	if err != nil {
		return 0, fmt.Errorf("containerd does not answer: %w", err)
	}
	defer connection.Close()
	raw, err := connection.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0, err
	}
	var peer *unix.Ucred
	var asked error
	if err := raw.Control(func(fd uintptr) { peer, asked = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return 0, err
	}
	if asked != nil {
		return 0, fmt.Errorf("finding containerd's process: %w", asked)
	}
	return int(peer.Pid), nil
}

func (n *Node) inProc(pid int, name string) string {
	return filepath.Join(n.Proc, strconv.Itoa(pid), name)
}

// Config implements Containerd.
func (n *Node) Config() (string, error) {
	pid, err := n.process()
	if err != nil {
		return "", err
	}
	line, err := os.ReadFile(n.inProc(pid, "cmdline"))
	if err != nil {
		return "", err
	}
	return configOf(strings.Split(string(line), "\x00"))
}

// configOf is the main configuration that a command line of containerd names.
func configOf(arguments []string) (string, error) {
	path := defaultConfig
	for i, argument := range arguments {
		name, value, joined := strings.Cut(argument, "=")
		if name != "--config" && name != "-config" && name != "-c" {
			continue
		}
		if !joined && i+1 < len(arguments) {
			value = arguments[i+1]
		}
		path = value
	}
	if !filepath.IsAbs(path) {
		return "", fmt.Errorf("containerd was started with the configuration %q, want an absolute path", path)
	}
	return filepath.Clean(path), nil
}

// Dump implements Containerd.
func (n *Node) Dump(ctx context.Context) ([]byte, error) {
	config, err := n.Config()
	if err != nil {
		return nil, err
	}
	pid, err := n.process()
	if err != nil {
		return nil, err
	}
	program, err := os.Readlink(n.inProc(pid, "exe"))
	if err != nil {
		return nil, err
	}
	// After an upgrade without a restart it is the new one that will read it.
	return n.Run(ctx, strings.TrimSuffix(program, " (deleted)"), "--config", config, "config", "dump")
}

// Handlers implements Containerd.
func (n *Node) Handlers(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	connection, err := grpc.NewClient("unix:"+n.socket(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	defer connection.Close()
	status, err := runtimeapi.NewRuntimeServiceClient(connection).Status(ctx, &runtimeapi.StatusRequest{})
	if err != nil {
		return nil, fmt.Errorf("asking containerd for its status: %w", err)
	}
	for _, c := range status.GetStatus().GetConditions() {
		if c.Type == runtimeapi.RuntimeReady && !c.Status {
			return nil, fmt.Errorf("containerd is not ready: %s %s", c.Reason, c.Message)
		}
	}
	var names []string
	for _, handler := range status.RuntimeHandlers {
		names = append(names, handler.Name)
	}
	return names, nil
}

// Restart implements Containerd. The containers of the node run on: their shims
// are processes of their own.
func (n *Node) Restart(ctx context.Context) error {
	old, err := n.process()
	if err != nil {
		old = 0 // it has ended already
	}
	if err := n.begin(ctx, old); err != nil {
		return fmt.Errorf("restarting containerd: %w", err)
	}
	var last error
	err = wait.PollUntilContextTimeout(ctx, lookAgain, backTime, true, func(ctx context.Context) (bool, error) {
		var now int
		now, last = n.process()
		if last == nil && now == old {
			last = errors.New("it has not ended yet")
		}
		if last == nil {
			_, last = n.Handlers(ctx)
		}
		return last == nil, nil
	})
	if err != nil {
		return fmt.Errorf("containerd is not back %s after its restart: %w", backTime, last)
	}
	return nil
}

// begin lets systemd restart it, or ends it.
func (n *Node) begin(ctx context.Context, pid int) error {
	if n.BySignal {
		if pid == 0 {
			return nil
		}
		return syscall.Kill(pid, syscall.SIGTERM)
	}
	if cgroups, err := os.ReadFile(n.inProc(pid, "cgroup")); pid != 0 && err == nil {
		n.unit = unitOf(string(cgroups))
	}
	if n.unit == "" {
		return errors.New("it is no service of systemd: where something else starts it again when it ends, say so (nodeAgent.processCheckpoint.install.restart: Signal)")
	}
	mode, err := n.Run(ctx, "systemctl", "show", "--property=KillMode", "--value", n.unit)
	if err != nil {
		return err
	}
	if mode := strings.TrimSpace(string(mode)); mode != "process" {
		return fmt.Errorf("%s has KillMode=%s, so a restart would end the containers of the node: want process, as containerd's own unit has", n.unit, mode)
	}
	_, err = n.Run(ctx, "systemctl", "restart", n.unit)
	return err
}

// unitOf is the service of systemd that a process belongs to, by its cgroups
// (proc_pid_cgroup(5)); "" when to none.
func unitOf(cgroups string) string {
	for line := range strings.Lines(cgroups) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) == 3 && (fields[1] == "" || fields[1] == "name=systemd") && strings.HasSuffix(fields[2], ".service") {
			return filepath.Base(fields[2])
		}
	}
	return ""
}
