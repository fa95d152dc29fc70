package devcluster

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/ai-storage/orchestrator/test/devcluster/controlplane"
	"github.com/ai-storage/orchestrator/test/devcluster/realnode"
)

// NodeKind tells simulated nodes from real ones.
type NodeKind string

const (
	// Simulated nodes are played by kwok and need no root.
	Simulated NodeKind = "simulated"
	// Real nodes are a kubelet, containerd and runc each, and need root.
	Real NodeKind = "real"
)

// maxNodes bounds a local cluster; real nodes have a subnet each.
var maxNodes = map[NodeKind]int{Simulated: 1000, Real: 16}

// NodeSpec says what nodes a cluster has.
type NodeSpec struct {
	Kind  NodeKind `json:"kind"`
	Count int      `json:"count"`
}

// ParseNodeSpec reads "simulated:20" or "real:2".
func ParseNodeSpec(text string) (NodeSpec, error) {
	kind, number, found := strings.Cut(text, ":")
	limit, known := maxNodes[NodeKind(kind)]
	if !found || !known {
		return NodeSpec{}, fmt.Errorf("nodes %q: want simulated:N or real:N", text)
	}
	count, err := strconv.Atoi(number)
	if err != nil || count < 1 || count > limit {
		return NodeSpec{}, fmt.Errorf("nodes %q: the number of %s nodes must be from 1 to %d", text, kind, limit)
	}
	return NodeSpec{Kind: NodeKind(kind), Count: count}, nil
}

func (s NodeSpec) String() string { return fmt.Sprintf("%s:%d", s.Kind, s.Count) }

// Names of the nodes, in order. They sort as they count.
func (s NodeSpec) Names() []string {
	prefix := "sim"
	if s.Kind == Real {
		prefix = "real"
	}
	width := len(strconv.Itoa(s.Count))
	names := make([]string, s.Count)
	for i := range names {
		names[i] = fmt.Sprintf("%s-%0*d", prefix, width, i+1)
	}
	return names
}

// Options of a new cluster.
type Options struct {
	// StateDir holds everything about the cluster. It may not exist yet.
	StateDir string
	// BinDir holds the programs.
	BinDir string
	// ManifestsDir holds what a user of the product applies. Empty leaves that to
	// the caller: the cluster has nothing of ours but what is no part of the product.
	ManifestsDir string
	// ConfigFile is the configuration of both the scheduler and the rebalancer.
	ConfigFile string
	Nodes      NodeSpec
	// Images are archives of container images that real nodes get, beside those
	// of test/devcluster/image.
	Images []string
	// WithoutHandler starts real nodes without the runtime handler of pods whose
	// processes can move: the node agents can install it.
	WithoutHandler bool
	// CSI gives real nodes volumes of the tests' own CSI driver, which are really
	// attached and detached: see CSIClass and CSILateClass.
	CSI bool
	// Services makes the addresses of Services work, on real nodes: see startServices.
	// The API server then listens on all addresses of the machine.
	Services bool
	// Components are those of our own programs that Up starts; see StartComponent.
	Components []string
	// Progress gets a line for each step; nil is silence.
	Progress io.Writer
}

// complete makes paths absolute: processes have working directories of their own.
func (o Options) complete() (Options, error) {
	for _, path := range []*string{&o.StateDir, &o.BinDir, &o.ManifestsDir, &o.ConfigFile} {
		if *path == "" && path == &o.ManifestsDir && o.installsNothing() {
			continue
		}
		if *path == "" {
			return o, errors.New("StateDir, BinDir, ManifestsDir and ConfigFile must all be set")
		}
		absolute, err := filepath.Abs(*path)
		if err != nil {
			return o, err
		}
		*path = absolute
	}
	o.Images = slices.Clone(o.Images)
	for i, archive := range o.Images {
		absolute, err := filepath.Abs(archive)
		if err != nil {
			return o, err
		}
		o.Images[i] = absolute
	}
	if o.Progress == nil {
		o.Progress = io.Discard
	}
	var err error
	if o.StateDir, err = stateDirectory(o.StateDir); err != nil {
		return o, err
	}
	_, err = ParseNodeSpec(o.Nodes.String())
	return o, err
}

// installsNothing tells whether no component needs a service account of manifests/.
func (o Options) installsNothing() bool {
	return !slices.Contains(o.Components, Scheduler) && !slices.Contains(o.Components, Rebalancer)
}

// checkPrerequisites names everything that is missing at once, with the
// command that brings it.
func (o Options) checkPrerequisites() error {
	tools := []string{controlplane.Etcd, controlplane.APIServer, controlplane.ControllerManager, controlplane.MetricsServer}
	if o.Nodes.Kind == Simulated {
		tools = append(tools, "kwok")
	}
	var programs []string
	if o.Nodes.Kind == Real {
		programs = append(programs, "workload", nodeAgentProgram)
	}
	for _, component := range o.Components {
		known, err := componentNamed(component)
		if err != nil {
			return err
		}
		if !slices.Contains(programs, known.program) {
			programs = append(programs, known.program)
		}
	}
	var missing []error
	for _, group := range []struct {
		programs []string
		remedy   string
	}{{tools, "make tools"}, {programs, "make build"}} {
		for _, program := range group.programs {
			if path := filepath.Join(o.BinDir, program); !isProgram(path) {
				missing = append(missing, fmt.Errorf("%s is missing: run `%s`", path, group.remedy))
			}
		}
	}
	for _, path := range []string{o.ManifestsDir, o.ConfigFile} {
		if _, err := os.Stat(path); path != "" && errors.Is(err, fs.ErrNotExist) {
			missing = append(missing, fmt.Errorf("%s is missing: run this in the project's directory, or name the path", path))
		}
	}
	missing = append(missing, o.checkCSI(), o.checkServices())
	if o.Nodes.Kind == Real {
		missing = append(missing, realnode.CheckPrerequisites(o.BinDir))
	}
	return errors.Join(missing...)
}

func isProgram(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}
