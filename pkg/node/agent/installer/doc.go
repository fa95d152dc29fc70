// Package installer puts the wrapper of runc on a node as the handler of a
// runtime of its own, and takes it away again.
//
// It adds two files and changes none: the program, and a drop-in in a directory that
// containerd's configuration imports. Both are written down in a record before
// they are made. containerd is restarted only when its configuration is another,
// and only after it has been asked what it makes of it: nothing but the handler
// may be different. When it does not come back, what was there before is.
package installer
