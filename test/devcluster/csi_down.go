package devcluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// detachCSIVolumes frees the loop devices of a cluster's volumes: they belong to
// the machine, and outlive nodes and processes.
func detachCSIVolumes(ctx context.Context, stateDir string, say reporter) error {
	devices, err := loopDevices(csiDirectory(stateDir))
	if err != nil {
		return err
	}
	var failures []error
	for _, device := range devices {
		if output, err := exec.CommandContext(ctx, "losetup", "--detach", device).CombinedOutput(); err != nil {
			failures = append(failures, fmt.Errorf("detach %s: %w: %s", device, err, output))
		}
	}
	if len(devices) > 0 {
		say("%d CSI volumes are detached", len(devices))
	}
	return errors.Join(failures...)
}

// loopDevices lists those whose file lies below the directory, also after the
// file was removed.
func loopDevices(directory string) ([]string, error) {
	paths, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return nil, err
	}
	var devices []string
	for _, path := range paths {
		content, err := os.ReadFile(path)
		// Unreadable is one that went meanwhile.
		if err == nil && strings.HasPrefix(string(content), directory+"/") {
			devices = append(devices, "/dev/"+strings.Split(path, "/")[3])
		}
	}
	return devices, nil
}
