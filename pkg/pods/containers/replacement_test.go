package containers_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	resourcehelper "k8s.io/component-helpers/resource"

	. "github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods/containers"
)

var options = containers.ReplacementOptions{Name: "p-migrated-1", MigrationUID: "m", ClaimName: "claim"}

func build(t *testing.T, pod *corev1.Pod, o containers.ReplacementOptions) *corev1.Pod {
	t.Helper()
	r, err := containers.BuildReplacement(pod, containers.Judge(pod, notCarried), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestReplacementLeavesOutWhatOnlyStrippedContainersUsed(t *testing.T) {
	claimOf := func(name string) func(*corev1.Container) {
		return func(c *corev1.Container) { c.Resources.Claims = []corev1.ResourceClaim{{Name: name}} }
	}
	template := "gpu-template"
	pod := MakePod("p").Node("a").RestartPolicy(never).
		Volume("kept", ConfigMap("x")).Volume("gone", ConfigMap("y")).Volume("unused", ConfigMap("z")).
		Volume("kube-api-access-x7k2p", corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{}}).
		Container("batch", Exited(0), Mount("gone", "/g"), Mount("kept", "/k"), claimOf("batch-gpu")).
		Container("serve", Running(), Mount("kept", "/k"), claimOf("serve-gpu"), Mount("kube-api-access-x7k2p", "/var/run/secrets/kubernetes.io/serviceaccount")).
		Ephemeral("debug", Running()).
		With(func(p *corev1.Pod) {
			p.Spec.ResourceClaims = []corev1.PodResourceClaim{
				{Name: "batch-gpu", ResourceClaimTemplateName: &template}, {Name: "serve-gpu", ResourceClaimTemplateName: &template}}
		}).Obj()
	r := build(t, pod, options)
	var volumes []string
	for _, v := range r.Spec.Volumes {
		volumes = append(volumes, v.Name)
	}
	if diff := cmp.Diff([]string{"kept", "unused", v1alpha1.CheckpointVolumeName}, volumes); diff != "" {
		t.Errorf("volumes (-want +got):\n%s", diff)
	}
	want := []corev1.VolumeMount{{Name: "kept", MountPath: "/k"}, {Name: v1alpha1.CheckpointVolumeName, MountPath: v1alpha1.CheckpointMountPath, SubPath: v1alpha1.ApplicationDirectory}}
	if diff := cmp.Diff(want, r.Spec.Containers[0].VolumeMounts); diff != "" {
		t.Errorf("mounts (-want +got):\n%s", diff)
	}
	if len(r.Spec.ResourceClaims) != 1 || r.Spec.ResourceClaims[0].Name != "serve-gpu" {
		t.Errorf("resource claims = %v", r.Spec.ResourceClaims)
	}
	if len(r.Spec.Containers) != 1 || len(r.Spec.EphemeralContainers) != 0 {
		t.Errorf("%d containers and %d ephemeral ones are left", len(r.Spec.Containers), len(r.Spec.EphemeralContainers))
	}
}

func TestReplacementIsAPodOfItsOwn(t *testing.T) {
	yes, priority, preemption := true, int32(7), corev1.PreemptNever
	pod := MakePod("p").Node("a").Label("app", "web").Annotation("team", "x").
		Annotation(corev1.LastAppliedConfigAnnotation, "{}").Container("main", Running()).
		With(func(p *corev1.Pod) {
			p.ResourceVersion, p.Finalizers = "5", []string{"x/y"}
			p.OwnerReferences = []metav1.OwnerReference{{Kind: "Experiment", Name: "e", UID: "e", BlockOwnerDeletion: &yes}}
			p.Spec.Priority, p.Spec.PreemptionPolicy, p.Spec.PriorityClassName = &priority, &preemption, "high"
			p.Spec.Hostname, p.Spec.Subdomain = "host", "sub"
			p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "g"}}
			p.Status.NominatedNodeName = "a"
		}).Obj()
	r := build(t, pod, containers.ReplacementOptions{Name: "n", MigrationUID: "m", ClaimName: "claim", PlannedNode: "b"})
	wantMeta := metav1.ObjectMeta{
		Namespace: "default", Name: "n",
		Labels: map[string]string{"app": "web", v1alpha1.OriginalPodLabel: "p", v1alpha1.MigrationUIDLabel: "m", v1alpha1.TargetNodeLabel: "b"},
		Annotations: map[string]string{"team": "x", v1alpha1.OriginalPodLabel: "p", v1alpha1.SourceNodeAnnotation: "a",
			v1alpha1.CheckpointClaimAnnotation: "claim", v1alpha1.OriginalUIDAnnotation: "uid-p", v1alpha1.ExcludeAnnotation: "true"},
		OwnerReferences: []metav1.OwnerReference{{Kind: "Experiment", Name: "e", UID: "e"}},
	}
	if diff := cmp.Diff(wantMeta, r.ObjectMeta); diff != "" {
		t.Errorf("metadata (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(corev1.PodStatus{}, r.Status); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
	s := r.Spec
	if s.NodeName != "" || s.Priority != nil || s.PreemptionPolicy != nil || s.SchedulingGates != nil || s.PriorityClassName != "high" ||
		s.Hostname != "host" || s.Subdomain != "sub" || s.SchedulerName != v1alpha1.SchedulerName {
		t.Errorf("spec = %+v", s)
	}
}

// Who asks for one move of a pod of another scheduler has not asked the loop to
// move it again, though the replacement has our scheduler's name.
func TestReplacementIsForTheLoopOnlyIfItsOriginalWas(t *testing.T) {
	for name, test := range map[string]struct {
		scheduler, annotation, want string
	}{
		"of another scheduler":                 {"default-scheduler", "", "true"},
		"opted in":                             {v1alpha1.SchedulerName, "", ""},
		"opted in and excluded":                {v1alpha1.SchedulerName, "true", "true"},
		"of another scheduler, wants the loop": {"default-scheduler", "false", "false"},
	} {
		pod := MakePod("p").Node("a").Container("main", Running()).With(func(p *corev1.Pod) { p.Spec.SchedulerName = test.scheduler })
		if test.annotation != "" {
			pod.Annotation(v1alpha1.ExcludeAnnotation, test.annotation)
		}
		if got := build(t, pod.Obj(), options).Annotations[v1alpha1.ExcludeAnnotation]; got != test.want {
			t.Errorf("%s: annotation %q, want %q", name, got, test.want)
		}
	}
}

func TestReplacementAvoidsItsSource(t *testing.T) {
	field := func(op corev1.NodeSelectorOperator, node string) corev1.NodeSelectorRequirement {
		return corev1.NodeSelectorRequirement{Key: "metadata.name", Operator: op, Values: []string{node}}
	}
	zone := func(z string) []corev1.NodeSelectorRequirement {
		return []corev1.NodeSelectorRequirement{{Key: "zone", Operator: corev1.NodeSelectorOpIn, Values: []string{z}}}
	}
	term := func(fields ...corev1.NodeSelectorRequirement) corev1.NodeSelectorTerm {
		return corev1.NodeSelectorTerm{MatchFields: fields}
	}
	zoned := func(z string, fields ...corev1.NodeSelectorRequirement) corev1.NodeSelectorTerm {
		return corev1.NodeSelectorTerm{MatchExpressions: zone(z), MatchFields: fields}
	}
	notA, inB := field(corev1.NodeSelectorOpNotIn, "a"), field(corev1.NodeSelectorOpIn, "b")
	tests := []struct {
		name   string
		terms  []corev1.NodeSelectorTerm
		target string
		moved  bool // by an earlier migration from old, bound to a
		want   []corev1.NodeSelectorTerm
	}{
		{"no affinity", nil, "", false, []corev1.NodeSelectorTerm{term(notA)}},
		{"target", nil, "b", false, []corev1.NodeSelectorTerm{term(notA, inB)}},
		{"every alternative", []corev1.NodeSelectorTerm{zoned("1"), zoned("2")}, "", false, []corev1.NodeSelectorTerm{zoned("1", notA), zoned("2", notA)}},
		{"a term that matches nothing stays so", []corev1.NodeSelectorTerm{{}, zoned("2")}, "", false, []corev1.NodeSelectorTerm{{}, zoned("2", notA)}},
		{"second migration", []corev1.NodeSelectorTerm{term(field("NotIn", "old"), field("In", "a"))}, "", true, []corev1.NodeSelectorTerm{term(notA)}},
		{"second migration with terms of the user", []corev1.NodeSelectorTerm{zoned("1", field("NotIn", "mine"), field("NotIn", "old"), field("In", "a"))}, "b", true,
			[]corev1.NodeSelectorTerm{zoned("1", field("NotIn", "mine"), notA, inB)}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			b := MakePod("p").Node("a").Container("main", Running())
			if test.terms != nil {
				b.With(func(p *corev1.Pod) {
					p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
						RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: test.terms}}}
				})
			}
			if test.moved {
				b.Label(v1alpha1.MigrationUIDLabel, "earlier").Annotation(v1alpha1.SourceNodeAnnotation, "old").Annotation(v1alpha1.RequiredNodeAnnotation, "a")
			}
			pod := b.Obj()
			before := pod.DeepCopy()
			r := build(t, pod, containers.ReplacementOptions{TargetNode: test.target})
			got := r.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(before, pod); diff != "" {
				t.Errorf("the original was changed:\n%s", diff)
			}
		})
	}
}

