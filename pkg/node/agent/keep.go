package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"k8s.io/apimachinery/pkg/types"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/node/atomicfile"
)

// What a node keeps of a migration while it is under way:
//
//	<state directory>/transfer/<migration>/migration.json  which it is
//	                                      /<attempt>/source         of the sender
//	                                      /<attempt>/waiting        of the receiver of what waits
//	                                      /<attempt>/<pod>          of the receiver into a pod
//	                                      /<attempt>/waits.json     what was sealed waits
//	<kubelet's directory>/ai-storage/<migration>/<attempt>/volumes  what waits
const (
	migrationFile = "migration.json"
	waitsFile     = "waits.json"
)

// stateOf is the directory of a migration.
func (a *agent) stateOf(migration types.UID) string {
	return filepath.Join(a.transfers, string(migration))
}

// stateIn is a directory of an attempt. Its name is the one that is given last.
func (a *agent) stateIn(m *v1alpha1.PodMigration, name string) string {
	return filepath.Join(a.stateOf(m.UID), strconv.Itoa(int(m.Status.Checkpoint.Attempt)), name)
}

// makeState makes the directory of an attempt, and says of which migration it is.
func (a *agent) makeState(m *v1alpha1.PodMigration) error {
	if err := os.MkdirAll(a.stateIn(m, ""), 0o700); err != nil {
		return fmt.Errorf("making the state directory: %w", err)
	}
	return writeMigration(a.stateOf(m.UID), m)
}

// hasState reports whether this node keeps anything of a migration.
func (a *agent) hasState(migration types.UID) bool {
	_, err := os.Lstat(a.stateOf(migration))
	return !errors.Is(err, fs.ErrNotExist)
}

func attemptOf(name string) (int32, bool) {
	attempt, err := strconv.ParseInt(name, 10, 32)
	return int32(attempt), err == nil && attempt > 0
}

// writeMigration says in a directory of which migration it is.
func writeMigration(directory string, m *v1alpha1.PodMigration) error {
	return writeJSON(filepath.Join(directory, migrationFile), types.NamespacedName{Namespace: m.Namespace, Name: m.Name}, atomicfile.WriteDurably)
}

func readMigration(directory string) (types.NamespacedName, error) {
	var key types.NamespacedName
	if err := readJSON(filepath.Join(directory, migrationFile), &key); err != nil {
		return key, fmt.Errorf("finding out which migration %s is of: %w", directory, err)
	}
	return key, nil
}

// waits says that what was sealed in an attempt waits on this node.
type waits struct {
	// Digest is that of its manifest, "sha256:…".
	Digest string `json:"digest"`
	// ClaimSealed: it is on the claim too.
	ClaimSealed bool `json:"claimSealed,omitempty"`
	// Pod is the replacement that it was, or is being, given to; parts of it have left.
	Pod types.UID `json:"pod,omitempty"`
}

// putWaits is durable when it returns: what waits is believed to be complete, or to be given
// away, after it.
func (a *agent) putWaits(m *v1alpha1.PodMigration, w waits) error {
	if err := writeJSON(a.stateIn(m, waitsFile), w, atomicfile.WriteDurably); err != nil {
		return fmt.Errorf("recording what waits: %w", err)
	}
	return nil
}

// getWaits returns what waits of this attempt; nil where nothing does.
func (a *agent) getWaits(m *v1alpha1.PodMigration) (*waits, error) {
	w := &waits{}
	err := readJSON(a.stateIn(m, waitsFile), w)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading what waits: %w", err)
	}
	return w, nil
}
