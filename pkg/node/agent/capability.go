package agent

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
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// capabilityInterval is how often the agent looks whether its node can still dump
// and restore processes.
const capabilityInterval = time.Minute

// handlerInterval is how soon the kubelet is expected to tell of a new handler.
const handlerInterval = 5 * time.Second

// announcer tells on the node object whether processes can move from and to it,
// and keeps the runtime handler there where it is wanted.
type announcer struct {
	node     string
	client   client.Client
	live     client.Reader
	versions func(ctx context.Context) (string, error)
	// tells: it may write to the node object.
	tells bool
	// installs: the handler is wanted on nodes whose labels fit where; nil fits all.
	installs bool
	where    labels.Selector
	handler  keeper
}

// keeper installs and removes the runtime handler; installer.Installer is the real one.
type keeper interface {
	Present() (bool, error)
	Ensure(ctx context.Context, wanted bool) error
}

// Start implements manager.Runnable.
func (a *announcer) Start(ctx context.Context) error {
	next := capabilityInterval
	// It ends with the context alone.
	_ = wait.DelayFunc(func() time.Duration { return next }).Until(ctx, true, true, func(ctx context.Context) (bool, error) {
		next = capabilityInterval
		if !a.tells {
			if err := a.handler.Ensure(ctx, false); err != nil {
				ctrl.LoggerFrom(ctx).Error(err, "Failed to remove the runtime handler from the node")
			}
		} else if expected, err := a.announce(ctx); err != nil {
			ctrl.LoggerFrom(ctx).Error(err, "Failed to report on the node whether processes can move")
		} else if expected {
			next = handlerInterval
		}
		return false, nil
	})
	return nil
}

// announce reports whether the kubelet is expected to tell of the handler soon.
func (a *announcer) announce(ctx context.Context) (expected bool, err error) {
	node := &corev1.Node{}
	if err := a.live.Get(ctx, types.NamespacedName{Name: a.node}, node); err != nil {
		return false, err
	}
	wanted := a.installs && (a.where == nil || a.where.Matches(labels.Set(node.Labels)))
	present, err := a.handler.Present()
	if err != nil {
		return false, err
	}
	removes := present && !wanted
	if removes && node.Labels[v1alpha1.ProcessNodeLabel] == "true" {
		// No pod comes any more that would need what is being removed.
		if err := a.publish(ctx, node, "", errors.New("the runtime handler is being removed")); err != nil {
			return false, err
		}
	}
	unable := a.handler.Ensure(ctx, wanted)
	if unable != nil {
		ctrl.LoggerFrom(ctx).Error(unable, "The runtime handler is not as it is wanted", "wanted", wanted)
	}
	versions := ""
	if unable == nil {
		versions, unable = a.versions(ctx)
	}
	if unable == nil && (removes || !hasHandler(node)) {
		unable, expected = fmt.Errorf("the container runtime has no handler %s", v1alpha1.ProcessRuntimeClass), wanted
	}
	return expected, a.publish(ctx, node, versions, unable)
}

// publish writes on the node what it can, or why it cannot.
func (a *announcer) publish(ctx context.Context, node *corev1.Node, versions string, unable error) error {
	base, found := node.DeepCopy(), versions
	if unable != nil {
		found = "none: " + unable.Error()
	}
	if node.Labels == nil {
		node.Labels = map[string]string{}
	}
	if node.Annotations == nil {
		node.Annotations = map[string]string{}
	}
	node.Labels[v1alpha1.ProcessNodeLabel] = strconv.FormatBool(unable == nil)
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
