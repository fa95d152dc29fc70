// Package transfer carries the content of a pod's volumes from the node agent of one node
// to that of another, exactly: owners, modes, times, hard and symbolic links, FIFOs,
// extended attributes, holes, whiteouts of layers, and names that are no text.
//
// A Source sends in passes while the pod runs, each only what changed since the one
// before, and once more when the pod is frozen. A Destination writes straight into the
// volumes of the replacement and, where it is given a Copy, the same content into a second
// directory that is sealed at the end. Restore makes volumes equal to such a copy, on any
// node, by the same way.
//
// # Manifests
//
// What volumes hold is a sequence of records, one for each name, in the order in which a
// walk finds them: its kind, owner, mode, time, attributes and, of a file, the digest of
// every 4 MiB. That is SHA-256 where a sealed copy is made or read, which others may be able
// to write, and otherwise a keyed hash that takes an eighth of the time (hash.go). The digest
// of the manifest is the SHA-256 of all records. Both sides keep the
// manifest of what the receiver has in a file of their state directory, beside each record
// the inode number and change time of the file that it was made from. A pass reads the old
// manifest and writes the new one side by side with the walk, so that memory does not grow
// with the number of files.
//
// # Frames
//
// A connection is TLS 1.3; both sides have certificates made for the occasion and know the
// SHA-256 of that of the other one. The name of the protocol within TLS (ALPN) has its
// version. A frame is one byte with its type, four bytes with the length of what follows,
// and at most one chunk of 4 MiB with its header. Numbers are varints, texts and paths come
// behind their length.
//
//   - The sender begins with 'H': version, UID of the migration, attempt, names of the
//     volumes, and whether the hash must be SHA-256. The receiver answers 'w': version,
//     digest of the manifest of what it has, key of the hash.
//   - Where the sender does not know a manifest with that digest it asks by 'W', and gets
//     it in parts, 'm', of which an empty one is the last. So a new connection continues,
//     whatever happened to the one before.
//   - A pass begins with 'B': its number, and whether the pod is frozen. 'V' begins the
//     next volume. 'P' has a record, with the content of a small file where that differs.
//     A large file begins with 'O', has its chunks that differ, 'C', and its holes, 'Z', and
//     ends with 'X', its size. 'R' removes a path with all in it. Paths come in the order
//     of the manifest; what is not mentioned stays.
//   - 'E' ends a pass: digest and number of the records, and whether this was the last
//     pass. The receiver compares them with its own manifest, makes everything durable and
//     seals the copy if it was the last pass, and answers 'd' with its digest.
//   - 'f' of the receiver has reason and message of a failure, and ends the connection. '.'
//     of either side says that it is at work; a connection is silent for a minute at most.
//
// A side that gets anything else, or a number beyond its limit, ends the connection.
//
// # Trust
//
// Containers can change their volumes at every moment, in whatever way, and an agent that
// was taken over can send whatever it likes. Names are opened one by one in directories that
// are open already, never through links or into mounts; only regular files are opened, after
// a look at what they are. A receiver accepts nothing that no sender sends. TLS vouches for
// what comes, and the receiver reads back what it has written, where it has written it, and
// compares the digest of that: a manifest is of what is in its place. A sender of a sealed
// copy compares what it reads before it is sent.
// What exceeds a limit of limits.go is refused with the number.
//
// # Memory
//
// All senders of a process together hold 32 MiB of content at most, all receivers the same,
// each of them 12 MiB. Beside that a sender has at most 32 MiB of names, of the directories that
// it is in, and 32 MiB of paths of files with several names; each side a megabyte for all
// else, and 8 MiB for the digests of a file of 1 TiB.
//
// # Durability
//
// Before the receiver answers the last pass it calls syncfs(2) once for each file system of
// volumes that last and for that of the copy, at the same time; for in-memory and transient
// volumes it does not. It does the same beside each pass for what the passes before have
// written, so that a pod that is frozen waits for little of its own.
//
// # Storage that does not answer
//
// A system call on a volume may never return. Pass, Restore, Adopt, Measure, OpenDestination
// and Serve return at most 10 seconds after their context has ended, Close of either side
// after 10 seconds, with an error. What was abandoned so may still write once when the
// storage answers. Until it has ended, another Source, Destination or Adopt with the same
// directories is refused, in this process; its end is that of all else.
//
// The package must not know Kubernetes, freeze anything or decide when a pass is due. It
// needs Linux 5.6, and the rights of root.
package transfer
