package plugins_test

import (
	"context"
	"slices"
	"testing"

	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	schedulerconfig "k8s.io/kubernetes/pkg/scheduler/apis/config"
	"k8s.io/kubernetes/pkg/scheduler/backend/cache"
	schedulerplugins "k8s.io/kubernetes/pkg/scheduler/framework/plugins"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/names"
	"k8s.io/kubernetes/pkg/scheduler/framework/runtime"
	"k8s.io/kubernetes/pkg/scheduler/metrics"
	st "k8s.io/kubernetes/pkg/scheduler/testing"

	"github.com/ai-storage/orchestrator/pkg/apis/config"
	"github.com/ai-storage/orchestrator/pkg/apis/config/load"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/scheduling/plugins"
)

// The shipped profile, in the real framework: our PreBind comes after that of
// VolumeBinding, and our plugins do not cost the profile its batching.
func TestShippedProfile(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	configuration, err := load.File("../../../config/scheduler-configuration.yaml")
	if err != nil {
		t.Fatal(err)
	}
	withoutDefaultSpread(configuration.Profile)
	registry := schedulerplugins.NewInTreeRegistry()
	if err := registry.Merge(plugins.Registry()); err != nil {
		t.Fatal(err)
	}
	metrics.Register()
	client := fake.NewClientset()
	framework, err := runtime.NewFramework(ctx, registry, configuration.Profile,
		runtime.WithClientSet(client),
		runtime.WithSnapshotSharedLister(cache.NewEmptySnapshot()),
		runtime.WithInformerFactory(informers.NewSharedInformerFactory(client, 0)))
	if err != nil {
		t.Fatal(err)
	}
	var preBind []string
	for _, plugin := range framework.ListPlugins().PreBind.Enabled {
		preBind = append(preBind, plugin.Name)
	}
	if ours, theirs := slices.Index(preBind, config.CheckpointVolumeName), slices.Index(preBind, names.VolumeBinding); ours < theirs || theirs < 0 {
		t.Errorf("order of PreBind: %v", preBind)
	}
	plain := st.MakePod().Namespace("default").Name("p").SchedulerName(v1alpha1.SchedulerName)
	if framework.SignPod(ctx, plain.Obj(), false) == nil {
		t.Error("batching is lost for the profile")
	}
	if framework.SignPod(ctx, plain.Annotation(v1alpha1.SourceNodeAnnotation, "n").Obj(), false) != nil {
		t.Error("a replacement shares the result of another pod")
	}
}

// withoutDefaultSpread turns off the spread that Kubernetes gives to every pod
// of a workload. With it, Kubernetes itself batches no pod.
func withoutDefaultSpread(profile *schedulerconfig.KubeSchedulerProfile) {
	for _, plugin := range profile.PluginConfig {
		if args, ok := plugin.Args.(*schedulerconfig.PodTopologySpreadArgs); ok {
			args.DefaultingType, args.DefaultConstraints = schedulerconfig.ListDefaulting, nil
		}
	}
}
