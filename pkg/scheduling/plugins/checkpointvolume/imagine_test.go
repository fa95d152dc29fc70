package checkpointvolume

import (
	"context"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	fwk "k8s.io/kube-scheduler/framework"
	schedulerconfig "k8s.io/kubernetes/pkg/scheduler/apis/config"
	schedulercache "k8s.io/kubernetes/pkg/scheduler/backend/cache"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	schedulerplugins "k8s.io/kubernetes/pkg/scheduler/framework/plugins"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/nodevolumelimits"
	frameworkruntime "k8s.io/kubernetes/pkg/scheduler/framework/runtime"
	"k8s.io/kubernetes/pkg/scheduler/metrics"
	st "k8s.io/kubernetes/pkg/scheduler/testing"

	"github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/pkg/apis/config"
	"github.com/ai-storage/orchestrator/pkg/apis/config/load"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods/containers"
)

// placing is a cluster on which the filters of the shipped profile are asked.
type placing struct {
	pods       []*corev1.Pod
	objects    []runtime.Object
	migrations []*v1alpha1.PodMigration
}

// running is a pod that keeps one container running.
func running(name, node string, labels map[string]string, change func(*corev1.Pod)) *corev1.Pod {
	pod := fixture.MakePod(name).Node(node).Container("c", fixture.Running(), fixture.Requests("100m", "64Mi")).Obj()
	pod.Namespace, pod.UID, pod.Labels, pod.Spec.SchedulerName = "default", types.UID(name), labels, v1alpha1.SchedulerName
	if change != nil {
		change(pod)
	}
	return pod
}

// repelling keeps pods with a label away.
func repelling(key, value string) func(*corev1.Pod) {
	return func(pod *corev1.Pod) {
		pod.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{
			{TopologyKey: corev1.LabelHostname, LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{key: value}}},
		}}}
	}
}

// spread keeps the pods of app web as many on each node, but for one.
func spread(pod *corev1.Pod) {
	pod.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{
		MaxSkew: 1, TopologyKey: corev1.LabelHostname, WhenUnsatisfiable: corev1.DoNotSchedule,
		LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}},
	}}
}

func withClaim(pod *corev1.Pod) {
	pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: "data", VolumeSource: corev1.VolumeSource{
		PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"},
	}})
	pod.Spec.Containers[0].VolumeMounts = append(pod.Spec.Containers[0].VolumeMounts, corev1.VolumeMount{Name: "data", MountPath: "/data"})
}

// stopFirst is a migration of a pod that has been accepted, and its placeholder.
func (p *placing) stopFirst(t *testing.T, name string, original *corev1.Pod) *corev1.Pod {
	t.Helper()
	m := &v1alpha1.PodMigration{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.SchemeGroupVersion.String(), Kind: "PodMigration"},
		ObjectMeta: metav1.ObjectMeta{Namespace: original.Namespace, Name: name, UID: types.UID("uid-" + name)},
		Spec:       v1alpha1.PodMigrationSpec{PodName: original.Name, ForceRestart: true},
	}
	m.Status = v1alpha1.PodMigrationStatus{
		Phase:       v1alpha1.PhasePreparing,
		Original:    &v1alpha1.PodReference{Name: original.Name, UID: original.UID, NodeName: original.Spec.NodeName},
		Replacement: &v1alpha1.PodReference{Name: original.Name + "-migrated"},
		Placeholder: &v1alpha1.PodReference{Name: name + "-placeholder"},
		Handover:    &v1alpha1.Handover{Method: v1alpha1.MethodCreate, Order: v1alpha1.OrderStopFirst},
		Containers:  containers.Judge(original, containers.PolicyOf(m)).Containers,
	}
	p.migrations = append(p.migrations, m)
	replacement, err := containers.BuildReplacement(original, containers.Verdicts{Containers: m.Status.Containers}, containers.OptionsOf(m, ""))
	if err != nil {
		t.Fatal(err)
	}
	requests := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("64Mi")}
	placeholder := containers.BuildPlaceholder(replacement, name+"-placeholder", "pause", requests, nil)
	placeholder.UID = types.UID(placeholder.Name)
	return placeholder
}

