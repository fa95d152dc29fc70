package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/node/agent/decide"
	"github.com/ai-storage/orchestrator/pkg/node/transfer"
)

const (
	// admissionTime bounds the questions to the API server about one connection.
	admissionTime = 10 * time.Second
	// closeTime is how long the end of a reception is waited for. What hangs in the storage
	// of a volume does not end: whoever needs the end looks again.
	closeTime = 5 * time.Second
)

// receiving is what this process receives of a migration.
type receiving struct {
	*transfer.Destination
	key       types.NamespacedName
	migration types.UID
	attempt   int32
	// pod is the one that the volumes are of, or wait for.
	pod         types.UID
	hasCopy     bool
	warmReports *throttle

	mu     sync.Mutex
	passed transfer.PassResult
	// closed is closed when nothing is written any more; nil until that is asked for.
	closed chan struct{}
}

// last returns the last complete pass.
func (r *receiving) last() transfer.PassResult {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.passed
}

// sealed is the digest, "sha256:…", of what was sealed; "" before that.
func (r *receiving) sealed() string {
	if digest := r.Sealed(); digest != "" {
		return digestPrefix + digest
	}
	return ""
}

// close ends the reception. The error is errNoProcess while something is still written.
func (r *receiving) close() error {
	r.mu.Lock()
	if r.closed == nil {
		r.closed = make(chan struct{})
		go func() {
			// It has synced what it has sealed; all else is void.
			_ = r.Close()
			close(r.closed)
		}()
	}
	closed := r.closed
	r.mu.Unlock()
	timer := time.NewTimer(closeTime)
	defer timer.Stop()
	select {
	case <-closed:
		return nil
	case <-timer.C:
		return fmt.Errorf("volumes are still being written: %w", errNoProcess)
	}
}

func (r *receiving) isClosing() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.closed != nil
}

// receivingOf returns what is open of a migration; nil where nothing is.
func (a *agent) receivingOf(migration types.UID) *receiving {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.receivings[migration]
}

// closeReceiving ends what is received of a migration, and returns when nothing is written
// any more.
func (a *agent) closeReceiving(migration types.UID) error {
	r := a.receivingOf(migration)
	if r == nil {
		return nil
	}
	if err := r.close(); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.receivings[migration] == r {
		delete(a.receivings, migration)
	}
	return nil
}

// receive opens the volumes for the agent of the source, and reports where it connects to.
func (a *agent) receive(ctx context.Context, m *v1alpha1.PodMigration, pod *corev1.Pod) error {
	r := a.receivingOf(m.UID)
	if r == nil || r.isClosing() || r.attempt != m.Status.Checkpoint.Attempt || r.pod != pod.UID {
		if err := a.closeReceiving(m.UID); err != nil {
			return err
		}
		err := a.while(ctx, m, func(ctx context.Context) (err error) {
			r, err = a.openReceiving(ctx, m, pod)
			return err
		})
		if err != nil {
			return a.destinationFailed(ctx, m, err)
		}
	}
	report := a.destination(m, v1alpha1.DestinationReceiving)
	if earlier := decide.CurrentDestination(m); earlier != nil && earlier.Phase == v1alpha1.DestinationWarm {
		// By an agent that was started again: what it had is there.
		report.Phase, report.Pass, report.Bytes, report.Files = earlier.Phase, earlier.Pass, earlier.Bytes, earlier.Files
	}
	return a.reportLate(ctx, m, func(c *v1alpha1.CheckpointStatus) { c.Destination = report })
}

func (a *agent) openReceiving(ctx context.Context, m *v1alpha1.PodMigration, pod *corev1.Pod) (*receiving, error) {
	r := &receiving{key: types.NamespacedName{Namespace: m.Namespace, Name: m.Name}, migration: m.UID, attempt: m.Status.Checkpoint.Attempt, pod: pod.UID, warmReports: newThrottle(progressInterval, time.Time{})}
	config := transfer.DestinationConfig{Migration: m.UID}
	config.Passed = func(result transfer.PassResult) { a.passed(r, result) } //nolint:contextcheck // it is called long after this work has ended
	var err error
	if config.Volumes, err = a.receivedVolumes(m, pod); err != nil {
		return nil, err
	}
	if config.Copy, err = a.makeCopy(m, pod); err != nil {
		return nil, err
	}
	if err := a.makeState(m); err != nil {
		return nil, err
	}
	name := string(pod.UID)
	if isPlaceholder(m, pod) {
		name = "waiting"
		if err := a.makeWaiting(m); err != nil {
			return nil, err
		}
	}
	config.State, r.hasCopy = a.stateIn(m, name), config.Copy != nil
	if r.Destination, err = transfer.OpenDestination(ctx, config); err != nil {
		return nil, err
	}
	a.mu.Lock()
	isLate := ctx.Err() != nil || a.receivings[m.UID] != nil
	if !isLate {
		a.receivings[m.UID] = r
	}
	a.mu.Unlock()
	if isLate {
		return nil, errors.Join(errNotWanted, r.Close()) // it took so long that nobody waits for it
	}
	return r, nil
}

