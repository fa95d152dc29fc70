package installer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// asContainerd makes the test binary serve as containerd at a socket.
const asContainerd = "SERVE_AS_CONTAINERD"

func TestMain(m *testing.M) {
	if path := os.Getenv(asContainerd); path != "" {
		if err := serve(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

type criServer struct {
	runtimeapi.UnimplementedRuntimeServiceServer
}

func (criServer) Status(context.Context, *runtimeapi.StatusRequest) (*runtimeapi.StatusResponse, error) {
	if os.Getenv("NOT_READY") != "" {
		return &runtimeapi.StatusResponse{Status: &runtimeapi.RuntimeStatus{Conditions: []*runtimeapi.RuntimeCondition{
			{Type: runtimeapi.RuntimeReady, Reason: "ContainerdStarts"},
		}}}, nil
	}
	return &runtimeapi.StatusResponse{
		Status:          &runtimeapi.RuntimeStatus{Conditions: []*runtimeapi.RuntimeCondition{{Type: runtimeapi.RuntimeReady, Status: true}, {Type: runtimeapi.NetworkReady}}},
		RuntimeHandlers: []*runtimeapi.RuntimeHandler{{Name: ""}, {Name: "runc"}},
	}, nil
}

func serve(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	runtimeapi.RegisterRuntimeServiceServer(server, criServer{})
	return server.Serve(listener)
}

// running is a containerd that is started again when it ends, unless it is ended
// for good.
type running struct {
	t       *testing.T
	root    string
	mu      sync.Mutex
	process *exec.Cmd
}

// newNode has short paths: those of sockets have 108 bytes at most (unix(7)).
func newNode(t *testing.T, environment ...string) (*Node, *running) {
	t.Helper()
	root, err := os.MkdirTemp("", "node")
	must(t, err)
	must(t, os.MkdirAll(filepath.Join(root, filepath.Dir(socket)), 0o755))
	r := &running{t: t, root: root}
	r.start(environment...)
	t.Cleanup(func() {
		r.end()
		must(t, os.RemoveAll(root))
	})
	n := &Node{Proc: "/proc", Root: root}
	r.await(n)
	return n, r
}

func (r *running) start(environment ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.process = exec.Command(os.Args[0], "--config", "/srv/containerd.toml")
	r.process.Env = append(append(os.Environ(), asContainerd+"="+filepath.Join(r.root, socket)), environment...)
	must(r.t, r.process.Start())
}

func (r *running) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	_ = r.process.Process.Kill()
	_ = r.process.Wait()
}

func (r *running) await(n *Node) {
	r.t.Helper()
	for range 200 {
		if _, err := n.process(); err == nil {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	r.t.Fatal("it does not serve")
}

func TestContainerdIsFound(t *testing.T) {
	n, r := newNode(t)
	if pid, err := n.process(); err != nil || pid != r.process.Process.Pid {
		t.Errorf("process %d, %v; want %d", pid, err, r.process.Process.Pid)
	}
	if config, err := n.Config(); err != nil || config != "/srv/containerd.toml" {
		t.Errorf("configuration %q, %v", config, err)
	}
	if handlers, err := n.Handlers(t.Context()); err != nil || !slices.Equal(handlers, []string{"", "runc"}) {
		t.Errorf("handlers %v, %v", handlers, err)
	}
	n.Run = func(_ context.Context, program string, arguments ...string) ([]byte, error) {
		return []byte(program + " " + strings.Join(arguments, " ")), nil
	}
	self, err := os.Executable()
	must(t, err)
	if asked, err := n.Dump(t.Context()); err != nil || string(asked) != self+" --config /srv/containerd.toml config dump" {
		t.Errorf("it is asked by %q, %v", asked, err)
	}
	r.end()
	if _, err := n.Config(); err == nil || !strings.Contains(err.Error(), "containerd does not answer") {
		t.Error(err)
	}
}

func TestContainerdThatIsNotReady(t *testing.T) {
	n, _ := newNode(t, "NOT_READY=1")
	if _, err := n.Handlers(t.Context()); err == nil || !strings.Contains(err.Error(), "containerd is not ready: ContainerdStarts") {
		t.Error(err)
	}
}

func TestRestartBySignal(t *testing.T) {
	n, r := newNode(t)
	n.BySignal = true
	old := r.process
	var restarted sync.WaitGroup
	restarted.Go(func() {
		_ = old.Wait()
		r.start()
	})
	must(t, n.Restart(t.Context()))
	restarted.Wait()
	if pid, err := n.process(); err != nil || pid == old.Process.Pid {
		t.Errorf("process %d, %v; it was that before", pid, err)
	}
	// Nobody starts it again.
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := n.Restart(ctx); err == nil || !strings.Contains(err.Error(), "containerd is not back") {
		t.Error(err)
	}
}

func TestRestartBySystemd(t *testing.T) {
	for name, test := range map[string]struct {
		cgroups, mode string
		says          string
		asked         []string
	}{
		"a unit":                  {"0::/system.slice/containerd.service\n", "process\n", "", []string{"systemctl show --property=KillMode --value containerd.service", "systemctl restart containerd.service"}},
		"one that ends its shims": {"0::/system.slice/containerd.service\n", "control-group\n", "KillMode=control-group, so a restart would end the containers of the node", []string{"systemctl show --property=KillMode --value containerd.service"}},
		"no unit":                 {"0::/ais/system\n", "", "it is no service of systemd", nil},
	} {
		t.Run(name, func(t *testing.T) {
			n, r := newNode(t)
			// What the kernel would say of a process of systemd's.
			n.Proc = t.TempDir()
			directory := filepath.Join(n.Proc, strconv.Itoa(r.process.Process.Pid))
			must(t, os.MkdirAll(directory, 0o755))
			must(t, os.WriteFile(filepath.Join(directory, "cgroup"), []byte(test.cgroups), 0o600))
			var asked []string
			n.Run = func(_ context.Context, program string, arguments ...string) ([]byte, error) {
				asked = append(asked, program+" "+strings.Join(arguments, " "))
				if arguments[0] == "restart" {
					r.end()
					r.start()
				}
				return []byte(test.mode), nil
			}
			err := n.Restart(t.Context())
			if (err == nil) != (test.says == "") || err != nil && !strings.Contains(err.Error(), test.says) {
				t.Errorf("%v, want %q", err, test.says)
			}
			if !slices.Equal(asked, test.asked) {
				t.Errorf("asked for %q, want %q", asked, test.asked)
			}
		})
	}
}
