package devcluster

import (
	"context"
	_ "embed"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/ai-storage/orchestrator/test/devcluster/controlplane"
	"github.com/ai-storage/orchestrator/test/devcluster/image"
	"github.com/ai-storage/orchestrator/test/devcluster/process"
)

//go:embed csi.yaml
var csiManifest []byte

const (
	csiReference = "docker.io/ai-storage/csidriver:dev"
	// nodeKubeletRoot is where drivers on any node expect the kubelet.
	nodeKubeletRoot = "/var/lib/kubelet"
	systemNamespace = "kube-system"
)

// buildCSIImage adds the driver to the images of the nodes.
func (b *bringUp) buildCSIImage(context.Context) error {
	if !b.CSI {
		return nil
	}
	archive := filepath.Join(b.StateDir, "images", "csidriver.tar")
	binaries := map[string]string{"/csidriver": filepath.Join(b.BinDir, csiProgram)}
	if err := image.Build(archive, csiReference, binaries, []string{"/csidriver"}); err != nil {
		return err
	}
	b.Images = append(slices.Clone(b.Images), archive)
	return nil
}

// startCSI starts the controller side as processes of the machine and the node
// side as a privileged pod on each node, as storage vendors do, and returns when
// every kubelet has taken the driver in.
func (b *bringUp) startCSI(ctx context.Context) error {
	if !b.CSI {
		return nil
	}
	config, err := b.cluster.AdminConfig()
	if err != nil {
		return err
	}
	applier, err := controlplane.NewApplier(config)
	if err != nil {
		return err
	}
	if _, err := applier.Apply(ctx, csiManifest); err != nil {
		return fmt.Errorf("install the CSI driver: %w", err)
	}
	if err := os.MkdirAll(csiDirectory(b.StateDir), 0o755); err != nil {
		return fmt.Errorf("install the CSI driver: %w", err)
	}
	for _, spec := range b.cluster.csiSpecs() {
		ready := func(context.Context) error { return nil }
		if spec.Name == csiController {
			ready = b.dialCSI
		}
		if err := process.StartReady(ctx, b.StateDir, spec, ready); err != nil {
			return err
		}
	}
	if err := controlplane.AwaitNamespaces(ctx, b.client, systemNamespace); err != nil {
		return err
	}
	for _, node := range b.Nodes.Names() {
		pod := csiPod(node, csiDirectory(b.StateDir))
		if _, err := b.client.CoreV1().Pods(systemNamespace).Create(ctx, pod, metav1.CreateOptions{}); err != nil {
			return fmt.Errorf("install the CSI driver: %w", err)
		}
	}
	if err := b.awaitCSI(ctx); err != nil {
		return err
	}
	b.say("the CSI driver serves %d nodes", b.Nodes.Count)
	return nil
}

func (b *bringUp) dialCSI(ctx context.Context) error {
	connection, err := new(net.Dialer).DialContext(ctx, "unix", csiSocket(b.StateDir))
	if err != nil {
		return err
	}
	return connection.Close()
}

func (b *bringUp) awaitCSI(ctx context.Context) error {
	var serving int
	err := wait.PollUntilContextTimeout(ctx, 200*time.Millisecond, 2*time.Minute, true, func(ctx context.Context) (bool, error) {
		nodes, err := b.client.StorageV1().CSINodes().List(ctx, metav1.ListOptions{})
		if err != nil {
			return false, nil
		}
		serving = 0
		for _, node := range nodes.Items {
			if slices.ContainsFunc(node.Spec.Drivers, func(d storagev1.CSINodeDriver) bool { return d.Name == CSIDriverName }) {
				serving++
			}
		}
		return serving == b.Nodes.Count, nil
	})
	if err != nil {
		return fmt.Errorf("wait for the CSI driver, which serves %d of %d nodes: %w", serving, b.Nodes.Count, err)
	}
	return nil
}

// csiPod is the driver on one node. A DaemonSet would need a scheduler, which a
// cluster may be started without.
func csiPod(node, directory string) *corev1.Pod {
	yes, no, bidirectional, zero := true, false, corev1.MountPropagationBidirectional, int64(0)
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: systemNamespace, Name: "csidriver-" + node, Labels: map[string]string{"app": "csidriver"}},
		Spec: corev1.PodSpec{
			NodeName: node, HostNetwork: true, DNSPolicy: corev1.DNSDefault,
			AutomountServiceAccountToken:  &no,
			EnableServiceLinks:            &no,
			PriorityClassName:             "system-node-critical",
			TerminationGracePeriodSeconds: &zero,
			Tolerations:                   []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
			Containers: []corev1.Container{{
				Name: "driver", Image: csiReference, ImagePullPolicy: corev1.PullNever,
				Args:            []string{"node", "--directory=" + directory, "--name=" + node, "--kubelet-root=" + nodeKubeletRoot},
				SecurityContext: &corev1.SecurityContext{Privileged: &yes},
			}},
		},
	}
	for name, path := range map[string]string{"kubelet": nodeKubeletRoot, "volumes": directory, "devices": "/dev"} {
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{
			Name: name, VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: path}},
		})
		mount := corev1.VolumeMount{Name: name, MountPath: path}
		if name == "kubelet" {
			// What the driver mounts must come out of its container.
			mount.MountPropagation = &bidirectional
		}
		pod.Spec.Containers[0].VolumeMounts = append(pod.Spec.Containers[0].VolumeMounts, mount)
	}
	return pod
}