func TestSecondMigration(t *testing.T) {
	first := build(t, MakePod("p").Node("a").Annotation(v1alpha1.DiscardableVolumesAnnotation, v1alpha1.CheckpointVolumeName).
		Container("main", Running()).Obj(),
		containers.ReplacementOptions{Name: "p-migrated-1", MigrationUID: "m1", ClaimName: "claim-1", TargetNode: "b"})
	first.Spec.NodeName, first.Status = "b", MakePod("x").Container("main", Running()).Obj().Status
	if got := containers.RootName(first); got != "p" {
		t.Errorf("root = %s, want p", got)
	}
	if got := containers.PreviousCheckpoint(first); got != "claim-1" {
		t.Errorf("previous checkpoint = %s", got)
	}
	second := build(t, first, containers.ReplacementOptions{Name: "p-migrated-2", MigrationUID: "m2", ClaimName: "claim-2"})
	want := []corev1.VolumeMount{{Name: v1alpha1.CheckpointVolumeName, MountPath: v1alpha1.CheckpointMountPath, SubPath: v1alpha1.ApplicationDirectory}}
	if diff := cmp.Diff(want, second.Spec.Containers[0].VolumeMounts); diff != "" {
		t.Errorf("mounts (-want +got):\n%s", diff)
	}
	if len(second.Spec.Volumes) != 1 || second.Spec.Volumes[0].PersistentVolumeClaim.ClaimName != "claim-2" {
		t.Errorf("volumes = %v", second.Spec.Volumes)
	}
	if second.Labels[v1alpha1.MigrationUIDLabel] != "m2" || second.Labels[v1alpha1.TargetNodeLabel] != "" || second.Annotations[v1alpha1.RequiredNodeAnnotation] != "" {
		t.Errorf("marks = %v %v", second.Labels, second.Annotations)
	}
}

