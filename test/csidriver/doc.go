//go:build linux

// csidriver is the CSI driver of our tests: a volume is an ext4 file system in a
// file of the machine, attached as a loop device. Nodes that share the machine
// so have volumes with a real size, a real attach and a real mount.
//
//	csidriver controller --directory F --socket F/controller.sock
//	csidriver node --directory F --name N --kubelet-root /var/lib/kubelet
//
// The controller makes, attaches, detaches and grows volumes, and keeps a volume
// of a single-node mode on one node. The real external-provisioner,
// external-attacher and external-resizer drive it. The node part mounts what is
// attached to its node, and refuses what is not; it registers itself with the
// kubelet. What happens is kept in the directory, so either part may be killed.
//
// F/faults.json makes trouble for tests: see faults. It must not be used for
// anything that is to last.
package main
