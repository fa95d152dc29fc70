package transfer

import (
	"fmt"
	"os"
	"strings"
)

// originOf names what signatures and digests of a state file depend on.
func originOf(boot string, hash *hasher) string { return boot + " " + hash.name }

// bootID distinguishes boots of the node.
func bootID() (string, error) {
	content, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(content)), err
}

// isUnfinished reports whether a name in a state directory is that of a manifest whose
// writer has died.
func isUnfinished(name string) bool { return strings.HasPrefix(name, "."+stateFile+".") }

// prepareState makes the state directory and removes what an earlier process left
// unfinished in it.
func prepareState(directory string) (boot string, err error) {
	if err := os.MkdirAll(directory, 0o700); err != nil {
		return "", fmt.Errorf("making the state directory: %w", err)
	}
	entries, err := os.ReadDir(directory)
	if err != nil {
		return "", err
	}
	for _, e := range entries {
		if isUnfinished(e.Name()) {
			if err := os.Remove(joinPath(directory, e.Name())); err != nil {
				return "", err
			}
		}
	}
	return bootID()
}
