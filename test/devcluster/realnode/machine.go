package realnode

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
)

// machineChangesFile remembers what nodes, of whatever cluster, changed of the
// machine. The last node to stop restores it. It is lost at a reboot, as the
// changes are.
const machineChangesFile = "/run/ai-storage-nodes.json"

// machineChanges is what to restore.
type machineChanges struct {
	// ForwardingWasOff: the machine did not route packets before.
	ForwardingWasOff bool `json:"forwardingWasOff,omitempty"`
	// MadeDirectories did not exist before; a node needs them to mount its own on.
	MadeDirectories []string `json:"madeDirectories,omitempty"`
}

// prepareMachine turns packet forwarding on and makes the directories that nodes
// mount their own on. The node's bridge must exist: it tells others that there
// is a node.
func prepareMachine() error {
	err := withMachineChanges(func(changes *machineChanges) error {
		forwarding, err := os.ReadFile(ipForwardFile)
		if err != nil {
			return err
		}
		if strings.TrimSpace(string(forwarding)) == "0" {
			changes.ForwardingWasOff = true
			if err := os.WriteFile(ipForwardFile, []byte("1"), 0o644); err != nil {
				return err
			}
		}
		for _, directory := range []string{kubeletRoot, cniCache, agentState, agentPrograms} {
			err := os.Mkdir(directory, 0o755)
			if err == nil {
				changes.MadeDirectories = append(changes.MadeDirectories, directory)
			}
			if err != nil && !errors.Is(err, fs.ErrExist) {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("prepare the machine for nodes: %w", err)
	}
	return nil
}

// restoreMachine undoes prepareMachine when no node is left. While there is
// one, the directories must stay: removing them would unmount the node's own.
func restoreMachine() error {
	err := withMachineChanges(func(changes *machineChanges) error {
		if left, err := hasNodes(); err != nil || left {
			return err
		}
		if changes.ForwardingWasOff {
			if err := os.WriteFile(ipForwardFile, []byte("0"), 0o644); err != nil {
				return err
			}
		}
		for _, directory := range changes.MadeDirectories {
			_ = os.Remove(directory) // stays when others put something in
		}
		*changes = machineChanges{}
		return nil
	})
	if err != nil {
		return fmt.Errorf("put the machine back: %w", err)
	}
	return nil
}

func hasNodes() (bool, error) {
	interfaces, err := os.ReadDir("/sys/class/net")
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(interfaces, func(entry fs.DirEntry) bool {
		return strings.HasPrefix(entry.Name(), bridgePrefix)
	}), nil
}

// withMachineChanges lets one process at a time read, act and write. The
// record is written even when act fails, for it may have changed something.
// The file goes when there is nothing to remember.
func withMachineChanges(act func(*machineChanges) error) error {
	file, err := lockMachineChanges()
	if err != nil {
		return err
	}
	defer file.Close()
	var changes machineChanges
	if err := json.NewDecoder(file).Decode(&changes); err != nil {
		changes = machineChanges{} // new, or cut short by a crash
	}
	actErr := act(&changes)
	if !changes.ForwardingWasOff && len(changes.MadeDirectories) == 0 {
		return errors.Join(actErr, os.Remove(file.Name()))
	}
	content, err := json.Marshal(changes)
	if err != nil {
		return errors.Join(actErr, err)
	}
	if err := file.Truncate(0); err != nil {
		return errors.Join(actErr, err)
	}
	_, err = file.WriteAt(append(content, '\n'), 0)
	return errors.Join(actErr, err)
}

// lockMachineChanges returns the locked file. It tries again when another
// process removed the file between the opening and the lock.
func lockMachineChanges() (*os.File, error) {
	for {
		file, err := os.OpenFile(machineChangesFile, os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			return nil, err
		}
		if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX); err != nil {
			_ = file.Close()
			return nil, fmt.Errorf("lock %s: %w", machineChangesFile, err)
		}
		locked, err := file.Stat()
		if err != nil {
			_ = file.Close()
			return nil, err
		}
		if current, err := os.Stat(machineChangesFile); err == nil && os.SameFile(locked, current) {
			return file, nil
		}
		_ = file.Close()
	}
}
