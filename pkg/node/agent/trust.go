package agent

import (
	"context"
	"fmt"
	"regexp"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/node/agent/decide"
	"github.com/ai-storage/orchestrator/pkg/node/transfer"
)

// More than the controller may be able to write a status: agents of other nodes, whoever
// administrates a namespace. So nothing of it becomes a path, or is frozen, before it was
// compared with the pods that really are on this node.

func refused(format string, args ...any) error {
	return &transfer.Error{Reason: transfer.ReasonRefused, Err: fmt.Errorf(format, args...)}
}

// checkUIDs refuses a migration whose UIDs are none. The API server makes that of the
// migration itself.
func checkUIDs(m *v1alpha1.PodMigration) error {
	s := &m.Status
	uids := map[string]types.UID{"metadata.uid": m.UID, "status.checkpoint.sealedBy": s.Checkpoint.SealedBy}
	for field, pod := range map[string]*v1alpha1.PodReference{"status.original": s.Original, "status.replacement": s.Replacement, "status.placeholder": s.Placeholder} {
		if pod != nil {
			uids[field+".uid"] = pod.UID
		}
	}
	for field, uid := range uids {
		if uid != "" && !v1alpha1.IsUID(string(uid)) {
			return refused("%s %q is no UID", field, uid)
		}
	}
	return nil
}

// pod reads a pod of the migration; nil when it is gone.
func (a *agent) pod(ctx context.Context, namespace string, reference *v1alpha1.PodReference) (*corev1.Pod, error) {
	pod := &corev1.Pod{}
	err := a.live.Get(ctx, types.NamespacedName{Namespace: namespace, Name: reference.Name}, pod)
	if apierrors.IsNotFound(err) || err == nil && pod.UID != reference.UID {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return pod, nil
}

// podHere reads a pod that the status says is on this node. The error is errNoProcess when
// it is gone.
func (a *agent) podHere(ctx context.Context, namespace string, reference *v1alpha1.PodReference) (*corev1.Pod, error) {
	if reference == nil || !v1alpha1.IsUID(string(reference.UID)) {
		return nil, refused("the status names no pod")
	}
	pod, err := a.pod(ctx, namespace, reference)
	if err != nil {
		return nil, err
	}
	if pod == nil {
		return nil, errNoProcess
	}
	if pod.Spec.NodeName != a.node {
		return nil, refused("pod %s/%s is on node %q, not on %s", pod.Namespace, pod.Name, pod.Spec.NodeName, a.node)
	}
	return pod, nil
}

// checkVolumes refuses names that are not emptyDirs of the pod.
func checkVolumes(pod *corev1.Pod, names []string) error {
	for _, name := range names {
		if !slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == name && v.EmptyDir != nil }) {
			return refused("pod %s/%s has no emptyDir %q", pod.Namespace, pod.Name, name)
		}
	}
	return nil
}

// checkContainers refuses names that are no containers of the pod.
func checkContainers(pod *corev1.Pod, names []string) error {
	for _, name := range names {
		isNamed := func(c corev1.Container) bool { return c.Name == name }
		if !slices.ContainsFunc(pod.Spec.Containers, isNamed) && !slices.ContainsFunc(pod.Spec.InitContainers, isNamed) {
			return refused("pod %s/%s has no container %q", pod.Namespace, pod.Name, name)
		}
	}
	return nil
}

var containerPattern = regexp.MustCompile(`^[0-9a-f]{64}$`)

// digestPrefix is what statuses have before the hexadecimal digest of a manifest.
const digestPrefix = "sha256:"

// digestOf is the hexadecimal part of a digest in a status.
func digestOf(reported string) (string, error) {
	if !v1alpha1.IsDigest(reported) {
		return "", refused("%q is no digest of a manifest", reported)
	}
	return reported[len(digestPrefix):], nil
}

// receiverOf returns the address and the fingerprint of the agent to connect to. The error
// is errNoProcess where there is none any more.
func (a *agent) receiverOf(ctx context.Context, m *v1alpha1.PodMigration) (address, fingerprint string, err error) {
	report := decide.Receiver(m)
	if report == nil {
		return "", "", fmt.Errorf("%w: %w", decide.ErrNoReceiver, errNoProcess)
	}
	pod, err := a.pod(ctx, m.Namespace, m.DestinationPod())
	if err != nil {
		return "", "", err
	}
	node := &corev1.Node{}
	if err := a.live.Get(ctx, types.NamespacedName{Name: report.Node}, node); err != nil && !apierrors.IsNotFound(err) {
		return "", "", err
	}
	address, fingerprint, err = decide.ConnectTo(m, pod, node)
	if err != nil {
		err = refused("%w", err)
	}
	return address, fingerprint, err
}
