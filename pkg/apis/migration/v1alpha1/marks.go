package v1alpha1

import (
	"regexp"
	"strings"

	"k8s.io/apimachinery/pkg/types"
)

// Marks on the objects that a migration creates. The scheduler plugin, the
// controller and users of kubectl read them.
const (
	// OriginalPodLabel names the first original, so that the descendants of one
	// pod can be listed. Values longer than a label allows are cut; the
	// annotation of the same name holds the whole.
	OriginalPodLabel = GroupName + "/original-pod"
	// TargetNodeLabel names the node that was requested or planned. The
	// scheduler decides; spec.nodeName says where the pod really is.
	TargetNodeLabel = GroupName + "/target-node"
	// MigrationUIDLabel holds the UID of the PodMigration that owns the object.
	MigrationUIDLabel = GroupName + "/migration-uid"

	// SourceNodeAnnotation names the node that the replacement must not use.
	SourceNodeAnnotation = GroupName + "/source-node"
	// CheckpointClaimAnnotation names the claim mounted at CheckpointMountPath. Of
	// an application that saves its state itself, the author of the pod sets it.
	CheckpointClaimAnnotation = GroupName + "/checkpoint-claim"
	// OriginalUIDAnnotation holds the UID of the pod that the replacement takes
	// over from.
	OriginalUIDAnnotation = GroupName + "/original-uid"
	// RequiredNodeAnnotation names the only node that the replacement may use,
	// when the request named one.
	RequiredNodeAnnotation = GroupName + "/required-node"
	// DiscardableVolumesAnnotation lists, separated by commas, volumes of a pod
	// whose content may be lost when the pod moves. The author of the pod sets it.
	DiscardableVolumesAnnotation = GroupName + "/discardable-volumes"
	// RerunInitContainersAnnotation lists, separated by commas, init containers of a
	// pod that run again in its replacement though they have finished. The author of
	// the pod sets it.
	RerunInitContainersAnnotation = GroupName + "/rerun-init-containers"
	// SkipInitContainersAnnotation lists init containers that do not run again though
	// they may have changed more than volumes. The author of the pod sets it.
	SkipInitContainersAnnotation = GroupName + "/skip-init-containers"
	// SharedPathAnnotation with the value "true" on a PersistentVolume, on its claim or
	// on its StorageClass says that the path of the volume holds the same files on every
	// node, as that of a cluster file system does. Whoever provides the volume sets it.
	SharedPathAnnotation = GroupName + "/shared-path"
	// ExcludeAnnotation with the value "true" keeps the rebalancing loop away
	// from a pod. A migration that a user requests is still carried out.
	ExcludeAnnotation = GroupName + "/exclude"
	// RebalanceAnnotation with the value "true" lets the rebalancing loop move a pod
	// that it would skip for what the pod is to others: one of several workers of a
	// Job, a member of a gang, or a pod of a Job that holds devices. The author of the
	// pod sets it, in the template, and so says that the others bear the absence of one
	// for the time of a move. ExcludeAnnotation prevails.
	RebalanceAnnotation = GroupName + "/rebalance"

	// ReclaimedAnnotation holds, on a pod of which finished containers were shrunk
	// in place, what they requested (JSON, package reclaim/record).
	ReclaimedAnnotation = GroupName + "/reclaimed"

	// CreatedByLabel with the value CreatedByRebalancer marks the PodMigrations
	// that the rebalancing loop created. Its circuit breaker counts no others.
	CreatedByLabel      = GroupName + "/created-by"
	CreatedByRebalancer = "rebalancer"

	// RequestedByAnnotation holds the user whose token came with a request to the
	// REST API.
	RequestedByAnnotation = GroupName + "/requested-by"

	// RoleLabel says what a pod is to the migration in MigrationUIDLabel when it is not the
	// replacement: RolePlaceholder.
	RoleLabel       = GroupName + "/role"
	RolePlaceholder = "placeholder"
	// ReleasedAnnotation holds, on an original that its owner has released, what
	// has to be restored when the migration is rolled back (JSON).
	ReleasedAnnotation = GroupName + "/released"
	// RollbackBarrierAnnotation holds, on an original, the UID of the last migration that
	// was rolled back, or withdrew an attempt to end the pod (UID/attempt). Writing it
	// makes every older judgement of the pod void.
	RollbackBarrierAnnotation = GroupName + "/rollback-barrier"
	// RecreateAnnotation with the value "true" says that the controller of the
	// pod creates a new one when the pod is gone, so that it may be moved. The
	// author of the pod sets it. ReplicaSets, Jobs and StatefulSets need none.
	RecreateAnnotation = GroupName + "/recreate"
	// ProbeAnnotation holds the UID of a migration on a pod that is created only
	// to see whether the admission webhook answers, and never stored.
	ProbeAnnotation = GroupName + "/probe"
	// HoldFinalizer keeps an original that has ended until its owner may make
	// another pod.
	HoldFinalizer = GroupName + "/hold"
	// WaitForOriginalGate keeps a replacement out of the scheduler's queue until
	// the original has released its volumes.
	WaitForOriginalGate = GroupName + "/wait-for-original"

	// GateVolumeName is an emptyDir of replacements with carried state. It holds
	// the program of the gate, and the file that opens it.
	GateVolumeName = "migration-gate"
	GateMountPath  = "/.migration-gate"
	// GateOpenFile, in the gate volume, lets the containers of a replacement start.
	GateOpenFile = "open"
	// GateInstallContainer puts the gate's program into the gate volume,
	// GateWarmContainerPrefix+number pulls an image, GateContainer waits.
	GateInstallContainer    = "migration-install"
	GateWarmContainerPrefix = "migration-warm-"
	GateContainer           = "migration-restore"

	// AppLabel and ComponentLabel are the labels of every checkpoint claim.
	AppLabel            = "app"
	AppLabelValue       = "ai-storage-orchestrator"
	ComponentLabel      = "component"
	ComponentLabelValue = "migration-checkpoint"

	// CheckpointVolumeName is the volume of the checkpoint claim in a replacement.
	CheckpointVolumeName = "migration-checkpoint"
	// CheckpointMountPath is where every container of a replacement sees its directory
	// of the checkpoint claim.
	CheckpointMountPath = "/migration-checkpoint"
	// ApplicationDirectory is the directory of a checkpoint claim that containers see,
	// SealedCopyDirectory the one that only the node agents use.
	ApplicationDirectory = "application"
	SealedCopyDirectory  = ".ai-storage"
	// CopyVolumeName is the volume of the checkpoint claim in a replacement whose
	// containers have the claim of an earlier migration at CheckpointMountPath.
	CopyVolumeName = "migration-copy"

	// Finalizer keeps a PodMigration until what it created is removed, or handed over.
	Finalizer = GroupName + "/cleanup"
	// CheckpointFinalizer keeps a checkpoint claim as long as its migration needs it.
	CheckpointFinalizer = GroupName + "/checkpoint"

	// ProcessRuntimeClass is the RuntimeClass of pods whose processes can move: its
	// handler is cmd/oci-runtime.
	ProcessRuntimeClass = "ai-storage-process"
	// ProcessNodeLabel with the value "true" says that a node can dump and restore
	// processes. The node agent writes it, and ProcessVersionsAnnotation.
	ProcessNodeLabel = GroupName + "/process-checkpoint"
	// ProcessVersionsAnnotation names the versions of the kernel, CRIU and runc.
	ProcessVersionsAnnotation = GroupName + "/process-checkpoint-versions"

	// SchedulerName is the scheduler that places every replacement.
	SchedulerName = "ai-storage-scheduler"
)

