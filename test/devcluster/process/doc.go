// Package process runs the background processes of one state directory. They
// outlive the program that started them, so `up` and `down` can be two
// commands, and a crash of the first leaves something that the second can
// find and end.
//
// It reads /proc, so it works on Linux only. It knows nothing of what the
// processes do: readiness, order and arguments belong to the caller.
package process
