package ociruntime

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ai-storage/orchestrator/pkg/node/atomicfile"
)

const (
	// Program is the name of the wrapper.
	Program = "oci-runtime"
	// DefaultStore is where the node agent leaves checkpoints
	// (manifests/base/node-agent.yaml). It outlives a restart of the node: a pod that
	// was being restored must not be started from nothing after it.
	DefaultStore = "/var/lib/ai-storage/node-agent/restore"
	// RestoredDir has a file for every container that was restored and not yet
	// started, by its ID. It need not outlive a restart of the node.
	RestoredDir = "/run/ai-storage/restored"

	readyFile    = "ready"
	begunFile    = "begun"
	restoredFile = "restored"
	failedFile   = "failed"
	configFile   = "criu.conf"
)

// Store is the directory of the checkpoints that are to be restored on a node.
type Store string

// Entry is the directory of one container.
type Entry string

// Pod is the directory of all containers of a pod.
func (s Store) Pod(uid string) string { return filepath.Join(string(s), uid) }

// Entry is the directory of a container of a pod; it need not exist. Both names
// come from the configuration of a container: they must be plain.
func (s Store) Entry(uid, container string) (Entry, error) {
	for _, name := range []string{uid, container} {
		if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
			return "", fmt.Errorf("%q cannot name a checkpoint", name)
		}
	}
	return Entry(filepath.Join(s.Pod(uid), container)), nil
}

// Memory is where the images of CRIU are.
func (e Entry) Memory() string { return filepath.Join(string(e), "memory") }

// Layer is where the writable layer is.
func (e Entry) Layer() string { return filepath.Join(string(e), "layer") }

// Work is where CRIU writes its log.
func (e Entry) Work() string { return filepath.Join(string(e), "work") }

func (e Entry) path(name string) string { return filepath.Join(string(e), name) }

// Exists reports whether the container is expected to be restored.
func (e Entry) Exists() bool {
	_, err := os.Lstat(string(e))
	return !errors.Is(err, fs.ErrNotExist)
}

// restoreConfig is CRIU's configuration. Connections that were established are
// closed: their other end is on another machine, or on another address.
// The processes stay stopped until the agent continues them.
const restoreConfig = "tcp-close\nnetwork-lock skip\nleave-stopped\n"

// Expect creates the directories of a container. From here on it is restored or not
// started at all, also after an error.
func (e Entry) Expect() error {
	for _, directory := range []string{string(e), e.Memory(), e.Layer()} {
		if err := os.MkdirAll(directory, 0o700); err != nil {
			return fmt.Errorf("expecting a checkpoint: %w", err)
		}
	}
	return nil
}

// Offer says that everything is there and verified. After an error the container is
// not restored.
func (e Entry) Offer() error {
	if err := os.WriteFile(e.path(configFile), []byte(restoreConfig), 0o600); err != nil {
		return fmt.Errorf("offering a checkpoint: %w", err)
	}
	if err := os.WriteFile(e.path(readyFile), nil, 0o600); err != nil {
		return fmt.Errorf("offering a checkpoint: %w", err)
	}
	return nil
}

// IsTaken reports whether the wrapper has taken the checkpoint: from then on it
// must not be changed.
func (e Entry) IsTaken() bool {
	for _, name := range []string{begunFile, restoredFile, failedFile} {
		if _, err := os.Lstat(e.path(name)); err == nil {
			return true
		}
	}
	return false
}

// Outcome of a restoration.
type Outcome struct {
	// Done: there is one. Failure is why it failed, or empty.
	Done    bool
	Failure string
	// Container is the ID of a container that was restored.
	Container string
}

// Outcome reads what came of an offer; the zero value while there is none.
func (e Entry) Outcome() (Outcome, error) {
	if id, err := os.ReadFile(e.path(restoredFile)); err == nil {
		return Outcome{Done: true, Container: string(id)}, nil
	}
	message, err := os.ReadFile(e.path(failedFile))
	if errors.Is(err, fs.ErrNotExist) {
		return Outcome{}, nil
	}
	return Outcome{Done: err == nil, Failure: string(message)}, err
}

// takePoll is how often a creation looks for its checkpoint. Nothing but a signal
// ends it, so there is no context to wait for.
const takePoll = 2 * time.Millisecond

// take waits until the checkpoint is ready and takes it: of two creations one gets
// it. The error says why there is nothing to take: it did not come in time, was
// cancelled, or was taken before.
func (e Entry) take(patience time.Duration) error {
	for deadline := time.Now().Add(patience); ; time.Sleep(takePoll) { //nolint:forbidigo // only a signal ends it
		err := os.Rename(e.path(readyFile), e.path(begunFile))
		if err == nil {
			return nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("taking the checkpoint: %w", err)
		}
		if !e.Exists() {
			return errors.New("the checkpoint was removed")
		}
		outcome, err := e.Outcome()
		switch {
		case err != nil:
			return fmt.Errorf("taking the checkpoint: %w", err)
		case outcome.Failure != "":
			return fmt.Errorf("its processes could not be restored before: %s", outcome.Failure)
		case outcome.Done:
			return errors.New("its processes were restored before, and have ended")
		}
		if _, err := os.Lstat(e.path(begunFile)); err == nil {
			return errors.New("its processes are being restored already")
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the checkpoint was not complete within %s", patience)
		}
	}
}

// Cancel says that the container will not be restored: its creation fails.
func (e Entry) Cancel() error { return e.finish("", errors.New("the migration was rolled back")) }

func (e Entry) finish(container string, failure error) error {
	name, content := restoredFile, container
	if failure != nil {
		name, content = failedFile, failure.Error()
	}
	if err := atomicfile.Write(e.path(name), strings.NewReader(content), 0o600); err != nil {
		return fmt.Errorf("recording the restoration: %w", err)
	}
	return nil
}
