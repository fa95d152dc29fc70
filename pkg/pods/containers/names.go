package containers

import (
	"fmt"
	"hash/fnv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// maxNameLength is the limit of the name of a pod or claim, in characters
// (DNS subdomain, RFC 1123).
const maxNameLength = 253

// RootName is the name of the first original of a pod: a pod that was moved
// before keeps the name that it descends from, so that suffixes do not pile up.
func RootName(pod *corev1.Pod) string {
	if root := pod.Annotations[v1alpha1.OriginalPodLabel]; root != "" {
		return root
	}
	if root := pod.Labels[v1alpha1.OriginalPodLabel]; root != "" {
		return root
	}
	return pod.Name
}

// ReplacementName is the name of the pod that takes over. It depends on the
// migration alone, so that creating the pod twice fails instead of making two.
func ReplacementName(root string, migration types.UID, created time.Time) string {
	return fitName("", root, "-migrated-"+timestamp(migration, created))
}

// ClaimName is the name of the checkpoint claim of a migration.
func ClaimName(root string, migration types.UID, created time.Time) string {
	return fitName("checkpoint-", root, "-"+timestamp(migration, created))
}

// timestamp writes the creation time of a migration in UTC, to the second,
// and four more digits. The API does not record fractions of a second; digits
// from the UID take their place, so that two migrations of one second differ.
func timestamp(migration types.UID, created time.Time) string {
	h := fnv.New32a()
	// Writing to a hash never fails.
	_, _ = h.Write([]byte(migration))
	return fmt.Sprintf("%s%04d", created.UTC().Format("20060102150405"), h.Sum32()%10000)
}

// fitName cuts root so that the whole fits. What is left of it must end in an
// alphanumeric character, since a hyphen follows.
func fitName(prefix, root, suffix string) string {
	if room := maxNameLength - len(prefix) - len(suffix); len(root) > room {
		root = strings.TrimRight(root[:room], "-.")
	}
	return prefix + root + suffix
}
