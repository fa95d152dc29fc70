//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// faults is what F/faults.json says; it is read for every call.
type faults struct {
	// AttachFails names nodes that no volume can be attached to, with the message.
	AttachFails map[string]string `json:"attachFails,omitempty"`
	// AttachDelay and DetachDelay slow the controller down, like "5s".
	AttachDelay string `json:"attachDelay,omitempty"`
	DetachDelay string `json:"detachDelay,omitempty"`
}

func (s store) faults() (faults, error) {
	var f faults
	content, err := os.ReadFile(filepath.Join(s.directory, "faults.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil
	}
	if err != nil {
		return f, err
	}
	err = json.Unmarshal(content, &f)
	return f, err
}

// delay waits as long as the text says; empty is not at all.
func delay(ctx context.Context, text string) error {
	if text == "" {
		return nil
	}
	duration, err := time.ParseDuration(text)
	if err != nil {
		return status.Errorf(codes.InvalidArgument, "faults: %v", err)
	}
	select {
	case <-time.After(duration):
		return nil
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	}
}