func isPlaceholder(m *v1alpha1.PodMigration, pod *corev1.Pod) bool {
	return m.Status.Placeholder != nil && m.Status.Placeholder.UID == pod.UID
}

// receivedVolumes are those of a replacement whose containers are held back, or where they
// wait for one.
func (a *agent) receivedVolumes(m *v1alpha1.PodMigration, pod *corev1.Pod) ([]transfer.Volume, error) {
	if isPlaceholder(m, pod) {
		for _, name := range m.Status.Checkpoint.Volumes {
			if !volumeName.MatchString(name) {
				return nil, refused("%q is no name of a volume", name)
			}
		}
		return a.waitingVolumes(m), nil
	}
	if err := isHeldBack(pod); err != nil {
		return nil, err
	}
	return a.destinationTrees(m, pod)
}

// gateOf is the status of the container that holds a replacement back; nil before it runs.
func gateOf(pod *corev1.Pod) *corev1.ContainerStatus {
	for i, s := range pod.Status.InitContainerStatuses {
		if s.Name == v1alpha1.GateContainer && (s.State.Running != nil || s.State.Terminated != nil) {
			return &pod.Status.InitContainerStatuses[i]
		}
	}
	return nil
}

// isHeldBack returns an error unless the gate of a replacement holds its containers back,
// which write to its volumes as soon as they run: errNoProcess where it will soon.
func isHeldBack(pod *corev1.Pod) error {
	gate := gateOf(pod)
	switch {
	case gate == nil:
		return errNoProcess
	case gate.State.Terminated != nil:
		return errors.New("the gate of the replacement has ended, and with it the way to its volumes: its containers may run, or this node agent was started again after it let them wait for their processes")
	}
	return nil
}

// passed is called after each complete pass. The sender waits for it.
func (a *agent) passed(r *receiving, result transfer.PassResult) {
	r.mu.Lock()
	isFirst := r.passed.Pass == 0
	r.passed = result
	r.mu.Unlock()
	a.metrics.passed(passReceive, result)
	switch {
	case result.Sealed:
		// The pod is frozen: neither the sender nor other migrations are waited for.
		go a.reportReceived(r)
	case isFirst:
		// The source reports that it has copied after the destination that it has.
		a.reportReceived(r)
	case r.warmReports.isDue(a.clock.Now()):
		go a.reportReceived(r)
	}
}

// reportReceived reports what has been received, if the migration asks for it.
func (a *agent) reportReceived(r *receiving) {
	ctx, cancel := context.WithTimeout(a.life, admissionTime)
	defer cancel()
	m := &v1alpha1.PodMigration{}
	err := a.live.Get(ctx, r.key, m)
	if err == nil && m.UID == r.migration && a.receivingOf(m.UID) == r {
		var knows decide.Destination
		if knows, err = a.knows(m); err == nil {
			switch t := decide.DestinationTask(m, knows); t {
			case decide.TaskWarm:
				err = a.warm(ctx, m, r)
			case decide.TaskConfirm:
				err = a.confirm(ctx, m, r)
			}
		}
	}
	if err != nil && !isTransient(err) {
		// The next reconciliation does it.
		ctrl.Log.Error(err, "Failed to report what was received", "migration", klog.KRef(r.key.Namespace, r.key.Name))
	}
}

