package ociruntime

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// Runtime is the wrapper on one node.
type Runtime struct {
	// Store holds the checkpoints.
	Store Store
	// RestoredDir remembers restored containers until they are started.
	RestoredDir string
	// Runc is the path of runc.
	Runc string
	// Patience is how long a creation waits for its checkpoint.
	Patience time.Duration
}

// patience is less than the two minutes that the kubelet gives to a request
// (runtimeRequestTimeout).
const patience = 100 * time.Second

// New returns the wrapper of this node, with the first runc on the PATH that is
// not the wrapper itself.
func New() (*Runtime, error) {
	runc, err := exec.LookPath("runc")
	if err != nil {
		return nil, fmt.Errorf("runc, which this program wraps, is not on the PATH: %w", err)
	}
	return &Runtime{Store: DefaultStore, RestoredDir: RestoredDir, Runc: runc, Patience: patience}, nil
}

// Run does what a command line of runc asks for. It returns only where runc was
// not simply put in the place of this process: with the exit status.
func (r *Runtime) Run(arguments []string) (int, error) {
	c := parse(arguments)
	switch c.name {
	case "start":
		// The processes of a restored container are there; the agent continues them.
		if c.container != "" && filepath.Base(c.container) == c.container && os.Remove(filepath.Join(r.RestoredDir, c.container)) == nil {
			return 0, nil
		}
	case "create":
		entry, err := r.expected(c)
		if err != nil {
			return 1, c.fail(err)
		}
		if entry != "" {
			if err := r.restore(c, entry); err != nil {
				return 1, c.fail(err)
			}
			return 0, nil
		}
	}
	err := syscall.Exec(r.Runc, append([]string{r.Runc}, arguments...), os.Environ())
	return 1, fmt.Errorf("running %s: %w", r.Runc, err)
}

// Annotations that containerd's CRI plugin writes into the configuration of a
// container (github.com/containerd/containerd/v2/internal/cri/annotations).
const (
	containerTypeAnnotation = "io.kubernetes.cri.container-type"
	containerNameAnnotation = "io.kubernetes.cri.container-name"
	podUIDAnnotation        = "io.kubernetes.cri.sandbox-uid"
)

// expected returns the directory of the checkpoint that a container is to be
// restored from; empty when it is to be created.
func (r *Runtime) expected(c command) (Entry, error) {
	if !r.hasEntries() {
		return "", nil
	}
	content, err := os.ReadFile(filepath.Join(c.bundle(), "config.json"))
	if err != nil {
		return "", fmt.Errorf("reading the configuration of the container: %w", err)
	}
	var config struct {
		Annotations map[string]string `json:"annotations"`
	}
	if err := json.Unmarshal(content, &config); err != nil {
		return "", fmt.Errorf("reading the configuration of the container: %w", err)
	}
	if config.Annotations[containerTypeAnnotation] != "container" || config.Annotations[podUIDAnnotation] == "" {
		return "", nil
	}
	entry, err := r.Store.Entry(config.Annotations[podUIDAnnotation], config.Annotations[containerNameAnnotation])
	if err != nil || !entry.Exists() {
		return "", err
	}
	return entry, nil
}

// hasEntries is asked before anything is read: mostly nothing is being restored.
func (r *Runtime) hasEntries() bool {
	directory, err := os.Open(string(r.Store))
	if err != nil {
		return false
	}
	defer directory.Close()
	names, _ := directory.Readdirnames(1)
	return len(names) > 0
}

func (c command) bundle() string {
	if b := c.flags["bundle"]; b != "" {
		return b
	}
	return "."
}

// fail reports to the caller of runc what went wrong, where it looks for it: in the
// log that it named. From there it comes into the events of the pod.
func (c command) fail(failure error) error {
	path := c.globalValue("log")
	if path == "" || c.globalValue("log-format") != "json" {
		return failure
	}
	line, err := json.Marshal(struct {
		Level string    `json:"level"`
		Msg   string    `json:"msg"`
		Time  time.Time `json:"time"`
	}{"error", failure.Error(), time.Now()})
	if err != nil {
		return errors.Join(failure, err)
	}
	file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return errors.Join(failure, err)
	}
	_, err = file.Write(append(line, '\n'))
	return errors.Join(failure, err, file.Close())
}