func TestPodLevelResources(t *testing.T) {
	list := func(cpu string) corev1.ResourceList {
		return corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu)}
	}
	limited := func(cpu string) func(*corev1.Container) {
		return func(c *corev1.Container) {
			c.Resources = corev1.ResourceRequirements{Requests: list(cpu), Limits: list(cpu)}
		}
	}
	pod := MakePod("p").Node("a").RestartPolicy(never).
		Container("batch", Exited(0), limited("900m")).Container("serve", Running(), limited("500m")).Container("free", Running()).
		With(func(p *corev1.Pod) {
			p.Spec.Resources = &corev1.ResourceRequirements{Requests: list("2"), Limits: list("1500m")}
		}).Obj()
	r := build(t, pod, options)
	if got := r.Spec.Resources.Requests.Cpu().String(); got != "1100m" {
		t.Errorf("requests = %s, want 2 less 900m", got)
	}
	// 1500m less 900m would be below the request, which is the least that is valid.
	if got := r.Spec.Resources.Limits.Cpu().String(); got != "1100m" {
		t.Errorf("limits = %s, want 1100m", got)
	}
}

func TestBuildReplacementRefuses(t *testing.T) {
	pod := MakePod("p").Node("a").RestartPolicy(never).Container("c", Exited(0)).Obj()
	if _, err := containers.BuildReplacement(pod, containers.Judge(pod, notCarried), options); err == nil || !strings.Contains(err.Error(), containers.RefusalNothingRemains) {
		t.Errorf("error = %v, want NothingRemains", err)
	}
	other := MakePod("p").Node("a").Container("d", Running()).Obj()
	if _, err := containers.BuildReplacement(pod, containers.Judge(other, containers.Policy{}), options); err == nil || !strings.Contains(err.Error(), "without a verdict") {
		t.Errorf("error = %v, want one about the missing verdict", err)
	}
}

