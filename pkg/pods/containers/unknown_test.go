package containers_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	utiljson "k8s.io/apimachinery/pkg/util/json"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods/containers"
)

// fromTheFuture is a pod as a newer API server stores it: with a field future that our
// types do not know at each level.
const fromTheFuture = `{
 "apiVersion": "v1", "kind": "Pod",
 "metadata": {"name": "web", "namespace": "default", "uid": "uid-web", "resourceVersion": "7", "future": "metadata", "labels": {"app": "web"}},
 "spec": {
  "future": {"pod": [1, "two"]}, "nodeName": "a", "restartPolicy": "Never", "terminationGracePeriodSeconds": 30,
  "affinity": {"nodeAffinity": {"future": "affinity", "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
   {"future": "term", "matchExpressions": [{"key": "gpu", "operator": "Exists", "future": "expression"}]}]}}},
  "tolerations": [{"key": "gpu", "operator": "Exists", "future": "toleration"}],
  "initContainers": [
   {"name": "fetch", "image": "fetch:1", "future": "fetch", "volumeMounts": [{"name": "scratch", "mountPath": "/s"}]},
   {"name": "proxy", "image": "proxy:1", "restartPolicy": "Always", "future": "proxy"}],
  "containers": [
   {"name": "serve", "image": "serve:1", "future": "serve", "env": [{"name": "A", "value": "1", "future": "env"}, {"name": "A", "value": "2"}],
    "ports": [{"containerPort": 53, "protocol": "TCP", "future": "tcp"}, {"containerPort": 53, "protocol": "UDP", "future": "udp"}],
    "securityContext": {"future": "security", "runAsUser": 7},
    "volumeMounts": [
     {"name": "kube-api-access-x", "mountPath": "/token", "future": "token"},
     {"name": "scratch", "mountPath": "/s", "bindMountOptions": ["noexec"]}, {"name": "scratch", "mountPath": "/t", "subPath": "t", "future": "mount"}]},
   {"name": "batch", "image": "batch:1", "future": "batch", "volumeMounts": [{"name": "results", "mountPath": "/r"}]},
   {"name": "log", "image": "log:1", "future": "log", "resources": {"requests": {"cpu": "0.5"}, "future": "resources"}}],
  "volumes": [
   {"name": "kube-api-access-x", "future": "token", "projected": {"sources": [{"serviceAccountToken": {"path": "token", "future": "source"}}]}},
   {"name": "results", "future": "results", "emptyDir": {}},
   {"name": "scratch", "future": "scratch", "emptyDir": {"mode": "0700", "sizeLimit": "1Gi"}}]},
 "status": {"phase": "Running", "future": "status",
  "initContainerStatuses": [{"name": "fetch", "state": {"terminated": {"exitCode": 0}}}, {"name": "proxy", "state": {"running": {}}}],
  "containerStatuses": [{"name": "serve", "state": {"running": {}}}, {"name": "batch", "state": {"terminated": {"exitCode": 0}}}, {"name": "log", "state": {"running": {}}}]}
}`

func decode(t *testing.T, text string) (stored map[string]any, pod *corev1.Pod) {
	t.Helper()
	stored, pod = map[string]any{}, &corev1.Pod{}
	if err := utiljson.Unmarshal([]byte(text), &stored); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(text), pod); err != nil {
		t.Fatal(err)
	}
	return stored, pod
}

// at returns what is at a path of names, list indices and list elements by name.
func at(t *testing.T, object any, path ...string) any {
	t.Helper()
	for _, step := range path {
		switch value := object.(type) {
		case map[string]any:
			object = value[step]
		case []any:
			i := slices.IndexFunc(value, func(element any) bool {
				e, is := element.(map[string]any)
				return is && e["name"] == step
			})
			if i < 0 {
				i, _ = strconv.Atoi(step)
			}
			object = nil
			if i < len(value) {
				object = value[i]
			}
		default:
			return nil
		}
	}
	return object
}

