package simulate

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// namespace is that of everything in a run; user objects of others are in it too.
const namespace = "default"

// ownerKind is who makes the pods of a scenario.
type ownerKind string

const (
	bare            ownerKind = "none"
	ownedDeployment ownerKind = "Deployment"
	ownedJob        ownerKind = "Job"
	ownedSet        ownerKind = "StatefulSet"
)

// scenario is what a seed draws before anything happens.
type scenario struct {
	// script is what is played in it; nil when it is drawn.
	script   *Script
	owner    ownerKind
	replicas int32
	nodes    int
	// scratch: the pod keeps its work on an emptyDir; own: it has a ReadWriteOnce claim.
	scratch, own bool
	mode         v1alpha1.CheckpointMode
	// shared: the checkpoint claim is ReadWriteMany. claim is when one is made; noClass: there
	// is no StorageClass to make one of.
	shared  bool
	claim   v1alpha1.ClaimPolicy
	noClass bool
	restart bool
	// recreate is strategy Recreate of the Deployment.
	recreate bool
	// replaceFailed is podReplacementPolicy Failed of the Job.
	replaceFailed bool
	indexed       bool
	backoffLimit  int32
	onDelete      bool
	// budget is minAvailable of a PodDisruptionBudget; below 0 there is none.
	budget    int32
	timeout   int32
	maxFreeze int32
	retain    bool
	// migrations is how many pods are moved.
	migrations int
	podQuota   int

	provisioning, copying, sealing, lateWatch time.Duration
	skews                                     [2]time.Duration
	grace                                     int64
	// cgroupV1: a container that is frozen with its pod cannot be killed before it is thawed.
	cgroupV1 bool

	special
}

func pick[T any](r *rand.Rand, from ...T) T { return from[r.IntN(len(from))] }

func chance(r *rand.Rand, percent int) bool { return r.IntN(100) < percent }

// drawScenario draws a scenario; the owner may be given.
func drawScenario(r *rand.Rand) *scenario {
	s := &scenario{
		owner: pick(r, bare, ownedDeployment, ownedDeployment, ownedJob, ownedSet), replicas: int32(r.IntN(3) + 1), nodes: r.IntN(2) + 3,
		scratch: chance(r, 70), own: chance(r, 25), mode: pick(r, v1alpha1.CheckpointFrozen, v1alpha1.CheckpointFrozen, v1alpha1.CheckpointFrozen, v1alpha1.CheckpointLive, v1alpha1.CheckpointNone),
		shared: chance(r, 50), restart: chance(r, 20), recreate: chance(r, 15), replaceFailed: chance(r, 20), indexed: chance(r, 50),
		backoffLimit: pick(r, int32(0), 0, 3), onDelete: chance(r, 20), budget: -1, timeout: pick(r, int32(60), 120, 300), maxFreeze: pick(r, int32(10), 30, 60),
		retain: chance(r, 15), migrations: pick(r, 1, 1, 1, 2), grace: pick(r, int64(1), 5, 30),
		provisioning: time.Duration(r.IntN(5)+1) * time.Second, copying: time.Duration(r.IntN(4000)+100) * time.Millisecond,
		sealing: time.Duration(r.IntN(3000)+100) * time.Millisecond, lateWatch: time.Duration(r.IntN(40)+2) * time.Second,
	}
	if chance(r, 30) {
		s.budget = r.Int32N(s.replicas + 1)
	}
	for i := range s.skews {
		if chance(r, 30) {
			s.skews[i] = time.Duration(r.IntN(20000)-10000) * time.Millisecond
		}
	}
	s.cgroupV1 = chance(r, 30)
	if s.owner == bare {
		s.migrations = min(s.migrations, int(s.replicas))
	}
	// Drawn last, so that a seed without it is the same run as before.
	s.drawSpecial(r)
	s.claim = pick(r, v1alpha1.ClaimWhenNeeded, v1alpha1.ClaimWhenNeeded, v1alpha1.ClaimWhenNeeded, v1alpha1.ClaimAlways, v1alpha1.ClaimNever)
	s.noClass = chance(r, 12)
	return s
}

