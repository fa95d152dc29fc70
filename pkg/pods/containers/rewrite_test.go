package containers_test

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods/containers"
)

// template is what the owner makes each of its pods of.
func template() *fixture.PodBuilder {
	return fixture.MakePod("").UID("").RestartPolicy(corev1.RestartPolicyNever).
		Label("app", "sum").Annotation("note", "x").Controller("Job", "sum").
		Volume("scratch", fixture.EmptyDir()).Volume("input", fixture.Claim("input")).Volume("kube-api-access-1", fixture.EmptyDir()).
		Init("fetch", nil, fixture.Mount("scratch", "/scratch"), fixture.Mount("input", "/input")).
		Container("batch", nil, fixture.Requests("900m", "64Mi"), fixture.Mount("scratch", "/scratch")).
		Container("serve", nil, fixture.Requests("500m", "64Mi"), fixture.Mount("scratch", "/scratch"), fixture.MountReadOnly("kube-api-access-1", "/token"))
}

// original is a pod of the template that has worked for a while.
func original() *corev1.Pod {
	pod := template().UID("uid-original").Node("node-a").Obj()
	pod.Name = "sum-0-abcde"
	pod.Status.InitContainerStatuses = []corev1.ContainerStatus{named("fetch", fixture.Exited(0))}
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{named("batch", fixture.Exited(0)), named("serve", fixture.Running())}
	pod.Status.QOSClass = corev1.PodQOSBurstable
	return pod
}

func named(name string, status *corev1.ContainerStatus) corev1.ContainerStatus {
	status.Name = name
	return *status
}

// next is the pod that the owner is about to create.
func next() *corev1.Pod {
	pod := template().Obj()
	pod.GenerateName, pod.Finalizers = "sum-0-", []string{"batch.kubernetes.io/job-tracking"}
	pod.Spec.Hostname, pod.Spec.Subdomain = "sum-0", "sums"
	return pod
}

func rewriteOptions() containers.ReplacementOptions {
	return containers.ReplacementOptions{
		Name: "sum-0-abcde-migrated-1", MigrationUID: "m", ClaimName: "checkpoint", TargetNode: "node-b", GateImage: "agent:1",
		SourceNode: "node-a", OriginalUID: "uid-original", Root: "sum-0-abcde",
	}
}

// The owner's pod becomes what the controller would have made of the original.
func TestRewriteGivesWhatBuildReplacementGives(t *testing.T) {
	verdicts := containers.Judge(original(), containers.Policy{})
	built, err := containers.BuildReplacement(original(), verdicts, rewriteOptions())
	if err != nil {
		t.Fatal(err)
	}
	before := next()
	given := before.DeepCopy()
	got, err := containers.Rewrite(given, verdicts, rewriteOptions())
	if err != nil {
		t.Fatal(err)
	}
	if !equality.Semantic.DeepEqual(given, before) {
		t.Error("the pod that was given is changed")
	}
	if got.Name != "sum-0-abcde-migrated-1" || got.GenerateName != "sum-0-" || len(got.Finalizers) != 1 || metav1.GetControllerOf(got) == nil ||
		got.Spec.Hostname != "sum-0" || got.Spec.Subdomain != "sums" {
		t.Errorf("not a pod of its owner any more: %+v", got.ObjectMeta)
	}
	if !equality.Semantic.DeepEqual(got.Labels, built.Labels) || !equality.Semantic.DeepEqual(got.Annotations, built.Annotations) {
		t.Errorf("marks %v %v\nwant %v %v", got.Labels, got.Annotations, built.Labels, built.Annotations)
	}
	// The replacement that is built is given its token and host name later.
	got.Spec.Hostname, got.Spec.Subdomain = "", ""
	serve := &got.Spec.Containers[0]
	if len(serve.VolumeMounts) != 3 || serve.VolumeMounts[1].Name != "kube-api-access-1" {
		t.Errorf("mounts %+v, want the token to stay", serve.VolumeMounts)
	}
	serve.VolumeMounts = append(serve.VolumeMounts[:1:1], serve.VolumeMounts[2:]...)
	got.Spec.Volumes = append(got.Spec.Volumes[:1:1], got.Spec.Volumes[2:]...)
	if !equality.Semantic.DeepEqual(got.Spec, built.Spec) {
		t.Errorf("spec %+v\nwant %+v", got.Spec, built.Spec)
	}
}

