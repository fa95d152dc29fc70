package realnode

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
)

// cniPlugins is where Debian's containernetworking-plugins puts them.
const cniPlugins = "/usr/lib/cni"

// nodePrograms are built with the tools of this project.
var nodePrograms = []string{"containerd", "containerd-shim-runc-v2", "ctr", "runc", "kubelet"}

// debianPackages tells which package of Debian brings a program or file.
var debianPackages = []struct{ program, file, name string }{
	{program: "ip", name: "iproute2"},
	{program: "unshare", name: "util-linux"},
	{program: "nsenter", name: "util-linux"},
	{program: "mount", name: "mount"},
	{file: filepath.Join(cniPlugins, "bridge"), name: "containernetworking-plugins"},
	{file: filepath.Join(cniPlugins, "host-local"), name: "containernetworking-plugins"},
	{file: filepath.Join(cniPlugins, "loopback"), name: "containernetworking-plugins"},
}

// CheckPrerequisites reports everything that real nodes need and this machine
// lacks, each with the command that brings it.
func CheckPrerequisites(binDir string) error {
	if runtime.GOOS != "linux" {
		return fmt.Errorf("real nodes run on Linux only, not on %s: use simulated nodes", runtime.GOOS)
	}
	var missing []error
	if os.Geteuid() != 0 {
		missing = append(missing, errors.New("real nodes need root: run the same command with sudo, or use simulated nodes"))
	}
	missing = append(missing, missingPrograms(binDir)...)
	missing = append(missing, missingPackages(exec.LookPath, os.Stat)...)
	if _, err := os.Stat(filepath.Join(cgroupRoot, "cgroup.controllers")); err != nil {
		if _, err := os.Stat(filepath.Join(cgroupRoot, "memory")); err != nil {
			missing = append(missing, fmt.Errorf("no cgroups below %s: mount them (systemd does)", cgroupRoot))
		}
	}
	return errors.Join(missing...)
}

func missingPrograms(binDir string) []error {
	var missing []error
	for _, program := range nodePrograms {
		path := filepath.Join(binDir, program)
		if info, err := os.Stat(path); err != nil || info.Mode()&0o111 == 0 {
			missing = append(missing, fmt.Errorf("no program %s: run `make tools`", path))
			continue
		}
	}
	if len(missing) == 0 {
		// runc is linked to libseccomp.so.2, which may be of the machine it was built on.
		if output, err := exec.Command(filepath.Join(binDir, "runc"), "--version").CombinedOutput(); err != nil {
			missing = append(missing, fmt.Errorf("runc does not run (%w: %s): `apt-get install libseccomp2`", err, output))
		}
	}
	return missing
}

func missingPackages(lookPath func(string) (string, error), stat func(string) (os.FileInfo, error)) []error {
	var missing []error
	reported := map[string]bool{}
	for _, need := range debianPackages {
		var err error
		if need.program != "" {
			_, err = lookPath(need.program)
		} else {
			_, err = stat(need.file)
		}
		if err != nil && !reported[need.name] {
			reported[need.name] = true
			missing = append(missing, fmt.Errorf("no %s: `apt-get install %s`", need.program+need.file, need.name))
		}
	}
	return missing
}