// String is the scenario in a line, for the trace.
func (s *scenario) String() string {
	parts := []string{fmt.Sprintf("%d pods of %s on %d nodes, mode %s, timeout %d s, freeze %d s, grace %d s", s.replicas, s.owner, s.nodes, s.mode, s.timeout, s.maxFreeze, s.grace)}
	for _, f := range []struct {
		is   bool
		name string
	}{
		{s.scratch, "emptyDir"}, {s.own, "own ReadWriteOnce claim"}, {s.shared, "checkpoint ReadWriteMany"},
		{s.claim != v1alpha1.ClaimWhenNeeded, "checkpoint claim " + string(s.claim)}, {s.noClass, "no StorageClass"}, {s.restart, "forceRestart"},
		{s.recreate && s.owner == ownedDeployment, "strategy Recreate"}, {s.replaceFailed && s.owner == ownedJob, "podReplacementPolicy Failed"},
		{s.indexed && s.owner == ownedJob, "indexed"}, {s.onDelete && s.owner == ownedSet, "OnDelete"}, {s.retain, "claim retained"}, {s.cgroupV1, "cgroup v1"},
		{s.budget >= 0, s.budgetName()}, {s.migrations > 1, fmt.Sprintf("%d migrations", s.migrations)},
		{s.skews[0] != 0 || s.skews[1] != 0, fmt.Sprintf("clocks %s and %s off", s.skews[0], s.skews[1])},
	} {
		if f.is {
			parts = append(parts, f.name)
		}
	}
	return strings.Join(append(parts, s.specialNames()...), ", ")
}

// podSpec is that of the pods of users.
func (s *scenario) podSpec(own string) corev1.PodSpec {
	main := corev1.Container{
		Name: "main", Image: "app:1",
		Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1")}},
	}
	spec := corev1.PodSpec{RestartPolicy: corev1.RestartPolicyAlways, TerminationGracePeriodSeconds: ptr.To(s.grace), SchedulerName: v1alpha1.SchedulerName}
	if s.owner == ownedJob {
		spec.RestartPolicy = corev1.RestartPolicyNever
	}
	if s.scratch {
		spec.Volumes = append(spec.Volumes, corev1.Volume{Name: "scratch", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}})
		main.VolumeMounts = append(main.VolumeMounts, corev1.VolumeMount{Name: "scratch", MountPath: "/scratch"})
	}
	if own != "" {
		spec.Volumes = append(spec.Volumes, corev1.Volume{Name: "data", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: own}}})
		main.VolumeMounts = append(main.VolumeMounts, corev1.VolumeMount{Name: "data", MountPath: "/data"})
	}
	spec.Containers = []corev1.Container{main}
	return spec
}

var appLabels = map[string]string{"app": "work"}

func labelsOfApp() map[string]string { return map[string]string{"app": "work"} }

// setUp creates what is there before the first migration.
func (w *world) setUp() {
	s := w.scenario
	w.as("setup", func() {
		_ = w.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace, Finalizers: []string{"kubernetes"}}}, false)
	})
	for i := range s.nodes {
		w.addNode(string(rune('a'+i)), 6000, i < s.criuNodes)
	}
	w.as("setup", func() {
		own := ""
		if s.own {
			own = "data"
			_ = w.create(&corev1.PersistentVolumeClaim{
				ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: own},
				Spec:       corev1.PersistentVolumeClaimSpec{StorageClassName: ptr.To(manualClassName), AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}},
			}, false)
			// Pods on several nodes cannot share it.
			s.replicas = 1
		}
		if s.mode == v1alpha1.CheckpointApplication {
			_ = w.create(&corev1.PersistentVolumeClaim{
				ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: savedClaim},
				Spec:       corev1.PersistentVolumeClaimSpec{StorageClassName: ptr.To(manualClassName), AccessModes: []corev1.PersistentVolumeAccessMode{s.saveAccess()}},
			}, false)
			// Pods that save to one claim would overwrite each other.
			s.replicas = 1
		}
		template := corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labelsOfApp(), Annotations: s.podAnnotations()}, Spec: s.podSpec(own)}
		s.specialise(&template.Spec)
		if s.budget >= 0 {
			_ = w.create(&policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "budget"}, Spec: s.budgetSpec()}, false)
		}
		w.createOwner(template)
	})
	// A pod and a claim of other users, which nothing must touch.
	w.as("setup", func() {
		_ = w.create(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "bystander", Labels: map[string]string{"app": "other"}}, Spec: s.podSpec("")}, false)
		_ = w.create(&corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "bystander"}}, false)
	})
}