// ask returns what the filters say of a pod for each node: "" where it fits.
func (p *placing) ask(t *testing.T, pod *corev1.Pod) map[string]string {
	t.Helper()
	ctx := t.Context()
	profile, plugin := p.profile(t)
	var answers = map[string]string{}
	plugin.seals.start()
	for _, m := range p.migrations {
		eventually(t, "the migration is in the cache", func() bool { return plugin.seals.migration(m.UID) != nil })
	}
	if status := plugin.PreEnqueue(ctx, pod); !status.IsSuccess() {
		t.Fatalf("PreEnqueue: %v", status)
	}
	state := framework.NewCycleState()
	result, status, _ := profile.RunPreFilterPlugins(ctx, state, pod)
	if status.Code() == fwk.Error {
		t.Fatal(status.AsError())
	}
	nodes, err := plugin.nodeInfos().List()
	if err != nil {
		t.Fatal(err)
	}
	for _, node := range nodes {
		name, of := node.Node().Name, status
		if of.IsSuccess() && (result.AllNodes() || result.NodeNames.Has(name)) {
			of = profile.RunFilterPlugins(ctx, state, pod, node)
		}
		if of.Code() == fwk.Error {
			t.Fatal(of.AsError())
		}
		answers[name] = of.Message()
	}
	return answers
}

// profile is the shipped one, without the plugin that asks for measurements.
func (p *placing) profile(t *testing.T) (framework.Framework, *Plugin) {
	t.Helper()
	configuration, err := load.File("../../../../config/scheduler-configuration.yaml")
	if err != nil {
		t.Fatal(err)
	}
	profile := configuration.Profile.DeepCopy()
	profile.Plugins.MultiPoint.Enabled = slices.DeleteFunc(profile.Plugins.MultiPoint.Enabled, func(p schedulerconfig.Plugin) bool { return p.Name == config.RebalanceName })
	profile.PluginConfig = slices.DeleteFunc(profile.PluginConfig, func(c schedulerconfig.PluginConfig) bool { return c.Name == config.RebalanceName })
	var plugin *Plugin
	registry := schedulerplugins.NewInTreeRegistry()
	registry[Name] = func(ctx context.Context, args runtime.Object, handle fwk.Handle) (fwk.Plugin, error) {
		made, err := New(ctx, args, handle)
		if err == nil {
			plugin = made.(*Plugin)
		}
		return made, err
	}
	metrics.Register()
	var nodes []*corev1.Node
	objects := slices.Clone(p.objects)
	for _, name := range []string{"n1", "n2", "n3"} {
		nodes = append(nodes, st.MakeNode().Name(name).Label(corev1.LabelHostname, name).
			Capacity(map[corev1.ResourceName]string{"cpu": "4", "memory": "8Gi", "pods": "20"}).Obj())
	}
	for _, pod := range p.pods {
		objects = append(objects, pod)
	}
	client := fake.NewClientset(append(objects, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default"}})...)
	factory := informers.NewSharedInformerFactory(client, 0)
	built, err := frameworkruntime.NewFramework(t.Context(), registry, profile,
		frameworkruntime.WithClientSet(client),
		frameworkruntime.WithInformerFactory(factory),
		frameworkruntime.WithSharedCSIManager(nodevolumelimits.NewCSIManager(factory.Storage().V1().CSINodes().Lister())),
		frameworkruntime.WithSnapshotSharedLister(schedulercache.NewSnapshot(p.pods, nodes)))
	if err != nil {
		t.Fatal(err)
	}
	var raws []runtime.Object
	for _, m := range p.migrations {
		raw, err := runtime.DefaultUnstructuredConverter.ToUnstructured(m)
		if err != nil {
			t.Fatal(err)
		}
		raws = append(raws, &unstructured.Unstructured{Object: raw})
	}
	resource := v1alpha1.SchemeGroupVersion.WithResource("podmigrations")
	cached := dynamicfake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), map[schema.GroupVersionResource]string{resource: "PodMigrationList"}, raws...)
	if plugin.seals, err = sealsOf(t.Context(), cached, func(map[string]*corev1.Pod) {}); err != nil {
		t.Fatal(err)
	}
	factory.Start(t.Context().Done())
	factory.WaitForCacheSync(t.Context().Done())
	return built, plugin
}