// warm reports a complete pass.
func (a *agent) warm(ctx context.Context, m *v1alpha1.PodMigration, r *receiving) error {
	report, last := a.destination(m, v1alpha1.DestinationWarm), r.last()
	report.Pass, report.Bytes, report.Files = int32(last.Pass), last.Bytes, last.Files
	return a.reportLate(ctx, m, func(c *v1alpha1.CheckpointStatus) {
		if d := c.Destination; d == nil || d.ManifestDigest == "" || d.PodUID != report.PodUID || d.Attempt != report.Attempt {
			c.Destination = report
		}
	})
}

// confirm reports what was sealed: that it is in the replacement, or that it waits.
func (a *agent) confirm(ctx context.Context, m *v1alpha1.PodMigration, r *receiving) error {
	report, last := a.destination(m, v1alpha1.DestinationRestored), r.last()
	report.Pass, report.Bytes, report.Files = int32(last.Pass), last.Bytes, last.Files
	report.ManifestDigest, report.ClaimSealed, report.RestoredAt = r.sealed(), r.hasCopy, microTime(a.now())
	if p := m.Status.Placeholder; p != nil && p.UID == r.pod {
		report.Phase, report.RestoredAt = v1alpha1.DestinationStored, nil
		report.Message = fmt.Sprintf("it waits on node %s in %s", a.node, a.waitingPath(m))
		if err := a.putWaits(m, waits{Digest: report.ManifestDigest, ClaimSealed: r.hasCopy}); err != nil {
			return a.destinationFailed(ctx, m, err)
		}
	}
	return a.reportLate(ctx, m, func(c *v1alpha1.CheckpointStatus) {
		if d := c.Destination; d == nil || d.Phase != report.Phase || d.ManifestDigest != report.ManifestDigest || d.PodUID != report.PodUID {
			c.Destination = report
		}
	})
}

// serveSenders receives until the context ends.
func (a *agent) serveSenders(ctx context.Context) error {
	listener, err := net.Listen("tcp", a.address)
	if err != nil {
		return fmt.Errorf("receiving volumes: %w", err)
	}
	return a.serveOn(ctx, listener)
}

func (a *agent) serveOn(ctx context.Context, listener net.Listener) error {
	return transfer.Serve(ctx, listener, a.identity, admission{a}, func(remote net.Addr, err error) {
		reason := transfer.ReasonOf(err)
		a.metrics.ended(reason)
		if reason != transfer.ReasonDisconnected {
			ctrl.LoggerFrom(ctx).Info("A connection of a node agent has ended", "remote", remote, "reason", reason, "err", err)
		}
	})
}

// admission decides who may send.
type admission struct{ *agent }

// Knows implements transfer.Admission. It asks no API server: anybody can connect.
func (a admission) Knows(fingerprint string) bool {
	a.mu.Lock()
	var keys []types.NamespacedName
	for _, r := range a.receivings {
		keys = append(keys, r.key)
	}
	a.mu.Unlock()
	for _, key := range keys {
		m := &v1alpha1.PodMigration{}
		if err := a.client.Get(a.life, key, m); err != nil || m.Status.Checkpoint == nil {
			continue
		}
		if s := decide.CurrentSource(m.Status.Checkpoint); s != nil && s.Fingerprint == fingerprint {
			return true
		}
	}
	return false
}

// Admit implements transfer.Admission.
func (a admission) Admit(fingerprint string, hello transfer.Hello) (*transfer.Destination, error) {
	r := a.receivingOf(hello.Migration)
	if r == nil || r.isClosing() || r.attempt != hello.Attempt {
		return nil, fmt.Errorf("nothing is received for attempt %d of migration %s", hello.Attempt, hello.Migration)
	}
	ctx, cancel := context.WithTimeout(a.life, admissionTime)
	defer cancel()
	m := &v1alpha1.PodMigration{}
	if err := a.live.Get(ctx, r.key, m); err != nil {
		return nil, err
	}
	if m.Status.Checkpoint == nil || m.DestinationPod() == nil || m.DestinationPod().UID != r.pod {
		return nil, fmt.Errorf("the volumes of migration %s are for another pod by now", hello.Migration)
	}
	pod, err := a.pod(ctx, m.Namespace, m.DestinationPod())
	if err != nil {
		return nil, err
	}
	sender := decide.Sender{Fingerprint: fingerprint, Migration: hello.Migration, Attempt: hello.Attempt}
	if err := decide.Admits(m, a.node, sender, pod); err != nil {
		return nil, err
	}
	return r.Destination, nil
}