func (w *world) createOwner(template corev1.PodTemplateSpec) {
	s := w.scenario
	switch s.owner {
	case bare:
		for i := range s.replicas {
			_ = w.create(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: fmt.Sprintf("pod-%d", i), Labels: labelsOfApp(), Annotations: s.podAnnotations()}, Spec: template.Spec}, false)
		}
	case ownedDeployment:
		d := &appsv1.Deployment{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "app"},
			Spec:       appsv1.DeploymentSpec{Replicas: &s.replicas, Selector: &metav1.LabelSelector{MatchLabels: labelsOfApp()}, Template: template},
		}
		if s.recreate {
			d.Spec.Strategy.Type = appsv1.RecreateDeploymentStrategyType
		}
		_ = w.create(d, false)
	case ownedJob:
		_ = w.create(w.newJob(template), false)
	case ownedSet:
		set := &appsv1.StatefulSet{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "set"},
			Spec: appsv1.StatefulSetSpec{Replicas: &s.replicas, Selector: &metav1.LabelSelector{MatchLabels: labelsOfApp()}, Template: template,
				UpdateStrategy: appsv1.StatefulSetUpdateStrategy{Type: appsv1.RollingUpdateStatefulSetStrategyType}},
		}
		if s.onDelete {
			set.Spec.UpdateStrategy.Type = appsv1.OnDeleteStatefulSetStrategyType
		}
		_ = w.create(set, false)
	}
}

func (w *world) newJob(template corev1.PodTemplateSpec) *batchv1.Job {
	s := w.scenario
	job := &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "job"},
		Spec: batchv1.JobSpec{
			Parallelism: &s.replicas, Completions: &s.replicas, BackoffLimit: &s.backoffLimit, Suspend: ptr.To(false), Template: template,
			CompletionMode: ptr.To(batchv1.NonIndexedCompletion),
		},
	}
	if s.indexed {
		job.Spec.CompletionMode = ptr.To(batchv1.IndexedCompletion)
	}
	if s.replaceFailed {
		job.Spec.PodReplacementPolicy = ptr.To(batchv1.Failed)
	}
	s.specialiseJob(job)
	return job
}

// userPods are the pods that a user would ask to move, in order.
func (w *world) userPods() (found []*corev1.Pod) {
	each(w.store, pods, func(p *corev1.Pod) {
		if p.Labels["app"] == appLabels["app"] && p.Labels[v1alpha1.RoleLabel] == "" && p.DeletionTimestamp == nil {
			found = append(found, p)
		}
	})
	return found
}

// request creates the PodMigration of a pod.
func (w *world) request(name string, p *corev1.Pod) {
	s := w.scenario
	m := &v1alpha1.PodMigration{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: v1alpha1.PodMigrationSpec{
			PodName: p.Name, TimeoutSeconds: s.timeout, ForceRestart: s.restart, Waiting: v1alpha1.WaitingStrip,
			Checkpoint: v1alpha1.CheckpointSpec{Mode: s.mode, MaxFreezeSeconds: s.maxFreeze, ReclaimPolicy: v1alpha1.ClaimDelete},
		},
	}
	m.Spec.Checkpoint.Claim = s.claim
	if s.shared {
		m.Spec.Checkpoint.AccessMode = corev1.ReadWriteMany
	}
	if s.retain {
		m.Spec.Checkpoint.ReclaimPolicy = v1alpha1.ClaimRetain
	}
	if s.freshStart {
		m.Spec.Checkpoint.Fallback = v1alpha1.FallbackFreshStart
	}
	w.as(userActor, func() { _ = w.create(m, false) })
}
