//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// attachLoop returns the loop device of a file, a new one if it has none.
func attachLoop(image string) (string, error) {
	device, err := findLoop(image)
	if device != "" || err != nil {
		return device, err
	}
	backing, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	defer backing.Close()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	defer control.Close()
	for {
		number, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return "", fmt.Errorf("finding a free loop device: %w", err)
		}
		device := fmt.Sprintf("/dev/loop%d", number)
		err = configureLoop(device, backing)
		// Another process was faster.
		if errors.Is(err, unix.EBUSY) {
			continue
		}
		return device, err
	}
}

func configureLoop(device string, backing *os.File) error {
	file, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := unix.IoctlLoopConfigure(int(file.Fd()), &unix.LoopConfig{Fd: uint32(backing.Fd())}); err != nil {
		return fmt.Errorf("attaching %s to %s: %w", backing.Name(), device, err)
	}
	return nil
}

// detachLoop frees the loop device of a file. One that is still mounted goes
// with its last mount.
func detachLoop(image string) error { return onLoop(image, unix.LOOP_CLR_FD) }

// refreshLoop tells the loop device of a file, if it has one, of its new size.
func refreshLoop(image string) error { return onLoop(image, unix.LOOP_SET_CAPACITY) }

func onLoop(image string, request uint) error {
	device, err := findLoop(image)
	if device == "" || err != nil {
		return err
	}
	file, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := unix.IoctlSetInt(int(file.Fd()), request, 0); err != nil {
		return fmt.Errorf("%s of %s: %w", device, image, err)
	}
	return nil
}

// findLoop returns the loop device of a file; empty when it has none.
func findLoop(image string) (string, error) {
	paths, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return "", err
	}
	for _, path := range paths {
		content, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENXIO) {
			continue
		}
		if err != nil {
			return "", err
		}
		if strings.TrimSpace(string(content)) == image {
			return "/dev/" + strings.Split(path, "/")[3], nil
		}
	}
	return "", nil
}
