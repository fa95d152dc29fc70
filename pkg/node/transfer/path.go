package transfer

import (
	"strings"
)

// Paths are relative to their volume, with single slashes; that of the volume's root
// directory is empty. They are bytes: names need not be text.

// comparePaths orders paths as a walk finds them: directories before what is in them,
// names by their bytes. A slash is less than every byte of a name.
func comparePaths(a, b string) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] == b[i] {
			continue
		}
		switch {
		case a[i] == '/':
			return -1
		case b[i] == '/':
			return 1
		case a[i] < b[i]:
			return -1
		}
		return 1
	}
	return len(a) - len(b)
}

// isBelow reports whether a path is in a directory, at any depth.
func isBelow(path, directory string) bool {
	if directory == "" {
		return path != ""
	}
	return len(path) > len(directory) && path[len(directory)] == '/' && path[:len(directory)] == directory
}

func splitPath(path string) (parent, name string) {
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		return path[:i], path[i+1:]
	}
	return "", path
}

func joinPath(parent, name string) string {
	if parent == "" {
		return name
	}
	return parent + "/" + name
}

// checkPath accepts what comparePaths and a walk by names can work with, and nothing
// that leads out of a volume.
func checkPath(path string) error {
	if path == "" {
		return nil
	}
	if len(path) > maxPath {
		return failure(ReasonTooLarge, "a path has %d bytes, at most %d can be carried", len(path), maxPath)
	}
	depth := 0
	for name := range strings.SplitSeq(path, "/") {
		depth++
		if err := checkName(name); err != nil {
			return err
		}
	}
	return checkDepth(depth)
}

func checkDepth(depth int) error {
	if depth > maxDepth {
		return failure(ReasonTooLarge, "directories are more than %d deep, which is as deep as can be carried", maxDepth)
	}
	return nil
}

func checkName(name string) error {
	switch {
	case name == "" || name == "." || name == "..":
		return failure(ReasonCorrupt, "%q is no name of a file", name)
	case len(name) > maxName:
		return failure(ReasonTooLarge, "a name has %d bytes, at most %d can be carried", len(name), maxName)
	case strings.ContainsAny(name, "\x00/"):
		return failure(ReasonCorrupt, "%q is no name of a file", name)
	}
	return nil
}
