package load

import (
	"fmt"
	"os"

	"k8s.io/apimachinery/pkg/runtime"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"
	schedulerconfig "k8s.io/kubernetes/pkg/scheduler/apis/config"
	schedulerscheme "k8s.io/kubernetes/pkg/scheduler/apis/config/scheme"
	schedulervalidation "k8s.io/kubernetes/pkg/scheduler/apis/config/validation"

	"github.com/ai-storage/orchestrator/pkg/apis/config"
	_ "github.com/ai-storage/orchestrator/pkg/apis/config/scheme" // plugin arguments
	configv1 "github.com/ai-storage/orchestrator/pkg/apis/config/v1"
	"github.com/ai-storage/orchestrator/pkg/apis/config/validation"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// Configuration is a KubeSchedulerConfiguration and what the rebalancer needs
// of it.
type Configuration struct {
	Scheduler *schedulerconfig.KubeSchedulerConfiguration
	// Profile is the one of our scheduler, within Scheduler.
	Profile *schedulerconfig.KubeSchedulerProfile
	// CheckpointVolume and Rebalance are the arguments in Profile, or the
	// defaults where it has none.
	CheckpointVolume *config.CheckpointVolumeArgs
	Rebalance        *config.RebalanceArgs
}

// File reads a configuration file. Errors name the file and the field.
func File(path string) (*Configuration, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the scheduler configuration: %w", err)
	}
	configuration, err := Bytes(data)
	if err != nil {
		return nil, fmt.Errorf("scheduler configuration %s: %w", path, err)
	}
	return configuration, nil
}

// Scheduler reads a configuration that need not have a profile of ours: what the
// scheduler takes. Errors name the file and the field.
func Scheduler(path string) (*schedulerconfig.KubeSchedulerConfiguration, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the scheduler configuration: %w", err)
	}
	scheduler, err := schedulerBytes(data)
	if err != nil {
		return nil, fmt.Errorf("scheduler configuration %s: %w", path, err)
	}
	return scheduler, nil
}

func schedulerBytes(data []byte) (*schedulerconfig.KubeSchedulerConfiguration, error) {
	scheduler, err := decode(data)
	if err != nil {
		return nil, err
	}
	if err := schedulervalidation.ValidateKubeSchedulerConfiguration(scheduler); err != nil {
		return nil, err
	}
	return scheduler, validateArguments(scheduler)
}

// Bytes reads a configuration from YAML or JSON. Errors name the field.
func Bytes(data []byte) (*Configuration, error) {
	scheduler, err := schedulerBytes(data)
	if err != nil {
		return nil, err
	}
	for i := range scheduler.Profiles {
		if profile := &scheduler.Profiles[i]; profile.SchedulerName == v1alpha1.SchedulerName {
			return newConfiguration(scheduler, profile)
		}
	}
	return nil, field.Required(field.NewPath("profiles"),
		fmt.Sprintf("one profile must have schedulerName %q", v1alpha1.SchedulerName))
}

// decode follows loadConfig in k8s.io/kubernetes/cmd/kube-scheduler/app/options.
func decode(data []byte) (*schedulerconfig.KubeSchedulerConfiguration, error) {
	object, kind, err := schedulerscheme.Codecs.UniversalDecoder().Decode(data, nil, nil)
	if err != nil {
		return nil, err
	}
	scheduler, ok := object.(*schedulerconfig.KubeSchedulerConfiguration)
	if !ok {
		return nil, fmt.Errorf("want kind KubeSchedulerConfiguration, got %s", kind)
	}
	// Conversion clears the version, which validation and the framework ask for.
	scheduler.APIVersion = kind.GroupVersion().String()
	return scheduler, nil
}

// validateArguments checks our arguments in every profile. Unlike those of
// Kubernetes' plugins, the scheduler's validation knows nothing of them.
func validateArguments(scheduler *schedulerconfig.KubeSchedulerConfiguration) error {
	var all field.ErrorList
	for i := range scheduler.Profiles {
		for j := range scheduler.Profiles[i].PluginConfig {
			plugin := &scheduler.Profiles[i].PluginConfig[j]
			path := field.NewPath("profiles").Index(i).Child("pluginConfig").Index(j).Child("args")
			switch args := plugin.Args.(type) {
			case *config.CheckpointVolumeArgs:
				all = append(all, validation.ValidateCheckpointVolumeArgs(path, args)...)
			case *config.RebalanceArgs:
				all = append(all, validation.ValidateRebalanceArgs(path, args)...)
			}
		}
	}
	return utilerrors.Flatten(all.ToAggregate())
}

func newConfiguration(scheduler *schedulerconfig.KubeSchedulerConfiguration, profile *schedulerconfig.KubeSchedulerProfile) (*Configuration, error) {
	checkpointVolume, err := arguments(profile, config.CheckpointVolumeName, &configv1.CheckpointVolumeArgs{}, &config.CheckpointVolumeArgs{})
	if err != nil {
		return nil, err
	}
	rebalance, err := arguments(profile, config.RebalanceName, &configv1.RebalanceArgs{}, &config.RebalanceArgs{})
	if err != nil {
		return nil, err
	}
	return &Configuration{Scheduler: scheduler, Profile: profile, CheckpointVolume: checkpointVolume, Rebalance: rebalance}, nil
}

// arguments returns those of the plugin in the profile, or else defaults, filled
// into the empty objects given. The scheduler adds the defaults to a profile
// only when the plugin is enabled there.
func arguments[T runtime.Object](profile *schedulerconfig.KubeSchedulerProfile, plugin string, versioned runtime.Object, internal T) (T, error) {
	for i := range profile.PluginConfig {
		if profile.PluginConfig[i].Name != plugin {
			continue
		}
		args, ok := profile.PluginConfig[i].Args.(T)
		if !ok {
			return internal, fmt.Errorf("arguments of plugin %s: want %T, got %T", plugin, internal, profile.PluginConfig[i].Args)
		}
		return args, nil
	}
	schedulerscheme.Scheme.Default(versioned)
	if err := schedulerscheme.Scheme.Convert(versioned, internal, nil); err != nil {
		return internal, fmt.Errorf("default arguments of plugin %s: %w", plugin, err)
	}
	return internal, nil
}