func TestRewriteKeeps(t *testing.T) {
	verdicts := containers.Judge(original(), containers.Policy{})
	for name, test := range map[string]struct {
		change func(*corev1.Pod)
		check  func(*corev1.Pod) bool
	}{
		"a given name":       {func(p *corev1.Pod) { p.Name, p.GenerateName = "sum-0", "" }, func(p *corev1.Pod) bool { return p.Name == "sum-0" }},
		"its own gates":      {func(p *corev1.Pod) { p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "queue"}} }, func(p *corev1.Pod) bool { return len(p.Spec.SchedulingGates) == 1 }},
		"its own cost":       {func(p *corev1.Pod) { p.Annotations[corev1.PodDeletionCost] = "7" }, func(p *corev1.Pod) bool { return p.Annotations[corev1.PodDeletionCost] == "7" }},
		"its priority":       {func(p *corev1.Pod) { p.Spec.Priority = new(int32(7)) }, func(p *corev1.Pod) bool { return *p.Spec.Priority == 7 }},
		"no unused claim":    {func(*corev1.Pod) {}, func(p *corev1.Pod) bool { return !hasVolume(p, "input") }},
		"what a set mounts":  {func(p *corev1.Pod) { p.OwnerReferences[0].Kind = "StatefulSet" }, func(p *corev1.Pod) bool { return hasVolume(p, "input") }},
		"no labels to begin": {func(p *corev1.Pod) { p.Labels, p.Annotations = nil, nil }, func(p *corev1.Pod) bool { return p.Labels[v1alpha1.MigrationUIDLabel] == "m" }},
	} {
		t.Run(name, func(t *testing.T) {
			pod := next()
			test.change(pod)
			got, err := containers.Rewrite(pod, verdicts, rewriteOptions())
			if err != nil {
				t.Fatal(err)
			}
			if !test.check(got) {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func hasVolume(pod *corev1.Pod, name string) bool {
	for _, v := range pod.Spec.Volumes {
		if v.Name == name {
			return true
		}
	}
	return false
}

func TestRewriteRefuses(t *testing.T) {
	verdicts := containers.Judge(original(), containers.Policy{})
	for name, test := range map[string]struct {
		change  func(*corev1.Pod)
		options func(*containers.ReplacementOptions)
		want    string
	}{
		"a new container":      {func(p *corev1.Pod) { p.Spec.Containers[0].Name = "new" }, nil, "without a verdict"},
		"a container is gone":  {func(p *corev1.Pod) { p.Spec.Containers = p.Spec.Containers[:1] }, nil, "keep no container"},
		"one of two is gone":   {func(p *corev1.Pod) { p.Spec.InitContainers = nil; p.Spec.Containers[1].Name = "batch" }, nil, "keep no container"},
		"another image":        {func(p *corev1.Pod) { p.Spec.Containers[1].Image = "serve:2" }, func(o *containers.ReplacementOptions) { o.Images = map[string]string{"serve": "serve:1"} }, "serve:2"},
		"bound at birth":       {func(p *corev1.Pod) { p.Spec.NodeName = "node-a" }, nil, "bound"},
		"a checkpoint already": {func(p *corev1.Pod) { p.Spec.Volumes[0].Name = v1alpha1.CheckpointVolumeName }, nil, "of its own"},
		"no name":              {func(*corev1.Pod) {}, func(o *containers.ReplacementOptions) { o.Name = "" }, "name"},
	} {
		t.Run(name, func(t *testing.T) {
			pod, options := next(), rewriteOptions()
			test.change(pod)
			if test.options != nil {
				test.options(&options)
			}
			if got, err := containers.Rewrite(pod, verdicts, options); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, %v, want an error with %q", got, err, test.want)
			}
		})
	}
}

// In mode Application the template has the claim that the application saves to.
func TestRewriteKeepsTheClaimThatTheTemplateMounts(t *testing.T) {
	verdicts, pod, options := containers.Judge(original(), containers.Policy{}), next(), rewriteOptions()
	options.GateImage = ""
	pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: v1alpha1.CheckpointVolumeName, VolumeSource: fixture.Claim(options.ClaimName)})
	serve := &pod.Spec.Containers[1]
	fixture.Mount(v1alpha1.CheckpointVolumeName, v1alpha1.CheckpointMountPath)(serve)
	got, err := containers.Rewrite(pod, verdicts, options)
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for _, v := range got.Spec.Volumes {
		if v.Name == v1alpha1.CheckpointVolumeName {
			count++
		}
	}
	mounts := got.Spec.Containers[0].VolumeMounts
	if count != 1 || len(mounts) != len(serve.VolumeMounts) {
		t.Errorf("%d volumes of the claim, mounts %v", count, mounts)
	}
}

func TestRewriteRefusesWithoutAContainerThatMoves(t *testing.T) {
	pod := original()
	pod.Status.ContainerStatuses[0] = named("batch", fixture.Running())
	verdicts := containers.Judge(pod, containers.Policy{})
	without := next()
	without.Spec.Containers = without.Spec.Containers[1:]
	if _, err := containers.Rewrite(without, verdicts, rewriteOptions()); err == nil || !strings.Contains(err.Error(), "batch") {
		t.Errorf("error %v, want one about batch", err)
	}
}

func TestReplacementWaitsForItsOriginal(t *testing.T) {
	verdicts, options := containers.Judge(original(), containers.Policy{}), rewriteOptions()
	options.WaitForOriginal = true
	built, err := containers.BuildReplacement(original(), verdicts, options)
	if err != nil {
		t.Fatal(err)
	}
	rewritten, err := containers.Rewrite(next(), verdicts, options)
	if err != nil {
		t.Fatal(err)
	}
	for _, pod := range []*corev1.Pod{built, rewritten} {
		if gates := pod.Spec.SchedulingGates; len(gates) != 1 || gates[0].Name != v1alpha1.WaitForOriginalGate {
			t.Errorf("gates %v", gates)
		}
	}
}

// The owner knows nothing of what was left out: each of its pods has all containers.
func TestRewriteOfASecondMigration(t *testing.T) {
	first, err := containers.Rewrite(next(), containers.Judge(original(), containers.Policy{}), rewriteOptions())
	if err != nil {
		t.Fatal(err)
	}
	if want := "fetch/Init,batch/Container"; first.Annotations[containers.LeftOutAnnotation] != want {
		t.Fatalf("left out %q, want %q", first.Annotations[containers.LeftOutAnnotation], want)
	}
	first.UID, first.Spec.NodeName = "uid-first", "node-b"
	first.Status.ContainerStatuses = []corev1.ContainerStatus{named("serve", fixture.Running())}
	for _, c := range first.Spec.InitContainers {
		first.Status.InitContainerStatuses = append(first.Status.InitContainerStatuses, named(c.Name, fixture.Exited(0)))
	}
	verdicts := containers.Judge(first, containers.Policy{})
	options := rewriteOptions()
	options.Name, options.SourceNode, options.TargetNode, options.MigrationUID = "sum-0-abcde-migrated-2", "node-b", "", "m2"
	second, err := containers.Rewrite(next(), verdicts, options)
	if err != nil {
		t.Fatal(err)
	}
	if len(second.Spec.Containers) != 1 || second.Spec.Containers[0].Name != "serve" {
		t.Errorf("containers %+v, want serve alone", second.Spec.Containers)
	}
	for _, c := range second.Spec.InitContainers {
		if !v1alpha1.IsGateContainer(c.Name) {
			t.Errorf("init container %s runs again", c.Name)
		}
	}
	if got, want := second.Annotations[containers.LeftOutAnnotation], first.Annotations[containers.LeftOutAnnotation]; got != want {
		t.Errorf("left out %q, want %q", got, want)
	}
}

func TestGateKeepsTheQualityOfService(t *testing.T) {
	both := func(c *corev1.Container) { c.Resources.Limits = c.Resources.Requests.DeepCopy() }
	for name, test := range map[string]struct {
		change           func(*corev1.Container)
		requests, limits bool
	}{
		"Burstable":  {func(*corev1.Container) {}, true, false},
		"Guaranteed": {both, true, true},
		"BestEffort": {func(c *corev1.Container) { c.Resources = corev1.ResourceRequirements{} }, false, false},
		"no memory":  {func(c *corev1.Container) { both(c); delete(c.Resources.Limits, corev1.ResourceMemory) }, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			pod := fixture.MakePod("p").Container("serve", fixture.Running(), fixture.Requests("500m", "64Mi"), test.change).Obj()
			got, err := containers.Rewrite(pod, containers.Judge(pod, containers.Policy{}), rewriteOptions())
			if err != nil {
				t.Fatal(err)
			}
			r := got.Spec.InitContainers[0].Resources
			if len(r.Requests) > 0 != test.requests || len(r.Limits) > 0 != test.limits {
				t.Errorf("gate asks for %+v", r)
			}
		})
	}
}

func TestRootOf(t *testing.T) {
	created := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	if got := containers.RootOf(containers.ReplacementName("web-migrated-0", "m", created), "m", created); got != "web-migrated-0" {
		t.Errorf("root %q", got)
	}
	if got := containers.RootOf("db-0", "m", created); got != "" {
		t.Errorf("root %q of a name that was kept", got)
	}
}
