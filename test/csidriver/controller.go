//go:build linux

package main

import (
	"context"
	"os"
	"os/exec"
	"slices"
	"sync"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// deviceKey is where a node finds the device in the publish context.
const deviceKey = "device"

type controller struct {
	csi.UnimplementedControllerServer
	volumes store
	mu      sync.Mutex
}

func (c *controller) ControllerGetCapabilities(context.Context, *csi.ControllerGetCapabilitiesRequest) (*csi.ControllerGetCapabilitiesResponse, error) {
	answer := &csi.ControllerGetCapabilitiesResponse{}
	for _, capability := range []csi.ControllerServiceCapability_RPC_Type{
		csi.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME,
		csi.ControllerServiceCapability_RPC_PUBLISH_UNPUBLISH_VOLUME,
		csi.ControllerServiceCapability_RPC_EXPAND_VOLUME,
		// With it, ReadWriteOncePod is distinguished from ReadWriteOnce.
		csi.ControllerServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER,
	} {
		answer.Capabilities = append(answer.Capabilities, &csi.ControllerServiceCapability{
			Type: &csi.ControllerServiceCapability_Rpc{Rpc: &csi.ControllerServiceCapability_RPC{Type: capability}},
		})
	}
	return answer, nil
}

func (c *controller) CreateVolume(ctx context.Context, request *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error) {
	if err := checkCapabilities(request.GetVolumeCapabilities()...); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	size := sizeOf(request.GetCapacityRange())
	id := volumeID(request.GetName())
	found, err := c.volumes.read(id)
	switch {
	case status.Code(err) == codes.NotFound:
		found = volume{ID: id, Capacity: size}
		err = c.make(ctx, found)
	case err == nil && found.Capacity < size:
		err = status.Errorf(codes.AlreadyExists, "volume %s has %d bytes, %d are wanted", id, found.Capacity, size)
	}
	if err != nil {
		return nil, err
	}
	return &csi.CreateVolumeResponse{Volume: &csi.Volume{VolumeId: id, CapacityBytes: found.Capacity}}, nil
}

func (c *controller) make(ctx context.Context, v volume) error {
	if err := os.MkdirAll(c.volumes.path(v.ID), 0o755); err != nil {
		return err
	}
	if err := grow(c.volumes.image(v.ID), v.Capacity); err != nil {
		return err
	}
	output, err := exec.CommandContext(ctx, "mkfs.ext4", "-q", "-F", "-m", "0", c.volumes.image(v.ID)).CombinedOutput()
	if err != nil {
		return status.Errorf(codes.Internal, "mkfs.ext4: %v: %s", err, output)
	}
	// Last, so that a volume that is known is complete.
	return c.volumes.write(v)
}

// grow makes a file larger, without allocating what is added.
func grow(path string, size int64) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	return file.Truncate(size)
}

func sizeOf(wanted *csi.CapacityRange) int64 {
	size := wanted.GetRequiredBytes()
	if size == 0 {
		size = defaultSize
	}
	return max(smallest, (size+mebibyte-1)/mebibyte*mebibyte)
}

func (c *controller) DeleteVolume(_ context.Context, request *csi.DeleteVolumeRequest) (*csi.DeleteVolumeResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	found, err := c.volumes.read(request.GetVolumeId())
	if status.Code(err) == codes.NotFound {
		return &csi.DeleteVolumeResponse{}, nil
	}
	if err != nil {
		return nil, err
	}
	if len(found.Nodes) > 0 {
		return nil, status.Errorf(codes.FailedPrecondition, "volume %s is attached to %v", found.ID, found.Nodes)
	}
	return &csi.DeleteVolumeResponse{}, c.volumes.remove(found.ID)
}

func (c *controller) ValidateVolumeCapabilities(_ context.Context, request *csi.ValidateVolumeCapabilitiesRequest) (*csi.ValidateVolumeCapabilitiesResponse, error) {
	if _, err := c.volumes.read(request.GetVolumeId()); err != nil {
		return nil, err
	}
	if err := checkCapabilities(request.GetVolumeCapabilities()...); err != nil {
		return &csi.ValidateVolumeCapabilitiesResponse{Message: err.Error()}, nil
	}
	return &csi.ValidateVolumeCapabilitiesResponse{
		Confirmed: &csi.ValidateVolumeCapabilitiesResponse_Confirmed{VolumeCapabilities: request.GetVolumeCapabilities()},
	}, nil
}

