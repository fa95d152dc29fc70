// Package checkpoint carries the content of a pod's scratch volumes to the checkpoint
// PVC of a migration, the claim,
// and from there into the volumes of another pod, exactly: owners, modes,
// times, hard and symbolic links, extended attributes and holes.
//
// On the claim, in a directory that root alone can read:
//
//	<migration-uid>/manifest.json     what there is, with a digest of every 4 MiB
//	<migration-uid>/volumes/<name>/…  contents, as a plain tree
//
// A Writer copies in passes while the pod runs. Each pass writes only the parts
// of files that changed, reads them back, and ends with a manifest. Seal ends
// the last pass, made while the pod is frozen: a sealed checkpoint is a complete and
// verified one. A Reader restores the last
// manifest as often as there is a new one, and at the end exactly the sealed
// one, whose digest comes from the status of the migration: the containers of the
// pod see the claim and could have changed it.
//
// Everything is reached through os.Root, since containers that run can put
// symbolic links in the way. That, and copying only what changed, is why no
// general copying library is used: those take paths.
//
// The package must not know Kubernetes, freeze anything or decide when a pass
// is due. It needs Linux.
package checkpoint