// The place that is held has to be one for the replacement: what the filters of
// Kubernetes would say of it, with its own labels and claims, and the original gone.
func TestThePlaceThatIsHeldIsOneForTheReplacement(t *testing.T) {
	batch, web := map[string]string{"app": "batch"}, map[string]string{"app": "web"}
	const (
		source    = ReasonSourceNode
		repelled  = ReasonNotForReplacement + ": node(s) didn't satisfy existing pods anti-affinity rules"
		lopsided  = ReasonNotForReplacement + ": node(s) didn't match pod topology spread constraints"
		unbearing = ReasonNotForReplacement + ": node(s) didn't match pod anti-affinity rules"
	)
	for name, row := range map[string]struct {
		original *corev1.Pod
		change   func(*testing.T, *placing)
		n2, n3   string
	}{
		"nothing is against it": {original: running("batch", "n1", batch, nil)},
		"another pod repels it by its labels": {
			original: running("batch", "n1", batch, nil),
			change: func(_ *testing.T, p *placing) {
				p.pods = append(p.pods, running("web", "n2", web, repelling("app", "batch")))
			},
			n2: repelled,
		},
		"its spread counts itself, and not the original": {
			// n1: the original, n2: one, n3: none. Two on n2 and none on n3 are too many; the
			// original on n1 does not count any more.
			original: running("web-1", "n1", web, spread),
			change:   func(_ *testing.T, p *placing) { p.pods = append(p.pods, running("web-2", "n2", web, spread)) },
			n2:       lopsided,
		},
		"it repels its own kind, and the original is gone": {
			original: running("web-1", "n1", web, repelling("app", "web")),
			change: func(_ *testing.T, p *placing) {
				p.pods = append(p.pods, running("web-2", "n2", web, nil))
			},
			// The placeholder has that rule too.
			n2: "node(s) didn't match pod anti-affinity rules",
		},
		"a claim for one pod, which the original has": {
			original: running("batch", "n1", batch, withClaim),
			change: func(_ *testing.T, p *placing) {
				claim := st.MakePersistentVolumeClaim().Namespace("default").Name("data").VolumeName("pv").
					Annotation("pv.kubernetes.io/bind-completed", "true").
					AccessModes([]corev1.PersistentVolumeAccessMode{corev1.ReadWriteOncePod}).Obj()
				claim.Status.Phase = corev1.ClaimBound
				volume := hostPathVolume()
				volume.Spec.AccessModes = claim.Spec.AccessModes
				p.objects = append(p.objects, claim, volume)
			},
		},
		"a place is held there for another that repels it": {
			original: running("batch", "n1", batch, nil),
			change: func(t *testing.T, p *placing) {
				other := running("web", "n1", web, repelling("app", "batch"))
				placeholder := p.stopFirst(t, "other", other)
				placeholder.Spec.NodeName = "n2"
				p.pods = append(p.pods, other, placeholder)
			},
			n2: repelled,
		},
		"a place is held there for another that it repels": {
			original: running("batch", "n1", batch, repelling("app", "web")),
			change: func(t *testing.T, p *placing) {
				other := running("web", "n1", web, nil)
				placeholder := p.stopFirst(t, "other", other)
				placeholder.Spec.NodeName = "n3"
				p.pods = append(p.pods, other, placeholder)
			},
			n3: unbearing,
		},
		"a label of its author calls it a placeholder": {
			original: running("batch", "n1", map[string]string{"app": "batch", v1alpha1.RoleLabel: v1alpha1.RolePlaceholder}, nil),
			change: func(_ *testing.T, p *placing) {
				p.pods = append(p.pods, running("web", "n2", web, repelling("app", "batch")))
			},
			n2: repelled,
		},
		"the original is gone": {
			original: running("batch", "n1", batch, nil),
			change: func(_ *testing.T, p *placing) {
				p.pods = []*corev1.Pod{running("web", "n2", web, repelling("app", "batch"))}
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := &placing{pods: []*corev1.Pod{row.original}}
			placeholder := p.stopFirst(t, "m", row.original)
			if row.change != nil {
				row.change(t, p)
			}
			got := p.ask(t, placeholder)
			// The source is refused by whichever filter comes first.
			if !strings.Contains(got["n1"], source) && !strings.Contains(got["n1"], "node affinity") {
				t.Errorf("the source: %q", got["n1"])
			}
			if got["n2"] != row.n2 || got["n3"] != row.n3 {
				t.Errorf("n2 %q, n3 %q; want %q, %q", got["n2"], got["n3"], row.n2, row.n3)
			}
		})
	}
}

// A placeholder whose migration the cache does not have yet waits for it.
func TestAPlaceholderWaitsForTheCache(t *testing.T) {
	p := &placing{}
	placeholder := p.stopFirst(t, "m", running("batch", "n1", nil, nil))
	p.migrations = nil
	_, plugin := p.profile(t)
	if status := plugin.PreEnqueue(t.Context(), placeholder); status.Message() != ReasonMigrationUnknown {
		t.Errorf("PreEnqueue: %v", status)
	}
	// One without a cache, as in a simulation, does not.
	plugin.seals = nil
	if status := plugin.PreEnqueue(t.Context(), placeholder); !status.IsSuccess() {
		t.Errorf("PreEnqueue without a cache: %v", status)
	}
}
