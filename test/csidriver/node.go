//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"unsafe"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	fileSystemType = "ext4"
	// resizeRequest is EXT4_IOC_RESIZE_FS, _IOW('f', 16, __u64).
	resizeRequest = 0x40086610
)

type node struct {
	csi.UnimplementedNodeServer
	name    string
	volumes store
}

func (n *node) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: n.name}, nil
}

func (n *node) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	answer := &csi.NodeGetCapabilitiesResponse{}
	for _, capability := range []csi.NodeServiceCapability_RPC_Type{
		csi.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME,
		csi.NodeServiceCapability_RPC_EXPAND_VOLUME,
		csi.NodeServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER,
	} {
		answer.Capabilities = append(answer.Capabilities, &csi.NodeServiceCapability{
			Type: &csi.NodeServiceCapability_Rpc{Rpc: &csi.NodeServiceCapability_RPC{Type: capability}},
		})
	}
	return answer, nil
}

// NodeStageVolume mounts the volume's device, if it is attached to this node.
func (n *node) NodeStageVolume(_ context.Context, request *csi.NodeStageVolumeRequest) (*csi.NodeStageVolumeResponse, error) {
	found, err := n.volumes.read(request.GetVolumeId())
	if err != nil {
		return nil, err
	}
	device := request.GetPublishContext()[deviceKey]
	if !slices.Contains(found.Nodes, n.name) || device == "" || device != found.Device {
		return nil, status.Errorf(codes.FailedPrecondition, "volume %s is attached to %v as %s, not to %s as %s",
			found.ID, found.Nodes, found.Device, n.name, device)
	}
	staging := request.GetStagingTargetPath()
	if err := os.MkdirAll(staging, 0o750); err != nil {
		return nil, err
	}
	mounted, err := isMountPoint(staging)
	if err != nil {
		return nil, err
	}
	if mounted {
		return &csi.NodeStageVolumeResponse{}, nil
	}
	if err := unix.Mount(device, staging, fileSystemType, 0, ""); err != nil {
		return nil, fmt.Errorf("mounting %s: %w", device, err)
	}
	return &csi.NodeStageVolumeResponse{}, nil
}

func (n *node) NodeUnstageVolume(_ context.Context, request *csi.NodeUnstageVolumeRequest) (*csi.NodeUnstageVolumeResponse, error) {
	return &csi.NodeUnstageVolumeResponse{}, unmount(request.GetStagingTargetPath())
}

// NodePublishVolume binds the mounted volume to where the pod expects it.
func (n *node) NodePublishVolume(_ context.Context, request *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	target := request.GetTargetPath()
	if err := os.MkdirAll(target, 0o750); err != nil {
		return nil, err
	}
	mounted, err := isMountPoint(target)
	if err != nil || mounted {
		return &csi.NodePublishVolumeResponse{}, err
	}
	if staged, err := isMountPoint(request.GetStagingTargetPath()); err != nil || !staged {
		return nil, status.Errorf(codes.FailedPrecondition, "volume %s is not staged: %v", request.GetVolumeId(), err)
	}
	if err := unix.Mount(request.GetStagingTargetPath(), target, "", unix.MS_BIND, ""); err != nil {
		return nil, fmt.Errorf("binding %s: %w", target, err)
	}
	if !request.GetReadonly() {
		return &csi.NodePublishVolumeResponse{}, nil
	}
	if err := unix.Mount("", target, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		return nil, errors.Join(fmt.Errorf("making %s read-only: %w", target, err), unmount(target))
	}
	return &csi.NodePublishVolumeResponse{}, nil
}

func (n *node) NodeUnpublishVolume(_ context.Context, request *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	if err := unmount(request.GetTargetPath()); err != nil {
		return nil, err
	}
	if err := os.Remove(request.GetTargetPath()); err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	return &csi.NodeUnpublishVolumeResponse{}, nil
}

func (n *node) NodeExpandVolume(_ context.Context, request *csi.NodeExpandVolumeRequest) (*csi.NodeExpandVolumeResponse, error) {
	found, err := n.volumes.read(request.GetVolumeId())
	if err != nil {
		return nil, err
	}
	if err := n.resize(found, request.GetVolumePath()); err != nil {
		return nil, err
	}
	return &csi.NodeExpandVolumeResponse{CapacityBytes: found.Capacity}, nil
}

// resize lets the mounted file system fill its device. The kernel asks for
// CAP_SYS_RESOURCE, and says EPERM on a machine where root lacks it.
func (n *node) resize(v volume, mountPoint string) error {
	var have unix.Statfs_t
	if err := unix.Statfs(mountPoint, &have); err != nil {
		return fmt.Errorf("reading the size of %s: %w", mountPoint, err)
	}
	directory, err := os.Open(mountPoint)
	if err != nil {
		return err
	}
	defer directory.Close()
	blocks := uint64(v.Capacity) / uint64(have.Bsize)
	if _, _, failure := unix.Syscall(unix.SYS_IOCTL, directory.Fd(), resizeRequest, uintptr(unsafe.Pointer(&blocks))); failure != 0 {
		return fmt.Errorf("growing %s to %d bytes: %w", mountPoint, v.Capacity, failure)
	}
	return nil
}

func isMountPoint(path string) (bool, error) {
	var own, parent unix.Stat_t
	err := unix.Lstat(path, &own)
	if err == nil {
		err = unix.Lstat(path+"/..", &parent)
	}
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	return own.Dev != parent.Dev, err
}

func unmount(path string) error {
	mounted, err := isMountPoint(path)
	if err != nil || !mounted {
		return err
	}
	if err := unix.Unmount(path, 0); err != nil {
		return fmt.Errorf("unmounting %s: %w", path, err)
	}
	return nil
}