func names(list any) (names []string) {
	elements, _ := list.([]any)
	for _, element := range elements {
		names = append(names, element.(map[string]any)["name"].(string))
	}
	return names
}

func TestUnknownFieldsGoAlong(t *testing.T) {
	stored, pod := decode(t, fromTheFuture)
	before, _ := decode(t, fromTheFuture)
	o := options
	o.GateImage, o.TargetNode = "agent:1", "b"
	replacement, err := containers.BuildReplacement(pod, containers.Judge(pod, containers.Policy{}), o)
	if err != nil {
		t.Fatal(err)
	}
	got, err := containers.KeepUnknownFields(stored, pod, replacement)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, stored); diff != "" {
		t.Errorf("the stored object was changed:\n%s", diff)
	}
	const serve, scratch = "serve", "scratch"
	for path, want := range map[string]string{
		"spec future pod 1":                                       "two",
		"spec tolerations 0 future":                               "toleration",
		"spec containers log future":                              "log",
		"spec containers log resources future":                    "resources",
		"spec containers log resources requests cpu":              "0.5",
		"spec containers serve future":                            serve,
		"spec containers serve env 0 future":                      "env",
		"spec containers serve env 1 value":                       "2",
		"spec containers serve ports 0 future":                    "tcp",
		"spec containers serve ports 1 future":                    "udp",
		"spec containers serve securityContext future":            "security",
		"spec containers serve volumeMounts 0 mountPath":          "/s",
		"spec containers serve volumeMounts 0 bindMountOptions 0": "noexec",
		"spec containers serve volumeMounts 1 future":             "mount",
		"spec containers serve volumeMounts 2 mountPath":          v1alpha1.CheckpointMountPath,
		"spec initContainers proxy future":                        "proxy",
		"spec volumes scratch future":                             scratch,
		"spec volumes scratch emptyDir mode":                      "0700",
		"spec affinity nodeAffinity future":                       "affinity",
		"spec affinity nodeAffinity requiredDuringSchedulingIgnoredDuringExecution nodeSelectorTerms 0 future":                    "term",
		"spec affinity nodeAffinity requiredDuringSchedulingIgnoredDuringExecution nodeSelectorTerms 0 matchExpressions 0 future": "expression",
		"spec affinity nodeAffinity requiredDuringSchedulingIgnoredDuringExecution nodeSelectorTerms 0 matchFields 0 operator":    "NotIn",
		"spec affinity nodeAffinity requiredDuringSchedulingIgnoredDuringExecution nodeSelectorTerms 0 matchFields 1 values 0":    "b",
		"metadata name": options.Name,
		"kind":          "Pod",
	} {
		value := at(t, got, strings.Split(path, " ")...)
		if value != want {
			t.Errorf("%s: %v, want %s", path, value, want)
		}
	}
	text, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	for _, gone := range []string{`"nodeName"`, `"status"`, `"uid":`, `"resourceVersion"`, `"future":"metadata"`, `"future":"token"`, `"future":"batch"`, `"future":"fetch"`, `"future":"results"`} {
		if strings.Contains(string(text), gone) {
			t.Errorf("the replacement has %s of the original: %s", gone, text)
		}
	}
	if _, has := got["status"]; has {
		t.Error("the replacement has a status")
	}
	wantInits := initNames(replacement)
	if diff := cmp.Diff(wantInits, names(at(t, got, "spec", "initContainers"))); diff != "" {
		t.Errorf("init containers (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{serve, "log"}, names(at(t, got, "spec", "containers"))); diff != "" {
		t.Errorf("containers (-want +got):\n%s", diff)
	}
	// What our types know is what was built.
	_, known := decode(t, string(text))
	known.TypeMeta = replacement.TypeMeta
	if diff := cmp.Diff(normalized(t, replacement), normalized(t, known)); diff != "" {
		t.Errorf("not what was built (-want +got):\n%s", diff)
	}
}

