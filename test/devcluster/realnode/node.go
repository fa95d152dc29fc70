package realnode

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/ai-storage/orchestrator/test/devcluster/process"
)

// kubeletHealthPort is the kubelet's default.
const kubeletHealthPort = "10248"

// Options says which node to run. Stop needs Name and StateDir only.
type Options struct {
	// Name of the node object.
	Name string
	// Index is unique among the nodes of a cluster, 0 to 255. It gives the
	// third byte of the node's subnet.
	Index int
	// StateDir is the state directory of the cluster.
	StateDir string
	// BinDir holds containerd, its shim, ctr, runc and the kubelet.
	BinDir string
	// Kubeconfig holds the credentials of system:node:<Name>.
	Kubeconfig string
	// ClientCAFile is the authority that signs clients of the kubelet.
	ClientCAFile string
	// WithoutHandler leaves the wrapper of runc out of containerd's configuration, as
	// on a node that nobody has prepared.
	WithoutHandler bool
	// Images are archives to import. image.PauseReference must be in them.
	Images []string
	// Log gets a line for each step; may be nil.
	Log func(format string, args ...any)
}

func (o Options) log(format string, args ...any) {
	if o.Log != nil {
		o.Log(format, args...)
	}
}

// node is one that is being started.
type node struct {
	Options
	layout
	hierarchies []nodeHierarchy
	subnet      subnet
}

// Start starts a node and returns when its containerd has the images and its
// kubelet says that it is healthy. It first removes what an earlier node of
// that name left. When it fails it leaves the node as it is, for a look at the
// logs; Stop cleans it.
func Start(ctx context.Context, o Options) error {
	if err := Stop(ctx, o); err != nil {
		return err
	}
	n, err := prepare(ctx, o)
	if err != nil {
		return fmt.Errorf("start node %s: %w", o.Name, err)
	}
	for _, step := range []func(context.Context) error{n.makeNamespaces, n.startContainerd, n.importImages, n.startKubelet} {
		if err := step(ctx); err != nil {
			return fmt.Errorf("start node %s: %w", o.Name, err)
		}
	}
	return nil
}

// prepare makes everything that the node's programs need: bridge, cgroups and
// files.
func prepare(ctx context.Context, o Options) (*node, error) {
	l, err := newLayout(o.StateDir, o.Name)
	if err != nil {
		return nil, err
	}
	if o.BinDir, err = filepath.Abs(o.BinDir); err != nil {
		return nil, err
	}
	for _, path := range []string{l.stateDir, o.BinDir, o.Kubeconfig, o.ClientCAFile} {
		if err := checkPath(path); err != nil {
			return nil, err
		}
	}
	n := &node{Options: o, layout: l}
	if n.hierarchies, err = nodeHierarchies(l); err != nil {
		return nil, err
	}
	used, err := usedNetworks()
	if err != nil {
		return nil, err
	}
	if n.subnet, err = chooseSubnet(l.stateDir, o.Index, used); err != nil {
		return nil, err
	}
	o.log("node %s: bridge %s, subnet %s", o.Name, l.bridge, n.subnet.prefix)
	if err := createBridge(ctx, l, n.subnet); err != nil {
		return nil, err
	}
	if err := prepareMachine(); err != nil {
		return nil, err
	}
	if err := createCgroups(n.hierarchies); err != nil {
		return nil, err
	}
	return n, n.writeFiles()
}

func (n *node) writeFiles() error {
	for _, directory := range []string{"run", "log", "kubelet", "agent", "programs", "containerd", "volume-plugins"} {
		if err := os.MkdirAll(n.path(directory), 0o755); err != nil {
			return err
		}
	}
	cpus, memory, err := machineSize()
	if err != nil {
		return err
	}
	return settings{
		Node: n.node, Dir: n.dir, BinDir: n.BinDir, Bridge: n.bridge,
		NodeIP: n.subnet.nodeIP().String(), Subnet: n.subnet.prefix.String(),
		ClientCAFile: n.ClientCAFile,
		Hierarchies:  n.hierarchies, Reserved: reserve(cpus, memory), WithoutHandler: n.WithoutHandler,
	}.write()
}

