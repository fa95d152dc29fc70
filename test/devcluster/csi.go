package devcluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/ai-storage/orchestrator/test/devcluster/controlplane"
	"github.com/ai-storage/orchestrator/test/devcluster/process"
)

const (
	// CSIDriverName is the name of the CSI driver of Options.CSI.
	CSIDriverName = "csi.ai-storage.test"
	// CSIClass provisions volumes at once, CSILateClass when a pod is placed that
	// uses them.
	CSIClass     = "csi-rwo"
	CSILateClass = "csi-wffc"

	// CSIAttacher is the process that attaches what a VolumeAttachment asks for;
	// StopComponent and KillComponent know it.
	CSIAttacher = "csi-attacher"

	csiController  = "csi-controller"
	csiProgram     = "csidriver"
	csiProvisioner = "csi-provisioner"
	csiResizer     = "csi-resizer"
)

// CSIFaults makes trouble in the CSI driver.
type CSIFaults struct {
	// AttachFails names nodes that no volume can be attached to, with the message.
	AttachFails map[string]string `json:"attachFails,omitempty"`
	// AttachDelay and DetachDelay slow the driver down, like "5s".
	AttachDelay string `json:"attachDelay,omitempty"`
	DetachDelay string `json:"detachDelay,omitempty"`
}

// SetCSIFaults replaces the faults of the CSI driver, from its next call on.
func (c *Cluster) SetCSIFaults(faults CSIFaults) error {
	content, err := json.Marshal(faults)
	if err != nil {
		return err
	}
	path := filepath.Join(csiDirectory(c.stateDir), "faults.json")
	// In one step: the driver may read at any time.
	if err := os.WriteFile(path+".new", content, 0o644); err != nil {
		return fmt.Errorf("faults of the CSI driver: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("faults of the CSI driver: %w", err)
	}
	return nil
}

func csiDirectory(stateDir string) string { return filepath.Join(stateDir, "csi") }
func csiSocket(stateDir string) string {
	return filepath.Join(csiDirectory(stateDir), "controller.sock")
}

// csiPrograms are what Options.CSI needs beyond the rest.
var csiPrograms = []string{csiProgram, CSIAttacher, csiProvisioner, csiResizer}

func (o Options) checkCSI() error {
	if !o.CSI {
		return nil
	}
	if o.Nodes.Kind != Real {
		return errors.New("the CSI driver needs real nodes")
	}
	var missing []error
	for _, program := range csiPrograms {
		if path := filepath.Join(o.BinDir, program); !isProgram(path) {
			missing = append(missing, fmt.Errorf("%s is missing: run `make tools`", path))
		}
	}
	return errors.Join(missing...)
}

// csiSpecs are the controller's processes: the driver, and the real programs
// that call it for the API server's objects.
func (c *Cluster) csiSpecs() []process.Spec {
	// Programs of a storage vendor would have rights of their own; these are of
	// no interest here.
	arguments := []string{
		"--kubeconfig=" + controlplane.KubeconfigPath(c.stateDir, "admin"),
		"--csi-address=" + csiSocket(c.stateDir),
		"--timeout=2m",
	}
	sidecar := func(name string, more ...string) process.Spec {
		return process.Spec{Name: name, Path: filepath.Join(c.state.BinDir, name), Args: append(more, arguments...)}
	}
	return []process.Spec{
		{
			Name: csiController, Path: filepath.Join(c.state.BinDir, csiProgram),
			Args: []string{"controller", "--directory=" + csiDirectory(c.stateDir), "--socket=" + csiSocket(c.stateDir)},
		},
		sidecar(CSIAttacher, "--default-fstype=ext4"),
		sidecar(csiProvisioner, "--default-fstype=ext4"),
		sidecar(csiResizer),
	}
}
