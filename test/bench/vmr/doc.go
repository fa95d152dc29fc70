// Package vmr reads snapshots of ByteDance's VM rescheduling data set, writes
// and reads move lists, and checks them. The checker replays the moves on the
// file's own figures and shares no evaluation with pkg/scheduling/repack.
package vmr
