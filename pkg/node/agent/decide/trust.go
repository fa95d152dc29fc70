package decide

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// Sender is who wants to send the volumes of a pod, and what for.
type Sender struct {
	// Fingerprint is that of its certificate; the others are what it says itself.
	Fingerprint string
	Migration   types.UID
	Attempt     int32
}

// Admits returns why the agent of a node does not take volumes from a sender; nil where it
// does. m is the migration and pod the one that the volumes are for, nil where it is gone,
// both as the API server has them now.
func Admits(m *v1alpha1.PodMigration, node string, s Sender, pod *corev1.Pod) error {
	c := m.Status.Checkpoint
	if m.UID != s.Migration || !c.Carries() || c.Attempt != s.Attempt {
		return fmt.Errorf("attempt %d of migration %s is not the one that is being made", s.Attempt, s.Migration)
	}
	isAsked := c.Step == v1alpha1.StepCopy || c.Step == v1alpha1.StepSeal
	if isUndone(m) || m.Status.Phase.IsFinished() || !isAsked {
		return fmt.Errorf("migration %s does not ask for a copy", s.Migration)
	}
	source := CurrentSource(c)
	if source == nil || s.Fingerprint == "" || source.Fingerprint != s.Fingerprint || m.Status.Original == nil || source.Node != m.Status.Original.NodeName {
		return fmt.Errorf("no node agent of the original of migration %s has reported the fingerprint %s", s.Migration, s.Fingerprint)
	}
	return isOn(m, node, pod)
}

func isOn(m *v1alpha1.PodMigration, node string, pod *corev1.Pod) error {
	reference := m.DestinationPod()
	switch {
	case reference == nil:
		return errors.New("there is no pod that the volumes are for")
	case reference.NodeName != node:
		return fmt.Errorf("pod %s, which the volumes are for, is on node %q, not on %s", reference.Name, reference.NodeName, node)
	case pod == nil || pod.UID != reference.UID || pod.Spec.NodeName != node:
		return fmt.Errorf("pod %s, which the volumes are for, is not on node %s", reference.Name, node)
	}
	return nil
}

// ErrNoReceiver says that no agent has reported yet where it receives the volumes.
var ErrNoReceiver = errors.New("no node agent receives the volumes")

// ConnectTo returns where the agent of the source connects to, and the fingerprint that it
// has to find there. pod is the one that the volumes are for, nil where it is gone, and node
// the one that it is on, nil where there is none, as the API server has them now.
func ConnectTo(m *v1alpha1.PodMigration, pod *corev1.Pod, node *corev1.Node) (address, fingerprint string, err error) {
	report := Receiver(m)
	if report == nil {
		return "", "", ErrNoReceiver
	}
	if err := isOn(m, report.Node, pod); err != nil {
		return "", "", err
	}
	isKnown := node != nil && node.Name == report.Node && slices.ContainsFunc(node.Status.Addresses, func(a corev1.NodeAddress) bool {
		isIP := a.Type == corev1.NodeInternalIP || a.Type == corev1.NodeExternalIP
		return isIP && a.Address == hostOf(report.Address)
	})
	if !isKnown {
		return "", "", fmt.Errorf("%s is at no address of node %s", report.Address, report.Node)
	}
	return report.Address, report.Fingerprint, nil
}

// hostOf is the IP address of "address:port", or of "[address]:port"; "" where it is neither.
func hostOf(address string) string {
	i := strings.LastIndexByte(address, ':')
	if i < 0 {
		return ""
	}
	host := address[:i]
	if inner, found := strings.CutPrefix(host, "["); found {
		return strings.TrimSuffix(inner, "]")
	}
	return host
}

// MayRemove reports whether a node may remove what waits on it for a migration, nil where
// that is gone, and the sealed copy on its claim.
func MayRemove(m *v1alpha1.PodMigration) bool {
	return m == nil || m.Status.Phase.IsFinished() && !KeepsState(m)
}
