package simulate

import (
	"cmp"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// disturb lets a user, a machine or an application do something. What cannot be done
// now is not done.
func (w *world) disturb(d Disturbance) {
	w.say(userActor, "-- %s", d)
	if do, is := disturbances[d.Kind]; is {
		w.as(userActor, func() { do(w, d) })
	}
}

var disturbances map[string]func(*world, Disturbance)

func init() {
	disturbances = map[string]func(*world, Disturbance){
		"CutNode":     func(w *world, d Disturbance) { w.machines[d.Target%len(w.machines)].goDown(false, d.Lasts) },
		"RebootNode":  func(w *world, d Disturbance) { w.machines[d.Target%len(w.machines)].goDown(true, d.Lasts) },
		"WebhookDown": func(w *world, d Disturbance) { w.webhook.down = w.now + d.Lasts },
		"VolumesHang": func(w *world, d Disturbance) { w.hanging = w.now + d.Lasts },
		"ClaimFull":   func(w *world, d Disturbance) { w.full = w.now + d.Lasts },
		"DiskFull":    func(w *world, d Disturbance) { w.diskFull = w.now + d.Lasts },
		"CutLinks":    func(w *world, d Disturbance) { w.linksCut = w.now + d.Lasts },
		"KillNode":    func(w *world, d Disturbance) { w.machines[d.Target%len(w.machines)].die(d.removal()) },
		"KillDestination": func(w *world, d Disturbance) {
			if m := w.destination(d); m != nil {
				m.die(d.removal())
			}
		},
		"CordonDestination": func(w *world, d Disturbance) {
			if m := w.destination(d); m != nil {
				w.cordon(m.node)
			}
		},
		"DestinationReboots": func(w *world, d Disturbance) {
			if m := w.destination(d); m != nil {
				m.goDown(true, d.Lasts)
			}
		},
		"DestinationAgentDies": func(w *world, d Disturbance) { w.destination(d).agentDies(d) },
		"SourceAgentDies":      func(w *world, d Disturbance) { w.source(d).agentDies(d) },
		"Stranger":             func(w *world, d Disturbance) { w.strangerDials(d) },
		"AgentDown": func(w *world, d Disturbance) {
			a := w.machines[d.Target%len(w.machines)].agent
			a.crash()
			w.after(d.Lasts, a.start)
		},
		"Cancel": func(w *world, d Disturbance) {
			if m := w.migration(d); m != nil {
				change(w, m, false, func(m *v1alpha1.PodMigration) { m.Spec.Cancel = true })
			}
		},
		"DeleteMigration": func(w *world, d Disturbance) {
			if m := w.migration(d); m != nil {
				w.userDeletes(m)
			}
		},
		"DeleteOriginal":    func(w *world, d Disturbance) { w.userDeletes(w.original(d)) },
		"DeleteReplacement": func(w *world, d Disturbance) { w.userDeletes(w.replacement(d)) },
		"DeletePlaceholder": func(w *world, d Disturbance) { w.userDeletes(w.withRole(v1alpha1.RolePlaceholder)) },
		"EvictPlaceholder":  func(w *world, d Disturbance) { w.userEvicts(w.withRole(v1alpha1.RolePlaceholder)) },
		"PreemptPlaceholder": func(w *world, d Disturbance) {
			if p := w.withRole(v1alpha1.RolePlaceholder); p != nil {
				w.preempt(p)
			}
		},
		"DeleteClaim": func(w *world, d Disturbance) {
			if m := w.migration(d); m != nil {
				w.userDeletes(lookup[*corev1.PersistentVolumeClaim](w.store, claims, namespace, m.Status.CheckpointClaim))
			}
		},
		"DeleteOwner":     func(w *world, d Disturbance) { w.userDeletes(w.topOwner()) },
		"OrphanOwner":     func(w *world, d Disturbance) { w.orphan(w.topOwner()) },
		"DeleteNamespace": func(w *world, d Disturbance) { w.deleteNamespace() },
		"ScaleToZero":     func(w *world, d Disturbance) { w.scaleOwner(func(int32) int32 { return 0 }, "scaled to 0") },
		"ScaleUp":         func(w *world, d Disturbance) { w.scaleOwner(func(n int32) int32 { return n + 1 }, "") },
		"ScaleDown":       func(w *world, d Disturbance) { w.scaleOwner(func(n int32) int32 { return max(0, n-1) }, "scaled down") },
		"Suspend":         func(w *world, d Disturbance) { w.suspend(d) },
		"RollOut":         func(w *world, d Disturbance) { w.rollOut() },
		"Cordon":          func(w *world, d Disturbance) { w.cordon(w.machines[d.Target%len(w.machines)].node) },
		"Drain":           func(w *world, d Disturbance) { w.drain(w.machines[d.Target%len(w.machines)].node, 20) },
		"EvictOriginal":   func(w *world, d Disturbance) { w.userEvicts(w.original(d)) },
		"EvictReplacement": func(w *world, d Disturbance) {
			w.userEvicts(w.replacement(d))
		},
		"EditPod": func(w *world, d Disturbance) {
			if p := w.original(d); p != nil {
				change(w, p, false, func(p *corev1.Pod) { metav1.SetMetaDataAnnotation(&p.ObjectMeta, "team", "blue") })
			}
		},
		"AddBudget":         func(w *world, d Disturbance) { w.addBudget(d) },
		"RemoveBudget":      func(w *world, d Disturbance) { _ = w.delete(budgets, namespace, "budget", preconditions{}, nil, false) },
		"ContainerFinishes": func(w *world, d Disturbance) { w.endContainers(w.original(d), false) },
		"ContainerFails":    func(w *world, d Disturbance) { w.endContainers(cmp.Or(w.original(d), w.replacement(d)), true) },
		"Quota": func(w *world, d Disturbance) {
			w.scenario.podQuota = w.countPods()
			w.after(d.Lasts, func() { w.scenario.podQuota = 0 })
		},
		"SecondMigration": func(w *world, d Disturbance) {
			if all := w.userPods(); len(all) > 0 {
				w.request("second", all[d.Target%len(all)])
			}
		},
	}
}

// migration is one that has not finished.
func (w *world) migration(d Disturbance) *v1alpha1.PodMigration {
	var open []*v1alpha1.PodMigration
	each(w.store, migrations, func(m *v1alpha1.PodMigration) {
		if !m.Status.Phase.IsFinished() {
			open = append(open, m)
		}
	})
	if len(open) == 0 {
		return nil
	}
	return open[d.Target%len(open)]
}

func (w *world) original(d Disturbance) *corev1.Pod {
	m := w.migration(d)
	if m == nil {
		return nil
	}
	p := lookup[*corev1.Pod](w.store, pods, namespace, m.Spec.PodName)
	if p == nil || m.Status.Original != nil && m.Status.Original.UID != p.UID {
		return nil
	}
	return p
}

func (w *world) replacement(d Disturbance) *corev1.Pod {
	m := w.migration(d)
	if m == nil || m.Status.Replacement == nil {
		return nil
	}
	p := lookup[*corev1.Pod](w.store, pods, namespace, m.Status.Replacement.Name)
	if p == nil || !v1alpha1.OwnedBy(p.Labels, m.UID) {
		return nil
	}
	return p
}

// destination is the machine to which a migration moves its pod; nil when there is none yet.
func (w *world) destination(d Disturbance) *machine {
	m := w.migration(d)
	if m == nil || m.DestinationPod() == nil {
		return nil
	}
	return w.machine(m.DestinationPod().NodeName)
}

// source is the machine from which a migration moves its pod.
func (w *world) source(d Disturbance) *machine {
	m := w.migration(d)
	if m == nil || m.Status.Original == nil {
		return nil
	}
	return w.machine(m.Status.Original.NodeName)
}

func (w *world) machine(node string) *machine {
	i := slices.IndexFunc(w.machines, func(m *machine) bool { return m.node == node })
	if i < 0 {
		return nil
	}
	return w.machines[i]
}

// agentDies ends the agent of a machine, which is started again later.
func (m *machine) agentDies(d Disturbance) {
	if m == nil || m.agent.down || m.isDown() {
		return
	}
	m.w.say(m.agent.name, "dies")
	m.agent.crash()
	m.w.after(d.Lasts/4, m.agent.start)
}

// removal is when the node of a machine is removed that is off for good.
func (d Disturbance) removal() time.Duration { return 40*time.Second + d.Lasts }

// preempt is what the scheduler does with a pod whose place it wants for another one
// (k8s.io/kubernetes/pkg/scheduler/framework/preemption at 1.35.4, prepareCandidate).
func (w *world) preempt(p *corev1.Pod) {
	w.checks.leaves(p, "the scheduler preempted pod "+p.Name)
	w.as(schedulerActor, func() {
		change(w, p, true, func(p *corev1.Pod) {
			setPodCondition(p, corev1.DisruptionTarget, corev1.ConditionTrue, corev1.PodReasonPreemptionByScheduler, w.stamp())
		})
		_ = w.delete(pods, p.Namespace, p.Name, preconditions{}, nil, false)
	})
}

func (w *world) withRole(role string) (found *corev1.Pod) {
	each(w.store, pods, func(p *corev1.Pod) {
		if p.Labels[v1alpha1.RoleLabel] == role {
			found = p
		}
	})
	return found
}

// topOwner is what a user would delete: the Deployment, not its ReplicaSet.
func (w *world) topOwner() client.Object {
	for _, k := range []kind{deployments, statefulSets, jobs} {
		for _, object := range w.byKind[k] {
			return object
		}
	}
	return nil
}

func (w *world) userDeletes(object client.Object) {
	switch o := object.(type) {
	case nil:
		return
	case *corev1.Pod:
		if o == nil {
			return
		}
		w.checks.leaves(o, "a user deleted pod "+o.Name)
	case *corev1.PersistentVolumeClaim:
		if o == nil {
			return
		}
		w.checks.claimLeaves(o, "a user deleted claim "+o.Name)
	case *v1alpha1.PodMigration:
	default:
		w.checks.excuseAll("a user deleted " + describe(o))
	}
	_ = w.delete(kindOf(object), object.GetNamespace(), object.GetName(), preconditions{}, nil, false)
}

func (w *world) userEvicts(p *corev1.Pod) {
	if p == nil {
		return
	}
	if err := w.evict(p.Namespace, p.Name, preconditions{}, true); err != nil {
		return
	}
	w.checks.leaves(p, "a user evicted pod "+p.Name)
	_ = w.evict(p.Namespace, p.Name, preconditions{}, false)
}

// orphan deletes an owner and leaves what it owned.
func (w *world) orphan(owner client.Object) {
	if owner == nil {
		return
	}
	w.orphaned = true
	w.checks.touchAll("a user orphaned pods")
	_ = w.delete(kindOf(owner), owner.GetNamespace(), owner.GetName(), preconditions{}, nil, false)
	for _, k := range []kind{pods, replicaSets} {
		each(w.store, k, func(object client.Object) {
			if slices.ContainsFunc(object.GetOwnerReferences(), func(r metav1.OwnerReference) bool { return r.UID == owner.GetUID() }) {
				change(w, object, false, func(object client.Object) {
					object.SetOwnerReferences(slices.DeleteFunc(object.GetOwnerReferences(), func(r metav1.OwnerReference) bool { return r.UID == owner.GetUID() }))
				})
			}
		})
	}
}

func (w *world) deleteNamespace() {
	w.checks.excuseAll("a user deleted the namespace")
	_ = w.delete(namespaces, "", namespace, preconditions{}, nil, false)
	w.wakeModels()
}

func (w *world) scaleOwner(to func(int32) int32, excuse string) {
	if excuse != "" {
		w.checks.excuseAll("the owner was " + excuse)
	} else if w.scenario.own || w.scenario.mode == v1alpha1.CheckpointApplication {
		return // two pods on two nodes cannot share the claim
	}
	switch o := w.topOwner().(type) {
	case *appsv1.Deployment:
		change(w, o, false, func(d *appsv1.Deployment) { d.Spec.Replicas = ptr.To(to(*d.Spec.Replicas)) })
	case *appsv1.StatefulSet:
		change(w, o, false, func(s *appsv1.StatefulSet) { s.Spec.Replicas = ptr.To(to(*s.Spec.Replicas)) })
	case *batchv1.Job:
		change(w, o, false, func(j *batchv1.Job) { j.Spec.Parallelism = ptr.To(to(*j.Spec.Parallelism)) })
	}
}

func (w *world) suspend(d Disturbance) {
	j, is := w.topOwner().(*batchv1.Job)
	if !is {
		return
	}
	w.checks.excuseAll("the Job was suspended")
	change(w, j, false, func(j *batchv1.Job) { j.Spec.Suspend = ptr.To(true) })
	w.after(d.Lasts, func() {
		if j, is := w.topOwner().(*batchv1.Job); is {
			w.as(userActor, func() { change(w, j, false, func(j *batchv1.Job) { j.Spec.Suspend = ptr.To(false) }) })
		}
	})
}

func (w *world) rollOut() {
	w.checks.excuseAll("a rollout replaced the pods")
	switch o := w.topOwner().(type) {
	case *appsv1.Deployment:
		change(w, o, false, func(d *appsv1.Deployment) { d.Spec.Template.Annotations["revision"] = revision(2) })
	case *appsv1.StatefulSet:
		change(w, o, false, func(s *appsv1.StatefulSet) { s.Spec.Template.Annotations["revision"] = revision(2) })
	}
}

// cordonLasts is how long a node is kept from new pods: what has no other node waits so long.
const cordonLasts = 5 * time.Minute

func (w *world) cordon(node string) {
	setUnschedulable := func(is bool) {
		if n := lookup[*corev1.Node](w.store, nodes, "", node); n != nil {
			change(w, n, false, func(n *corev1.Node) { n.Spec.Unschedulable = is })
		}
	}
	setUnschedulable(true)
	w.after(cordonLasts, func() { w.as(userActor, func() { setUnschedulable(false) }) })
}

// drain evicts all pods of a node, and tries again while budgets forbid it.
func (w *world) drain(node string, tries int) {
	w.cordon(node)
	left := false
	each(w.store, pods, func(p *corev1.Pod) {
		if p.Spec.NodeName != node || p.DeletionTimestamp != nil || isTerminal(p) {
			return
		}
		left = true
		w.userEvicts(p)
	})
	if left && tries > 0 {
		w.after(5*time.Second, func() { w.as(userActor, func() { w.drain(node, tries-1) }) })
	}
}

func (w *world) addBudget(d Disturbance) {
	name := "late-budget"
	_ = w.create(&policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       policyv1.PodDisruptionBudgetSpec{MinAvailable: ptr.To(intstr.FromInt32(w.scenario.replicas)), Selector: &metav1.LabelSelector{MatchLabels: labelsOfApp()}},
	}, false)
	w.after(d.Lasts, func() {
		w.as(userActor, func() { _ = w.delete(budgets, namespace, name, preconditions{}, nil, false) })
	})
}

// endContainers lets the containers of a pod end by themselves. With restartPolicy
// Always they start again.
func (w *world) endContainers(p *corev1.Pod, fails bool) {
	if p == nil {
		return
	}
	i := w.instance(p.UID)
	if i == nil || i.stage != running || i.isStopped() || i.m.isDown() {
		return
	}
	if p.Spec.RestartPolicy == corev1.RestartPolicyAlways {
		i.restartContainer()
		return
	}
	w.touch(i, "its containers ended by themselves")
	i.killed = fails
	// A Job that has failed ends all its pods.
	w.checks.excuseAll("containers ended by themselves")
	i.ready = true
	i.stop()
}

func (w *world) touch(i *instance, why string) {
	if i.lineage != nil && i.lineage.touched == "" {
		i.lineage.touched = why
	}
}