// normalized writes a pod as JSON does and reads it, so that nil and empty lists are one.
func normalized(t *testing.T, pod *corev1.Pod) map[string]any {
	t.Helper()
	text, err := json.Marshal(pod)
	if err != nil {
		t.Fatal(err)
	}
	object, _ := decode(t, string(text))
	return object
}

// The next migration takes the fields along again, in whichever order containers are
// added and removed.
func TestUnknownFieldsOfASecondMigration(t *testing.T) {
	stored, pod := decode(t, fromTheFuture)
	o := options
	for i := range 2 {
		o.GateImage, o.ClaimName = "agent:1", fmt.Sprint("claim-", i)
		replacement, err := containers.BuildReplacement(pod, containers.Judge(pod, containers.Policy{}), o)
		if err != nil {
			t.Fatal(err)
		}
		built, err := containers.KeepUnknownFields(stored, pod, replacement)
		if err != nil {
			t.Fatal(err)
		}
		if got := at(t, built, "spec", "volumes", v1alpha1.CheckpointVolumeName, "persistentVolumeClaim", "claimName"); got != o.ClaimName {
			t.Errorf("claim %v, want %s", got, o.ClaimName)
		}
		for _, path := range [][]string{
			{"spec", "containers", "serve", "future"}, {"spec", "initContainers", "proxy", "future"}, {"spec", "volumes", "scratch", "future"},
		} {
			if at(t, built, path...) != path[2] {
				t.Errorf("migration %d: %v is %v", i, path, at(t, built, path...))
			}
		}
		if diff := cmp.Diff(initNames(replacement), names(at(t, built, "spec", "initContainers"))); diff != "" {
			t.Errorf("init containers (-want +got):\n%s", diff)
		}
		text, err := json.Marshal(built)
		if err != nil {
			t.Fatal(err)
		}
		stored, pod = decode(t, string(text))
		pod.Spec.NodeName, stored["spec"].(map[string]any)["nodeName"] = "b", "b"
		for _, c := range pod.Spec.InitContainers {
			state := corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}
			if c.RestartPolicy != nil {
				state = corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
			}
			pod.Status.InitContainerStatuses = append(pod.Status.InitContainerStatuses, corev1.ContainerStatus{Name: c.Name, State: state})
		}
		for _, c := range pod.Spec.Containers {
			pod.Status.ContainerStatuses = append(pod.Status.ContainerStatuses, corev1.ContainerStatus{Name: c.Name, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}})
		}
		pod.UID, stored["metadata"].(map[string]any)["uid"] = "uid-2", "uid-2"
	}
}

func TestUnknownFieldsOfAnotherPodAreRefused(t *testing.T) {
	stored, pod := decode(t, fromTheFuture)
	stored["metadata"].(map[string]any)["uid"] = "another"
	if _, err := containers.KeepUnknownFields(stored, pod, pod); err == nil || !strings.Contains(err.Error(), "another") {
		t.Errorf("error %v", err)
	}
	if _, err := containers.KeepUnknownFields(map[string]any{"metadata": map[string]any{"uid": "uid-web"}}, pod, pod.DeepCopy()); err == nil {
		t.Error("an object without a spec is not noticed")
	}
}

