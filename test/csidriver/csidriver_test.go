//go:build linux

package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const singleNode = csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER

func mounted(mode csi.VolumeCapability_AccessMode_Mode) *csi.VolumeCapability {
	return &csi.VolumeCapability{
		AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{}},
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: mode},
	}
}

// driver is the controller and a volume, on a machine that lets us attach.
func driver(t *testing.T, size int64) (*controller, string) {
	t.Helper()
	if _, err := exec.LookPath("mkfs.ext4"); err != nil || os.Geteuid() != 0 {
		t.Skip("needs root and mkfs.ext4")
	}
	c := &controller{volumes: store{directory: t.TempDir()}}
	request := &csi.CreateVolumeRequest{
		Name: "v", CapacityRange: &csi.CapacityRange{RequiredBytes: size},
		VolumeCapabilities: []*csi.VolumeCapability{mounted(singleNode)},
	}
	made, err := c.CreateVolume(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	again, err := c.CreateVolume(t.Context(), request)
	if err != nil || again.Volume.VolumeId != made.Volume.VolumeId {
		t.Fatalf("asked twice: %v, %v, want volume %s", again, err, made.Volume.VolumeId)
	}
	id := made.Volume.VolumeId
	t.Cleanup(func() {
		if err := detachLoop(c.volumes.image(id)); err != nil {
			t.Error(err)
		}
	})
	return c, id
}

func (c *controller) attach(t *testing.T, id, node string, mode csi.VolumeCapability_AccessMode_Mode) (map[string]string, error) {
	t.Helper()
	answer, err := c.ControllerPublishVolume(t.Context(), &csi.ControllerPublishVolumeRequest{
		VolumeId: id, NodeId: node, VolumeCapability: mounted(mode),
	})
	return answer.GetPublishContext(), err
}

func (c *controller) detach(t *testing.T, id, node string) {
	t.Helper()
	if _, err := c.ControllerUnpublishVolume(t.Context(), &csi.ControllerUnpublishVolumeRequest{VolumeId: id, NodeId: node}); err != nil {
		t.Fatal(err)
	}
}

func TestOneNodeAtATime(t *testing.T) {
	c, id := driver(t, smallest)
	for range 2 {
		if _, err := c.attach(t, id, "a", singleNode); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.attach(t, id, "b", singleNode); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("attached to a second node: %v", err)
	}
	if _, err := c.attach(t, id, "b", csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER); err != nil {
		t.Errorf("shared: %v", err)
	}
	if _, err := c.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: id}); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("deleted while attached: %v", err)
	}
	c.detach(t, id, "a")
	c.detach(t, id, "b")
	if device, err := findLoop(c.volumes.image(id)); device != "" || err != nil {
		t.Errorf("still attached as %s (%v)", device, err)
	}
	if _, err := c.attach(t, id, "b", singleNode); err != nil {
		t.Errorf("after the first release: %v", err)
	}
	c.detach(t, id, "b")
	if _, err := c.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: id}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(c.volumes.path(id)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left after the deletion: %v", err)
	}
}

func TestFaults(t *testing.T) {
	c, id := driver(t, smallest)
	write := func(text string) {
		if err := os.WriteFile(filepath.Join(c.volumes.directory, "faults.json"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(`{"attachFails": {"a": "out of order"}}`)
	if _, err := c.attach(t, id, "a", singleNode); status.Convert(err).Message() != "out of order" {
		t.Errorf("on the broken node: %v", err)
	}
	if _, err := c.attach(t, id, "b", singleNode); err != nil {
		t.Errorf("on another node: %v", err)
	}
	write(`{"detachDelay": "1h"}`)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := c.ControllerUnpublishVolume(ctx, &csi.ControllerUnpublishVolumeRequest{VolumeId: id, NodeId: "b"})
	if status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("a slow detach: %v", err)
	}
	write(`{}`)
	c.detach(t, id, "b")
}

// What is written on one node is there on the next, and the size is real.
func TestVolumeTravels(t *testing.T) {
	c, id := driver(t, smallest)
	a, b := &node{name: "a", volumes: c.volumes}, &node{name: "b", volumes: c.volumes}
	published, err := c.attach(t, id, "a", singleNode)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stage(t, b, id, published); status.Code(err) != codes.FailedPrecondition {
		t.Fatalf("mounted on a node that it is not attached to: %v", err)
	}
	onA, err := stage(t, a, id, published)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(onA, "nonce"), []byte("42"), 0o600); err != nil {
		t.Fatal(err)
	}
	err = os.WriteFile(filepath.Join(onA, "large"), make([]byte, smallest), 0o600)
	if !errors.Is(err, unix.ENOSPC) {
		t.Errorf("more than fits: %v, want ENOSPC", err)
	}
	if err := os.Remove(filepath.Join(onA, "large")); err != nil {
		t.Fatal(err)
	}
	unstage(t, a, id, onA)
	c.detach(t, id, "a")

	grown, err := c.ControllerExpandVolume(t.Context(), &csi.ControllerExpandVolumeRequest{
		VolumeId: id, CapacityRange: &csi.CapacityRange{RequiredBytes: 3 * smallest},
	})
	if err != nil || grown.CapacityBytes != 3*smallest || grown.NodeExpansionRequired {
		t.Fatalf("growing what nobody uses: %v, %v", grown, err)
	}
	if published, err = c.attach(t, id, "b", singleNode); err != nil {
		t.Fatal(err)
	}
	onB, err := stage(t, b, id, published)
	if err != nil {
		t.Fatal(err)
	}
	if nonce, err := os.ReadFile(filepath.Join(onB, "nonce")); err != nil || string(nonce) != "42" {
		t.Errorf("read back %q, %v", nonce, err)
	}
	if err := os.WriteFile(filepath.Join(onB, "large"), make([]byte, smallest), 0o600); err != nil {
		t.Errorf("after growing: %v", err)
	}
	unstage(t, b, id, onB)
	c.detach(t, id, "b")
}

func stage(t *testing.T, n *node, id string, published map[string]string) (string, error) {
	t.Helper()
	staging, target := t.TempDir(), filepath.Join(t.TempDir(), "mount")
	_, err := n.NodeStageVolume(t.Context(), &csi.NodeStageVolumeRequest{
		VolumeId: id, StagingTargetPath: staging, PublishContext: published, VolumeCapability: mounted(singleNode),
	})
	if err != nil {
		return "", err
	}
	t.Cleanup(func() { _ = unix.Unmount(staging, unix.MNT_DETACH) })
	if _, err := n.NodePublishVolume(t.Context(), &csi.NodePublishVolumeRequest{
		VolumeId: id, StagingTargetPath: staging, TargetPath: target, VolumeCapability: mounted(singleNode),
	}); err != nil {
		return "", err
	}
	t.Cleanup(func() { _ = unix.Unmount(target, unix.MNT_DETACH) })
	if _, err := n.NodeUnstageVolume(t.Context(), &csi.NodeUnstageVolumeRequest{VolumeId: id, StagingTargetPath: staging}); err != nil {
		return "", err
	}
	return target, nil
}

func unstage(t *testing.T, n *node, id, target string) {
	t.Helper()
	if _, err := n.NodeUnpublishVolume(t.Context(), &csi.NodeUnpublishVolumeRequest{VolumeId: id, TargetPath: target}); err != nil {
		t.Fatal(err)
	}
}
