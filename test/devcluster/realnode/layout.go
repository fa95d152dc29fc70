package realnode

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"strings"
)

// bridgePrefix marks the bridges of our nodes, of whatever cluster.
const bridgePrefix = "ais-"

// layout names everything that belongs to one node. It follows from the state
// directory and the node's name alone, so that what a crash left can be found.
type layout struct {
	node string
	// stateDir is the cluster's state directory, dir the node's part of it.
	stateDir, dir string
	// bridge is the network interface of the node; at most 15 bytes (IFNAMSIZ).
	bridge string
	// cgroup is the node's cgroup below the root of each hierarchy.
	cgroup string
}

func newLayout(stateDir, node string) (layout, error) {
	stateDir, err := filepath.Abs(stateDir)
	if err != nil {
		return layout{}, fmt.Errorf("state directory of node %s: %w", node, err)
	}
	if node == "" || strings.ContainsAny(node, "/ \x00") {
		return layout{}, fmt.Errorf("%q cannot name a node", node)
	}
	id := shortHash(stateDir + "\x00" + node)
	return layout{
		node:     node,
		stateDir: stateDir,
		dir:      filepath.Join(stateDir, "nodes", node),
		bridge:   bridgePrefix + id,
		cgroup:   "ai-storage-" + node + "-" + id,
	}, nil
}

// Cgroup is the name of a node's cgroup in every hierarchy of the machine.
func Cgroup(stateDir, node string) (string, error) {
	l, err := newLayout(stateDir, node)
	return l.cgroup, err
}

func shortHash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:4])
}

// coveredPaths are the directories that a node replaces by its own: nothing that
// it needs from the machine may lie in them.
var coveredPaths = []string{"/run", "/var/run", "/var/log", kubeletRoot, cniCache, agentState, agentPrograms}

// checkPath refuses a path that the node could not see or its programs could
// not be given.
func checkPath(path string) error {
	// Overlay mounts separate by comma and colon; the scripts quote with '.
	if strings.ContainsAny(path, "'\"\\:,\n") {
		return fmt.Errorf("%s cannot be used by a real node, whose mounts do not stand quotes, backslashes, colons or commas in a path", path)
	}
	for _, covered := range coveredPaths {
		if path == covered || strings.HasPrefix(path, covered+"/") {
			return fmt.Errorf("%s cannot be used by a real node, which has a %s of its own: choose a directory elsewhere", path, covered)
		}
	}
	return nil
}

const (
	// kubeletRoot is where agents and drivers on any node expect pods' volumes.
	kubeletRoot = "/var/lib/kubelet"
	// cniCache is compiled into the library that containerd calls the network
	// plugins with.
	cniCache = "/var/lib/cni"
	// agentState is where the node agent remembers what it froze on its node
	// (manifests/base/node-agent.yaml).
	agentState = "/var/lib/ai-storage"
	// agentPrograms is where the node agent installs programs on its node.
	agentPrograms = "/opt/ai-storage"

	containerdSocket = "/run/containerd/containerd.sock"
	// readyMark appears in the node's own /run when its namespaces are complete.
	readyMark = "/run/ai-storage-node"
)

func (l layout) namespacesProcess() string { return "namespaces-" + l.node }
func (l layout) containerdProcess() string { return "containerd-" + l.node }
func (l layout) kubeletProcess() string    { return "kubelet-" + l.node }

// processes lists the node's background processes in the order of their end:
// the kubelet first, for it starts again what it misses.
func (l layout) processes() []string {
	return []string{l.kubeletProcess(), l.containerdProcess(), l.namespacesProcess()}
}

func (l layout) path(elements ...string) string {
	return filepath.Join(append([]string{l.dir}, elements...)...)
}
