package simulate

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

// prober is the liveness probe of the main container of a pod
// (k8s.io/kubernetes/pkg/kubelet/prober, worker.doProbe at 1.35.4). A probe of a container
// that runs succeeds at once, so that only those are events that meet one which is stopped.
type prober struct {
	i *instance
	// since is when the kubelet began to probe this container; run tells apart those
	// before and after a restart.
	since moment
	run   int
	// failures are those in a row; lastFailed is when the last of them began.
	failures   int
	lastFailed moment
	// stopped is since when the container answers nothing; below 0 it does.
	stoppedSince moment
	// pending is set while a probe is waited for.
	pending bool
	// onHold: the threshold was reached, and the container is being ended.
	onHold bool
}

// underWay is how long a probe takes that succeeds: one that began so long before the
// container was stopped fails with it.
const underWay = 100 * time.Millisecond

// startProbe begins to probe the main container, which was started just now.
func (i *instance) startProbe() {
	p := i.stored()
	if p == nil || i.lineage == nil || len(p.Spec.Containers) == 0 || p.Spec.Containers[0].LivenessProbe == nil {
		return
	}
	run := 0
	if i.probe != nil {
		run = i.probe.run + 1
	}
	i.probe = &prober{i: i, since: i.m.w.now + i.m.w.between(0, time.Second), run: run, stoppedSince: -1, lastFailed: -1}
	if i.isStopped() {
		i.probe.stopped(true)
	}
}

func (p *prober) spec() *corev1.Probe { return p.i.m.w.scenario.liveness }

func (p *prober) timeout() time.Duration { return time.Duration(p.spec().TimeoutSeconds) * time.Second }

// period is that of probes that fail: the next begins when the one before has timed out.
func (p *prober) period() time.Duration {
	return max(time.Duration(p.spec().PeriodSeconds)*time.Second, p.timeout())
}

// stopped is called when the container ceases to answer, or answers again.
func (p *prober) stopped(is bool) {
	w := p.i.m.w
	if !is {
		p.stoppedSince = -1
		return
	}
	p.stoppedSince = w.now
	p.i.excused = p.i.m.cut || p.i.m.agent.down
	last := w.now - p.sinceTick(w.now)
	if p.failures > 0 && last > p.lastFailed && w.now-last >= underWay {
		p.failures = 0 // one has succeeded in between
	}
	if p.pending {
		return
	}
	begins := last
	if w.now < p.since || w.now-last >= underWay || last <= p.lastFailed {
		begins = max(p.since, last+time.Duration(p.spec().PeriodSeconds)*time.Second)
	}
	p.await(begins)
}

// sinceTick is how long ago the last probe began, at a moment.
func (p *prober) sinceTick(at moment) time.Duration {
	if at < p.since {
		return 0
	}
	return (at - p.since) % (time.Duration(p.spec().PeriodSeconds) * time.Second)
}

// await looks at the probe that begins at a moment: it fails when the container does not
// answer from then until its timeout.
func (p *prober) await(begins moment) {
	w, run := p.i.m.w, p.run
	p.pending = true
	w.at(begins+p.timeout(), func() {
		if p.i.probe == nil || p.i.probe != p || run != p.run {
			return
		}
		p.pending = false
		switch {
		case p.i.stage != running || p.onHold || p.i.m.off:
			return
		case p.stoppedSince < 0:
			p.failures = 0
			return
		case p.stoppedSince > begins+underWay:
			// It was answered, and the container was stopped again since.
			p.failures = 0
		default:
			p.failures++
			p.lastFailed = begins
			w.say(p.i.m.actor, "liveness probe of %s fails for the %d. time", p.i.name, p.failures)
		}
		if p.failures >= int(p.spec().FailureThreshold) {
			p.onHold = true
			p.i.failLiveness()
			return
		}
		p.await(begins + p.period())
	})
}

// failLiveness ends a container for its liveness probe, and starts it again as the
// restartPolicy says. SIGTERM does not reach what is frozen: SIGKILL does after the grace
// period.
func (i *instance) failLiveness() {
	w := i.m.w
	pod, _ := w.byUID[i.pod].(*corev1.Pod)
	if i.stage != running || pod == nil || pod.DeletionTimestamp != nil {
		return
	}
	w.say(i.m.actor, "ends the container of %s for its liveness probe", i.name)
	w.checks.livenessFailed(i, pod)
	grace := time.Duration(ptr.Deref(pod.Spec.TerminationGracePeriodSeconds, 30)) * time.Second
	i.later(grace, running, func() {
		if pod.Spec.RestartPolicy != corev1.RestartPolicyAlways {
			i.killed = true
			i.stop()
			return
		}
		i.restartContainer()
	})
}

// restartContainer starts the containers of a pod again, which have ended. In a cgroup
// that is frozen they do not run either.
func (i *instance) restartContainer() {
	i.restarts++
	i.ready = false
	i.processesEnd()
	i.change(func() { i.stage, i.runs, i.held = gated, false, false })
	i.writeRunning(false)
	i.later(i.m.w.between(100*time.Millisecond, 2*time.Second), gated, i.run)
}