func (c *controller) ControllerPublishVolume(ctx context.Context, request *csi.ControllerPublishVolumeRequest) (*csi.ControllerPublishVolumeResponse, error) {
	if err := checkCapabilities(request.GetVolumeCapability()); err != nil {
		return nil, err
	}
	trouble, err := c.volumes.faults()
	if err != nil {
		return nil, err
	}
	if err := delay(ctx, trouble.AttachDelay); err != nil {
		return nil, err
	}
	if message, fails := trouble.AttachFails[request.GetNodeId()]; fails {
		return nil, status.Error(codes.Internal, message)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	found, err := c.volumes.read(request.GetVolumeId())
	if err != nil {
		return nil, err
	}
	elsewhere := slices.ContainsFunc(found.Nodes, func(name string) bool { return name != request.GetNodeId() })
	if elsewhere && isSingleNode(request.GetVolumeCapability()) {
		return nil, status.Errorf(codes.FailedPrecondition, "volume %s is attached to %v", found.ID, found.Nodes)
	}
	if found.Device, err = attachLoop(c.volumes.image(found.ID)); err != nil {
		return nil, err
	}
	if !slices.Contains(found.Nodes, request.GetNodeId()) {
		found.Nodes = append(found.Nodes, request.GetNodeId())
	}
	if err := c.volumes.write(found); err != nil {
		return nil, err
	}
	return &csi.ControllerPublishVolumeResponse{PublishContext: map[string]string{deviceKey: found.Device}}, nil
}

func (c *controller) ControllerUnpublishVolume(ctx context.Context, request *csi.ControllerUnpublishVolumeRequest) (*csi.ControllerUnpublishVolumeResponse, error) {
	trouble, err := c.volumes.faults()
	if err != nil {
		return nil, err
	}
	if err := delay(ctx, trouble.DetachDelay); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	found, err := c.volumes.read(request.GetVolumeId())
	if status.Code(err) == codes.NotFound {
		return &csi.ControllerUnpublishVolumeResponse{}, nil
	}
	if err != nil {
		return nil, err
	}
	// No node named means all of them.
	found.Nodes = slices.DeleteFunc(found.Nodes, func(name string) bool {
		return request.GetNodeId() == "" || name == request.GetNodeId()
	})
	if len(found.Nodes) == 0 {
		if err := detachLoop(c.volumes.image(found.ID)); err != nil {
			return nil, err
		}
		found.Device = ""
	}
	return &csi.ControllerUnpublishVolumeResponse{}, c.volumes.write(found)
}

// ControllerExpandVolume grows the file system itself where nobody uses it, and
// leaves it to the node where it may be mounted.
func (c *controller) ControllerExpandVolume(ctx context.Context, request *csi.ControllerExpandVolumeRequest) (*csi.ControllerExpandVolumeResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	found, err := c.volumes.read(request.GetVolumeId())
	if err != nil {
		return nil, err
	}
	if size := sizeOf(request.GetCapacityRange()); size > found.Capacity {
		found.Capacity = size
		if err := c.expand(ctx, found); err != nil {
			return nil, err
		}
	}
	return &csi.ControllerExpandVolumeResponse{CapacityBytes: found.Capacity, NodeExpansionRequired: len(found.Nodes) > 0}, nil
}

func (c *controller) expand(ctx context.Context, v volume) error {
	image := c.volumes.image(v.ID)
	if err := grow(image, v.Capacity); err != nil {
		return err
	}
	if len(v.Nodes) > 0 {
		if err := refreshLoop(image); err != nil {
			return err
		}
	} else if output, err := exec.CommandContext(ctx, "resize2fs", "-f", image).CombinedOutput(); err != nil {
		return status.Errorf(codes.Internal, "resize2fs: %v: %s", err, output)
	}
	return c.volumes.write(v)
}

// checkCapabilities refuses raw blocks and file systems other than ours.
func checkCapabilities(capabilities ...*csi.VolumeCapability) error {
	for _, capability := range capabilities {
		fileSystem := capability.GetMount().GetFsType()
		if capability.GetMount() == nil || fileSystem != "" && fileSystem != fileSystemType {
			return status.Error(codes.InvalidArgument, "volumes are ext4 file systems")
		}
	}
	return nil
}

func isSingleNode(capability *csi.VolumeCapability) bool {
	switch capability.GetAccessMode().GetMode() {
	case csi.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY,
		csi.VolumeCapability_AccessMode_MULTI_NODE_SINGLE_WRITER,
		csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER:
		return false
	}
	return true
}