// maxLabelValueLength is the limit of a label value in characters
// (k8s.io/apimachinery/pkg/util/validation.LabelValueMaxLength).
const maxLabelValueLength = 63

// LabelValue cuts a name to what a label value may hold. A cut value ends in
// an alphanumeric character, as label values must.
func LabelValue(name string) string {
	if len(name) <= maxLabelValueLength {
		return name
	}
	cut := maxLabelValueLength
	for cut > 0 && !isAlphanumeric(name[cut-1]) {
		cut--
	}
	return name[:cut]
}

func isAlphanumeric(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// uid is the form of the UIDs that API servers give (RFC 4122, in lower case).
var uid = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// IsUID reports whether a text has the form of the UIDs that API servers give, so
// that it is safe in a path and worth to be looked for.
func IsUID(text string) bool { return uid.MatchString(text) }

var digest = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// IsDigest reports whether a text is a SHA-256 as statuses have it, "sha256:" and 64
// hexadecimal digits in lower case: the digest of a manifest, or a fingerprint.
func IsDigest(text string) bool { return digest.MatchString(text) }

// OwnedBy reports whether labels carry the mark of the migration with this UID.
func OwnedBy(labels map[string]string, migration types.UID) bool {
	return migration != "" && labels[MigrationUIDLabel] == string(migration)
}

// IsGateContainer reports whether the engine added the init container of this name.
func IsGateContainer(name string) bool {
	return name == GateInstallContainer || name == GateContainer || strings.HasPrefix(name, GateWarmContainerPrefix)
}