func TestNames(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 30, 5, 0, time.UTC)
	a := containers.ReplacementName("web", "uid-1", at)
	if !strings.HasPrefix(a, "web-migrated-20260301123005") || a != containers.ReplacementName("web", "uid-1", at.In(time.FixedZone("x", 3600))) {
		t.Errorf("name = %s", a)
	}
	if b := containers.ReplacementName("web", "uid-2", at); a == b {
		t.Errorf("two migrations of one second share the name %s", a)
	}
	if c := containers.ClaimName("web", "uid-1", at); !strings.HasPrefix(c, "checkpoint-web-20260301123005") {
		t.Errorf("claim = %s", c)
	}
	for _, root := range []string{strings.Repeat("a", 253), strings.Repeat("a.", 126) + "a", strings.Repeat("b-", 126) + "b"} {
		for _, name := range []string{containers.ReplacementName(root, "u", at), containers.ClaimName(root, "u", at)} {
			if problems := validation.IsDNS1123Subdomain(name); len(problems) > 0 {
				t.Errorf("%s: %v", name, problems)
			}
		}
	}
}

// randomPod draws a pod of every kind of container, state and request.
func randomPod(r *rand.Rand) *corev1.Pod {
	states := []func() *corev1.ContainerStatus{Running, func() *corev1.ContainerStatus { return Exited(0) },
		func() *corev1.ContainerStatus { return Exited(1) }, func() *corev1.ContainerStatus { return Waiting("ImagePullBackOff") },
		func() *corev1.ContainerStatus { return WaitingAgain("CrashLoopBackOff", 1) }, func() *corev1.ContainerStatus { return nil }}
	ask := func() func(*corev1.Container) {
		return Requests(fmt.Sprintf("%dm", r.IntN(2000)), fmt.Sprintf("%dMi", r.IntN(4000)))
	}
	state := func() *corev1.ContainerStatus { return states[r.IntN(len(states))]() }
	b := MakePod("p").Node("a").RestartPolicy([]corev1.RestartPolicy{never, onFailure, always}[r.IntN(3)]).
		Volume("memory", Memory()).Volume("config", ConfigMap("c"))
	mount := func() func(*corev1.Container) { return Mount([]string{"memory", "config"}[r.IntN(2)], "/m") }
	for i := range r.IntN(4) {
		if r.IntN(2) == 0 {
			b.Sidecar(fmt.Sprintf("side-%d", i), state(), ask(), mount())
		} else {
			b.Init(fmt.Sprintf("init-%d", i), state(), ask(), mount())
		}
	}
	for i := range 1 + r.IntN(4) {
		b.Container(fmt.Sprintf("c-%d", i), state(), ask(), mount())
	}
	for i := range r.IntN(2) {
		b.Ephemeral(fmt.Sprintf("e-%d", i), state())
	}
	pod := b.Obj()
	if r.IntN(4) == 0 {
		total := resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{})
		cpu := total[corev1.ResourceCPU]
		cpu.Add(*resource.NewMilliQuantity(int64(r.IntN(500)), resource.DecimalSI))
		pod.Spec.Resources = &corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: cpu}}
	}
	if r.IntN(4) == 0 {
		pod.Spec.Overhead = Amounts("10m", "16Mi")
	}
	return pod
}

