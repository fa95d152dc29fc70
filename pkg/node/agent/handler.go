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
	"strconv"
	"time"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/node/agent/installer"
	"github.com/ai-storage/orchestrator/pkg/node/ociruntime"
)

// InstallOptions say whether the agent makes the wrapper of runc a handler of the
// node's containerd. Where it does not, it removes what it made earlier.
type InstallOptions struct {
	Enabled bool
	// Nodes are those to install it on; nil means all.
	Nodes labels.Selector
	// BySignal ends containerd for others to start it again, where systemd does not.
	BySignal bool
	// Source is the wrapper in the image of the agent.
	Source string
}

// installedProgram is where the wrapper is put on the node.
const installedProgram = "/opt/ai-storage/bin/" + ociruntime.Program

// commandTime bounds a program of the node that tells something or restarts a service.
const commandTime = 2 * time.Minute

func (a *agent) handlerInstaller(o Options) *installer.Installer {
	// The agent is a container itself: its parent is the shim.
	host := &place{shim: os.Getppid()}
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
func (m Machine) output(ctx context.Context, host *place, program string, arguments ...string) ([]byte, error) {
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

// busy tells of a migration that a restart of the container runtime would break.
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
