package simulate

import (
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// restorePatience is how long the creation of a container waits for its processes
// (pkg/node/ociruntime, patience).
const restorePatience = 100 * time.Second

// images are what the node agent of the destination has left for the wrapper of runc
// (pkg/node/ociruntime). As long as they are there, the container starts by them or not
// at all.
type images struct {
	// offered: they are complete and verified; taken: the wrapper has begun with them.
	offered, taken bool
	// failed: their container does not start, for good.
	failed bool
	// work is what the memory holds.
	work int64
}

// beginWork is what a container does that starts afresh: it continues with what is on its
// volumes, or with what the application has saved.
func (i *instance) beginWork() {
	w, l := i.m.w, i.lineage
	if l == nil || !w.scenario.memoryOnly() {
		return
	}
	i.change(func() { i.volume = 0 })
	if w.scenario.mode != v1alpha1.CheckpointApplication {
		return
	}
	for _, claim := range i.mounted {
		i.change(func() { i.volume = max(i.volume, w.work.saved[claim]) })
	}
	if i.volume < l.saved && l.excused == "" {
		w.checks.violated(NothingLost, "pod %s begins at %d, and its application has saved %d", i, i.volume, l.saved)
	}
}

// losesMemory excuses what an application has not saved.
func (i *instance) losesMemory(why string) {
	if w := i.m.w; i.lineage != nil && i.runs && w.scenario.mode == v1alpha1.CheckpointApplication {
		w.checks.excuse(i.lineage, why)
	}
}

// save is what an application does in mode Application when it is asked to end.
func (i *instance) save() {
	w, l := i.m.w, i.lineage
	if l == nil || !i.runs || w.scenario.mode != v1alpha1.CheckpointApplication {
		return
	}
	i.settle()
	claim := lookup[*corev1.PersistentVolumeClaim](w.store, claims, namespace, savedClaim)
	if claim == nil {
		return
	}
	for _, mounted := range i.mounted {
		if mounted == claim.UID {
			w.work.saved[mounted] = i.volume
			l.saved = i.volume
			w.say(i.m.actor, "application of %s saves work %d", i.name, i.volume)
		}
	}
}

// awaitImages is the creation of a container that waits for its processes.
func (i *instance) awaitImages(until moment) {
	w, on := i.m.w, i.images
	switch {
	case on == nil: // the agent has removed them after the release
		i.run()
	case on.failed, on.taken, w.now > until:
		// One that was taken is not taken again: its processes have ended.
		on.failed = true
		w.say(i.m.actor, "cannot create the containers of %s: there is nothing to restore", i.name)
		i.creationFails()
	case on.offered && w.scenario.immovable == failsToRestore:
		on.taken, on.failed = true, true
		w.say(i.m.actor, "cannot restore the processes of %s", i.name)
		i.creationFails()
	case on.offered:
		on.taken = true
		i.later(w.between(20*time.Millisecond, 2*time.Second), gated, i.holdProcesses)
	default:
		i.later(gatePoll, gated, func() { i.awaitImages(until) })
	}
}

// creationFails is what the kubelet does with a container that cannot be created.
func (i *instance) creationFails() {
	p := i.stored()
	if p != nil && p.Spec.RestartPolicy == corev1.RestartPolicyNever {
		i.killed = true
		i.stop()
		return
	}
	i.later(10*time.Second, gated, i.run)
}

// holdProcesses is a container whose processes are restored, and stopped.
func (i *instance) holdProcesses() {
	w := i.m.w
	i.change(func() { i.stage, i.runs, i.held = running, true, true })
	w.say(i.m.actor, "has restored the processes of %s, stopped, at work %d", i.name, i.images.work)
	i.startProbe()
	i.writeRunning(false)
	i.later(w.between(200*time.Millisecond, 3*time.Second), running, i.becomeReady)
}

// processesEnd is the end of the processes of containers that are started again: their
// memory is gone, and what they were restored from is not used again.
func (i *instance) processesEnd() {
	if w := i.m.w; i.lineage != nil && i.runs && w.scenario.memoryOnly() {
		w.checks.excuse(i.lineage, "its containers have ended, and their memory is gone")
	}
	if i.images != nil && i.images.taken {
		i.images.failed = true
	}
}

// continueProcesses is what the agent does at the release.
func (i *instance) continueProcesses() {
	w := i.m.w
	if l := i.lineage; l != nil && i.volume != i.images.work {
		w.checks.violated(NothingLost, "the memory of pod %s is of work %d, and its volumes of %d: they are not of one moment", i, i.images.work, i.volume)
	}
	if w.plant == nil || !w.plant.KeepImages {
		i.images = nil
	}
	i.change(func() { i.held = false })
	i.wasReady = i.wasReady || i.ready
	w.say(i.m.actor, "processes of %s continue at work %d", i.name, i.volume)
}
