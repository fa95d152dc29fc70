package nodeagent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// capabilityInterval is how often the agent looks whether its node can still dump
// and restore processes.
const capabilityInterval = time.Minute

// announcer tells on the node object whether processes can move from and to it.
type announcer struct {
	node     string
	client   client.Client
	live     client.Reader
	versions func(ctx context.Context) (string, error)
}

// Start implements manager.Runnable.
func (a *announcer) Start(ctx context.Context) error {
	for {
		if err := a.announce(ctx); err != nil {
			ctrl.LoggerFrom(ctx).Error(err, "Cannot tell on the node whether processes can move")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(capabilityInterval):
		}
	}
}

func (a *announcer) announce(ctx context.Context) error {
	node := &corev1.Node{}
	if err := a.live.Get(ctx, types.NamespacedName{Name: a.node}, node); err != nil {
		return err
	}
	versions, err := a.versions(ctx)
	if err == nil && !hasHandler(node) {
		err = fmt.Errorf("the container runtime has no handler %s", v1alpha1.ProcessRuntimeClass)
	}
	base, found := node.DeepCopy(), versions
	if err != nil {
		found = "none: " + err.Error()
	}
	if node.Labels == nil {
		node.Labels = map[string]string{}
	}
	if node.Annotations == nil {
		node.Annotations = map[string]string{}
	}
	node.Labels[v1alpha1.ProcessNodeLabel] = strconv.FormatBool(err == nil)
	node.Annotations[v1alpha1.ProcessVersionsAnnotation] = found
	if node.Labels[v1alpha1.ProcessNodeLabel] == base.Labels[v1alpha1.ProcessNodeLabel] && found == base.Annotations[v1alpha1.ProcessVersionsAnnotation] {
		return nil
	}
	return a.client.Patch(ctx, node, client.MergeFrom(base))
}

func hasHandler(node *corev1.Node) bool {
	return slices.ContainsFunc(node.Status.RuntimeHandlers, func(h corev1.NodeRuntimeHandler) bool { return h.Name == v1alpha1.ProcessRuntimeClass })
}

// Versions names kernel, CRIU and runc of the node. The error tells why processes
// cannot be dumped on it.
func (m Machine) Versions(ctx context.Context) (string, error) {
	// The agent is a container itself: its parent is the shim.
	host := &place{shim: os.Getppid()}
	kernel, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return "", err
	}
	criu, err := m.ask(ctx, host, "criu", "--version")
	if err != nil {
		return "", err
	}
	if err := checkCRIU(criu); err != nil {
		return "", err
	}
	if out, err := m.onHost(ctx, host, nil, "criu", "check"); err != nil {
		return "", fmt.Errorf("criu check: %w: %s", err, lastLine(out))
	}
	runc, err := m.ask(ctx, host, "runc", "--version")
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("kernel %s, CRIU %s, runc %s", strings.TrimSpace(string(kernel)), version.FindString(criu), version.FindString(runc)), nil
}

func (m Machine) ask(ctx context.Context, host *place, program string, arguments ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := m.onHost(ctx, host, nil, program, arguments...)
	if err != nil {
		return "", fmt.Errorf("%s does not run on the node: %w: %s", program, err, lastLine(out))
	}
	return string(out), nil
}

var version = regexp.MustCompile(`\d+\.\d+(\.\d+)?`)

// checkCRIU wants 4.2: older ones cannot dump a TCP socket on Linux 6.16 and
// later, which no longer answers for SO_PASSCRED of such a socket.
func checkCRIU(said string) error {
	found := version.FindString(said)
	var major, minor int
	if _, err := fmt.Sscanf(found, "%d.%d", &major, &minor); err != nil {
		return errors.New("criu does not tell its version")
	}
	if major < 4 || major == 4 && minor < 2 {
		return fmt.Errorf("CRIU is %s, want 4.2 or later", found)
	}
	return nil
}