// insidePath returns a path of the node as programs of the machine open it.
func insidePath(namespaces process.Record, path string) string {
	return filepath.Join("/proc", strconv.Itoa(namespaces.PID), "root", path)
}

// namespaces finds the process that holds the node's namespaces.
func (n *node) namespaces() (process.Record, error) {
	records, err := process.List(n.stateDir)
	if err != nil {
		return process.Record{}, err
	}
	for _, record := range records {
		if record.Name == n.namespacesProcess() && record.Alive() {
			return record, nil
		}
	}
	return process.Record{}, errors.New("the node's namespaces are gone")
}

func (n *node) makeNamespaces(ctx context.Context) error {
	spec := process.Spec{Name: n.namespacesProcess(), Path: "/bin/sh", Args: []string{n.path("namespaces.sh")}}
	return process.StartReady(ctx, n.stateDir, spec, func(context.Context) error {
		namespaces, err := n.namespaces()
		if err != nil {
			return err
		}
		_, err = os.Stat(insidePath(namespaces, readyMark))
		return err
	})
}

// startInside starts a program in the node's namespaces and cgroup.
func (n *node) startInside(ctx context.Context, name, program string, arguments []string, ready func(context.Context) error) error {
	namespaces, err := n.namespaces()
	if err != nil {
		return err
	}
	return process.StartReady(ctx, n.stateDir, process.Spec{
		Name: name,
		Path: "/bin/sh",
		Args: append([]string{n.path("enter.sh"), strconv.Itoa(namespaces.PID), filepath.Join(n.BinDir, program)}, arguments...),
		// The shim looks for runc by itself; root's PATH may lack the directories
		// of system programs.
		Env: []string{"PATH=" + n.BinDir + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
	}, ready)
}

// StartContainerd starts containerd on a running node on which it has ended, as
// systemd would. The error is process.ErrRunning when it runs.
func StartContainerd(ctx context.Context, o Options) error {
	l, err := newLayout(o.StateDir, o.Name)
	if err != nil {
		return err
	}
	if o.BinDir, err = filepath.Abs(o.BinDir); err != nil {
		return err
	}
	return (&node{Options: o, layout: l}).startContainerd(ctx)
}

func (n *node) startContainerd(ctx context.Context) error {
	n.log("node %s: starting containerd", n.Name)
	arguments := []string{"--config", n.path("containerd.toml")}
	return n.startInside(ctx, n.containerdProcess(), "containerd", arguments, func(ctx context.Context) error {
		namespaces, err := n.namespaces()
		if err != nil {
			return err
		}
		connection, err := new(net.Dialer).DialContext(ctx, "unix", insidePath(namespaces, containerdSocket))
		if err != nil {
			return err
		}
		return connection.Close()
	})
}

func (n *node) importImages(ctx context.Context) error {
	namespaces, err := n.namespaces()
	if err != nil {
		return err
	}
	for _, archive := range n.Images {
		n.log("node %s: importing %s", n.Name, filepath.Base(archive))
		if err := run(ctx, filepath.Join(n.BinDir, "ctr"), "--address", insidePath(namespaces, containerdSocket),
			"--namespace", "k8s.io", "images", "import", archive); err != nil {
			return fmt.Errorf("import image: %w", err)
		}
	}
	return nil
}

func (n *node) startKubelet(ctx context.Context) error {
	n.log("node %s: starting the kubelet", n.Name)
	ip := n.subnet.nodeIP().String()
	arguments := []string{
		"--config", n.path("kubelet.yaml"),
		"--kubeconfig", n.Kubeconfig,
		"--hostname-override", n.Name,
		"--node-ip", ip,
		// Measure at least twice between two questions of metrics-server.
		"--housekeeping-interval", "5s",
	}
	health := "http://" + net.JoinHostPort(ip, kubeletHealthPort) + "/healthz"
	return n.startInside(ctx, n.kubeletProcess(), "kubelet", arguments, process.AnswersOK(health, time.Second))
}
