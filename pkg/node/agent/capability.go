package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
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
	"github.com/ai-storage/orchestrator/pkg/node/agent/installer"
	"github.com/ai-storage/orchestrator/pkg/node/ociruntime"
)

// capabilityInterval is how often the agent looks whether its node can still dump
// and restore processes.
const capabilityInterval = time.Minute

// handlerInterval is how soon the kubelet is expected to report a new handler.
const handlerInterval = 5 * time.Second

// capabilityReporter reports on the node object whether processes can move from and to
// it, and keeps the runtime handler there where it is wanted.
type capabilityReporter struct {
	node     string
	client   client.Client
	live     client.Reader
	versions func(ctx context.Context) (string, error)
	// reports: it may write to the node object.
	reports bool
	// installs: the handler is wanted on nodes whose labels fit where; nil fits all.
	installs bool
	where    labels.Selector
	handler  handlerInstaller
}

// handlerInstaller installs and removes the runtime handler; installer.Installer is the real one.
type handlerInstaller interface {
	Present() (bool, error)
	Ensure(ctx context.Context, wanted bool) error
}

// Start implements manager.Runnable.
func (a *capabilityReporter) Start(ctx context.Context) error {
	next := capabilityInterval
	// It ends with the context alone.
	_ = wait.DelayFunc(func() time.Duration { return next }).Until(ctx, true, true, func(ctx context.Context) (bool, error) {
		next = capabilityInterval
		if !a.reports {
			if err := a.handler.Ensure(ctx, false); err != nil {
				ctrl.LoggerFrom(ctx).Error(err, "Failed to remove the runtime handler from the node")
			}
		} else if expected, err := a.reportOnce(ctx); err != nil {
			ctrl.LoggerFrom(ctx).Error(err, "Failed to report on the node whether processes can move")
		} else if expected {
			next = handlerInterval
		}
		return false, nil
	})
	return nil
}

// reportOnce brings handler and node object up to date. expected is true where the
// kubelet will soon report the handler.
func (a *capabilityReporter) reportOnce(ctx context.Context) (expected bool, err error) {
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
func (a *capabilityReporter) publish(ctx context.Context, node *corev1.Node, versions string, unable error) error {
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

// Versions names kernel, CRIU and runc of the node. The error says why processes
// cannot be dumped on it.
func (m Machine) Versions(ctx context.Context) (string, error) {
	// The agent is a container itself: its parent is the shim.
	host := &runtimeInfo{shim: os.Getppid()}
	kernel, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return "", err
	}
	criu, err := m.versionOf(ctx, host, "criu", "--version")
	if err != nil {
		return "", err
	}
	if err := checkCRIU(criu); err != nil {
		return "", err
	}
	if out, err := m.onHost(ctx, host, nil, "criu", "check"); err != nil {
		return "", fmt.Errorf("criu check: %w: %s", err, lastLine(out))
	}
	runc, err := m.versionOf(ctx, host, "runc", "--version")
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("kernel %s, CRIU %s, runc %s", strings.TrimSpace(string(kernel)), version.FindString(criu), version.FindString(runc)), nil
}

func (m Machine) versionOf(ctx context.Context, host *runtimeInfo, program string, arguments ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, versionTime)
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
		return errors.New("criu does not report its version")
	}
	if major < 4 || major == 4 && minor < 2 {
		return fmt.Errorf("CRIU is %s, want 4.2 or later", found)
	}
	return nil
}

// InstallOptions say whether the agent makes the wrapper of runc a handler of the
// node's containerd. Where it does not, it removes what it made earlier.
type InstallOptions struct {
	Enabled bool
	// Nodes are those to install it on; nil means all.
	Nodes labels.Selector
	// BySignal ends containerd for another supervisor to start it again, where systemd does not.
	BySignal bool
	// Source is the wrapper in the image of the agent.
	Source string
}

// installedProgram is where the wrapper is put on the node.
const installedProgram = "/opt/ai-storage/bin/" + ociruntime.Program

// versionTime bounds a binary of the node that prints its version, commandTime one that
// prints a configuration or restarts a service.
const (
	versionTime = 10 * time.Second
	commandTime = 2 * time.Minute
)

func (a *agent) newInstaller(o Options) *installer.Installer {
	// The agent is a container itself: its parent is the shim.
	host := &runtimeInfo{shim: os.Getppid()}
	root := filepath.Join(o.Machine.Proc, strconv.Itoa(host.shim), "root")
	return installer.New(installer.Options{
		Handler: v1alpha1.ProcessRuntimeClass, Source: o.Install.Source, Program: installedProgram, Root: root,
		RecordFile: filepath.Join(o.StateDir, "handler.json"),
		Leftovers:  []string{ociruntime.RestoredDir, filepath.Dir(ociruntime.RestoredDir)},
		Containerd: &installer.Node{
			Proc: o.Machine.Proc, Root: root, BySignal: o.Install.BySignal,
			Run: func(ctx context.Context, program string, arguments ...string) ([]byte, error) {
				return o.Machine.output(ctx, host, program, arguments...)
			},
		},
		Users: func() ([]string, error) { return usersOf(filepath.Join(root, bundles), installedProgram) },
		Busy:  a.busy,
	})
}

// output runs a program of the node for what it writes to its standard output.
func (m Machine) output(ctx context.Context, host *runtimeInfo, program string, arguments ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTime)
	defer cancel()
	out, err := m.hostCommand(ctx, host, nil, program, arguments...).Output()
	if failed := (*exec.ExitError)(nil); errors.As(err, &failed) {
		err = fmt.Errorf("%w: %s", err, lastLine(failed.Stderr))
	}
	if err != nil {
		return nil, fmt.Errorf("%s on the node: %w", filepath.Base(program), err)
	}
	return out, nil
}

// usersOf are the containers and sandboxes whose shim calls a program.
func usersOf(bundles, program string) ([]string, error) {
	entries, err := os.ReadDir(bundles)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var users []string
	for _, entry := range entries {
		content, err := os.ReadFile(filepath.Join(bundles, entry.Name(), "options.json"))
		if errors.Is(err, fs.ErrNotExist) {
			continue // of another shim, or gone meanwhile
		}
		if err != nil {
			return nil, err
		}
		var options struct {
			BinaryName string `json:"binary_name"`
		}
		if err := json.Unmarshal(content, &options); err != nil {
			return nil, fmt.Errorf("options of container %s: %w", entry.Name(), err)
		}
		if options.BinaryName == program {
			users = append(users, entry.Name())
		}
	}
	return users, nil
}

// busy names a migration that a restart of the container runtime would break; "" when
// there is none.
func (a *agent) busy() (string, error) {
	frozen, err := a.records.list()
	if err != nil {
		return "", err
	}
	restores, err := os.ReadDir(string(a.restores))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	switch {
	case len(frozen) > 0:
		return fmt.Sprintf("pod %s/%s is frozen for a migration", frozen[0].Namespace, frozen[0].PodName), nil
	case len(restores) > 0:
		return fmt.Sprintf("pod %s is being restored", restores[0].Name()), nil
	}
	return "", nil
}