func TestPropertiesOfRandomPods(t *testing.T) {
	built, freed := 0, 0
	for seed := range uint64(1000) {
		pod := randomPod(rand.New(rand.NewPCG(seed, 1)))
		before := pod.DeepCopy()
		policy := containers.Policy{
			Waiting: []v1alpha1.WaitingPolicy{v1alpha1.WaitingStrip, v1alpha1.WaitingKeep}[seed%2],
			Mode:    []v1alpha1.CheckpointMode{v1alpha1.CheckpointApplication, v1alpha1.CheckpointFrozen, v1alpha1.CheckpointNone}[seed%3],
		}
		v := containers.Judge(pod, policy)

		var judged, all []string
		for _, c := range v.Containers {
			judged = append(judged, c.Name)
		}
		for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
			all = append(all, c.Name)
		}
		for _, c := range pod.Spec.EphemeralContainers {
			all = append(all, c.Name)
		}
		if diff := cmp.Diff(all, judged); diff != "" {
			t.Fatalf("seed %d: every container has exactly one verdict (-want +got):\n%s", seed, diff)
		}
		if diff := cmp.Diff(v, containers.Judge(pod.DeepCopy(), policy)); diff != "" {
			t.Fatalf("seed %d: the verdict is not deterministic:\n%s", seed, diff)
		}
		if v.Refusal != "" {
			continue
		}
		o := containers.ReplacementOptions{Name: "n", MigrationUID: types.UID("m"), ClaimName: "claim"}
		r, err := containers.BuildReplacement(pod, v, o)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		again, _ := containers.BuildReplacement(pod, v, o)
		if diff := cmp.Diff(r, again); diff != "" {
			t.Fatalf("seed %d: the replacement is not deterministic:\n%s", seed, diff)
		}
		if diff := cmp.Diff(before, pod); diff != "" {
			t.Fatalf("seed %d: the original was changed:\n%s", seed, diff)
		}
		built++
		freed += checkRequests(t, seed, pod, r)
		for _, c := range slices.Concat(r.Spec.InitContainers, r.Spec.Containers) {
			if !slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.MountPath == v1alpha1.CheckpointMountPath }) {
				t.Fatalf("seed %d: container %s does not mount the checkpoint", seed, c.Name)
			}
		}
	}
	if built < 200 || freed < 50 {
		t.Errorf("only %d replacements were built and %d freed requests: the pods are too alike", built, freed)
	}
}

// checkRequests returns 1 when the replacement requests less, and fails when it
// asks for more, or for less than its containers need.
func checkRequests(t *testing.T, seed uint64, pod, r *corev1.Pod) int {
	t.Helper()
	count := resourcehelper.PodResourcesOptions{}
	before, after := resourcehelper.PodRequests(pod, count), resourcehelper.PodRequests(r, count)
	need := resourcehelper.AggregateContainerRequests(r, count)
	result := 0
	for name, quantity := range after {
		was := before[name]
		if quantity.Cmp(was) > 0 {
			t.Fatalf("seed %d: %s grew from %s to %s", seed, name, was.String(), quantity.String())
		}
		if quantity.Cmp(was) < 0 {
			result = 1
		}
		if r.Spec.Resources != nil {
			if q, set := r.Spec.Resources.Requests[name]; set && q.Cmp(need[name]) < 0 {
				t.Fatalf("seed %d: pod-level %s is %s, its containers need more", seed, name, q.String())
			}
		}
	}
	return result
}
