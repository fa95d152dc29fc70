// Package ociruntime stands between a container runtime and runc. It hands
// everything to runc as it came, but for the creation of a container that the
// node agent has left a checkpoint for: that one is restored by CRIU, with the
// memory of its processes, and held there until the agent continues it.
//
// What decides is a directory that the agent wrote for this very pod and container
// (Store), never an annotation: a checkpoint is trusted like the kernel trusts a
// program that root starts, so only root may say which one is used.
//
// The agent and the wrapper share nothing but that directory:
//
//	<pod uid>/<container>/          expected: the creation waits for what follows
//	<pod uid>/<container>/memory/   images of CRIU
//	<pod uid>/<container>/layer/    the writable layer, with overlay whiteouts
//	<pod uid>/<container>/ready     written by the agent: all is there and verified
//	<pod uid>/<container>/begun     ready, renamed by the wrapper that took it
//	<pod uid>/<container>/restored  the processes are there, stopped
//	<pod uid>/<container>/failed    why they are not
//
// A container whose directory is there is never started from nothing. So until the agent
// removes the directory, nothing of the pod runs but what was restored.
//
// The package uses the standard library, golang.org/x/sys and atomicfile only: the
// wrapper starts for every call of every container, and a start costs time.
package ociruntime
