package ociruntime

import "strings"

// command is what the wrapper reads of a command line of runc.
type command struct {
	// global are the options before the name of the command.
	global []string
	name   string
	// flags are those of the command that have a value, by their long names.
	flags map[string]string
	// switches are those that have none.
	switches map[string]bool
	// container is the first argument.
	container string
}

// Options of runc (main.go, create.go of v1.5) with a value; all others stand alone.
var (
	globalValues = map[string]bool{"log": true, "log-format": true, "root": true, "rootless": true, "criu": true}
	createValues = map[string]bool{"bundle": true, "b": true, "console-socket": true, "pidfd-socket": true, "pid-file": true, "preserve-fds": true}
)

// parse reads a command line as runc's library does (urfave/cli v1): options
// before the first argument, with one dash or two, the value after "=" or next.
func parse(arguments []string) command {
	c := command{flags: map[string]string{}, switches: map[string]bool{}}
	rest := arguments
	for len(rest) > 0 && strings.HasPrefix(rest[0], "-") {
		_, _, used := option(rest, globalValues)
		rest = rest[used:]
	}
	c.global = arguments[:len(arguments)-len(rest)]
	if len(rest) == 0 {
		return c
	}
	c.name, rest = rest[0], rest[1:]
	for len(rest) > 0 && strings.HasPrefix(rest[0], "-") {
		if rest[0] == "--" {
			rest = rest[1:]
			break
		}
		name, value, used := option(rest, createValues)
		if name == "b" {
			name = "bundle"
		}
		if createValues[name] {
			c.flags[name] = value
		} else {
			c.switches[name] = true
		}
		rest = rest[used:]
	}
	if len(rest) > 0 {
		c.container = rest[0]
	}
	return c
}

// option reads one option and returns how many words it takes.
func option(words []string, values map[string]bool) (name, value string, used int) {
	name = strings.TrimLeft(words[0], "-")
	name, value, joined := strings.Cut(name, "=")
	if joined || !values[name] || len(words) == 1 {
		return name, value, 1
	}
	return name, words[1], 2
}

// globalValue is the value of an option before the name of the command.
func (c command) globalValue(wanted string) string {
	for rest := c.global; len(rest) > 0; {
		name, value, used := option(rest, globalValues)
		if name == wanted {
			return value
		}
		rest = rest[used:]
	}
	return ""
}