// Elements of one name are distinguished: what stays as it is stays itself, a mount is known
// by its path, and nothing is added that was only a default of our types.
func TestElementsOfOneNameKeepTheirOwnFields(t *testing.T) {
	stored, pod := decode(t, fromTheFuture)
	replacement := pod.DeepCopy()
	serve := &replacement.Spec.Containers[0]
	serve.Env = serve.Env[1:]
	serve.VolumeMounts = serve.VolumeMounts[2:]
	serve.VolumeMounts[0].ReadOnly = true
	serve.Image = "serve:2"
	got, err := containers.KeepUnknownFields(stored, pod, replacement)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"name": "serve", "image": "serve:2", "future": "serve",
		"env":             []any{map[string]any{"name": "A", "value": "2"}},
		"ports":           at(t, stored, "spec", "containers", "serve", "ports"),
		"securityContext": map[string]any{"future": "security", "runAsUser": int64(7)},
		"volumeMounts":    []any{map[string]any{"name": "scratch", "mountPath": "/t", "subPath": "t", "readOnly": true, "future": "mount"}},
	}
	if diff := cmp.Diff(want, at(t, got, "spec", "containers", "serve")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestVolumesOfAnUnknownKindAreRefused(t *testing.T) {
	for name, test := range map[string]struct {
		change  func(text string) string
		refused bool
	}{
		"all are known": {func(text string) string { return text }, false},
		"one is not": {func(text string) string {
			return strings.Replace(text, `"emptyDir": {"mode"`, `"cloudDir": {"mode"`, 1)
		}, true},
		"of a container that stays behind": {func(text string) string {
			return strings.Replace(text, `"results", "future": "results", "emptyDir"`, `"results", "cloudDir"`, 1)
		}, false},
		"may be lost": {func(text string) string {
			return strings.Replace(strings.Replace(text, `"emptyDir": {"mode"`, `"cloudDir": {"mode"`, 1),
				`"labels"`, `"annotations": {"`+v1alpha1.DiscardableVolumesAnnotation+`": "scratch"}, "labels"`, 1)
		}, false},
		"no source at all": {func(text string) string {
			return strings.Replace(text, `"future": "scratch", "emptyDir": {"mode": "0700", "sizeLimit": "1Gi"}`, `"name": "scratch"`, 1)
		}, false},
	} {
		stored, pod := decode(t, test.change(fromTheFuture))
		r := containers.RefuseUnknownVolumes(stored, pod, containers.Judge(pod, containers.Policy{}))
		if (r != nil) != test.refused {
			t.Errorf("%s: refusal %+v", name, r)
		}
		if r != nil && (r.Reason != containers.RefusalVolumeNotCarried || !strings.Contains(r.Message, "container serve uses volume scratch of kind cloudDir")) {
			t.Errorf("%s: refusal %+v", name, r)
		}
	}
}

// Whatever is stripped and added: what our types know is what was built, and what they do
// not know stays where its element stays.
func TestUnknownFieldsOfRandomPods(t *testing.T) {
	built := 0
	for seed := range uint64(300) {
		pod := randomPod(rand.New(rand.NewPCG(seed, 2)))
		stored := normalized(t, pod)
		spec := stored["spec"].(map[string]any)
		marked := map[string]bool{}
		for _, list := range []string{"initContainers", "containers", "volumes"} {
			elements, _ := spec[list].([]any)
			for _, element := range elements {
				object := element.(map[string]any)
				object["future"] = list + object["name"].(string)
				marked[object["future"].(string)] = true
			}
		}
		v := containers.Judge(pod, containers.Policy{})
		o := options
		o.GateImage = "agent:1"
		replacement, err := containers.BuildReplacement(pod, v, o)
		if err != nil {
			continue
		}
		got, err := containers.KeepUnknownFields(stored, pod, replacement)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		built++
		for _, list := range []string{"initContainers", "containers", "volumes"} {
			elements, _ := at(t, got, "spec", list).([]any)
			for _, element := range elements {
				object := element.(map[string]any)
				if mark := list + object["name"].(string); marked[mark] != (object["future"] == mark) {
					t.Fatalf("seed %d: %s has the field %v", seed, mark, object["future"])
				}
			}
		}
		text, err := json.Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		_, known := decode(t, string(text))
		known.TypeMeta = replacement.TypeMeta
		if diff := cmp.Diff(normalized(t, replacement), normalized(t, known)); diff != "" {
			t.Fatalf("seed %d: not what was built (-want +got):\n%s", seed, diff)
		}
	}
	if built < 100 {
		t.Errorf("only %d replacements were built", built)
	}
}
