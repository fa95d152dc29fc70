package containers

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"

	corev1 "k8s.io/api/core/v1"
	utiljson "k8s.io/apimachinery/pkg/util/json"
)

// KeepUnknownFields returns the replacement as an object of the API, with the fields that
// the API server has stored of the original and that our types do not know: a newer
// Kubernetes may have fields of pods, containers, volumes and mounts that ours would lose
// without a word.
//
// It applies what differs between the original and the replacement to the stored object.
// Stored is the original as the API server returned it, original the same object as it was
// decoded. Elements of lists belong together by their content, their name or mount path,
// or their place. Metadata are those of the replacement alone, and there is no status. The
// result shares parts with stored.
//
// It fails when stored is not the object that original was decoded from.
func KeepUnknownFields(stored map[string]any, original, replacement *corev1.Pod) (map[string]any, error) {
	if uid, _ := partOf(stored, "metadata")["uid"].(string); uid != string(original.UID) {
		return nil, fmt.Errorf("pod %s/%s has UID %s, the stored object has %q", original.Namespace, original.Name, original.UID, uid)
	}
	from, err := asObject(original)
	if err != nil {
		return nil, err
	}
	to, err := asObject(replacement)
	if err != nil {
		return nil, err
	}
	if partOf(stored, "spec") == nil {
		return nil, fmt.Errorf("pod %s/%s: the stored object has no spec", original.Namespace, original.Name)
	}
	spec := appliedMap(partOf(stored, "spec"), partOf(from, "spec"), partOf(to, "spec"))
	return map[string]any{"apiVersion": "v1", "kind": "Pod", "metadata": to["metadata"], "spec": spec}, nil
}

// RefuseUnknownVolumes refuses a pod with a volume of a kind that our types do not know, and
// that a container which moves uses: to them it is a volume without a source, which counts
// as an emptyDir, and nothing says whether its content goes along. Stored is the pod as
// the API server returned it. It writes the source of an emptyDir out, so a volume that has
// none here has another one there.
func RefuseUnknownVolumes(stored map[string]any, pod *corev1.Pod, v Verdicts) *Refusal {
	volumes, _ := partOf(stored, "spec")["volumes"].([]any)
	for i := range pod.Spec.Volumes {
		volume := &pod.Spec.Volumes[i]
		user := userOf(pod, v, volume.Name)
		if volume.VolumeSource != (corev1.VolumeSource{}) || user == "" || MayLose(pod, volume.Name) || i >= len(volumes) {
			continue
		}
		object, _ := volumes[i].(map[string]any)
		kinds := slices.Sorted(maps.Keys(object))
		if kinds = slices.DeleteFunc(kinds, func(key string) bool { return key == "name" }); len(kinds) > 0 {
			return &Refusal{RefusalVolumeNotCarried, fmt.Sprintf("container %s uses volume %s of kind %s, which is not known here. %s",
				user, volume.Name, kinds[0], howToDiscard(volume.Name))}
		}
	}
	return nil
}

// asObject writes a pod as JSON does. Numbers are int64 or float64, as they are in
// objects that the API machinery decodes.
func asObject(pod *corev1.Pod) (map[string]any, error) {
	text, err := json.Marshal(pod)
	if err != nil {
		return nil, fmt.Errorf("writing pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	object := map[string]any{}
	if err := utiljson.Unmarshal(text, &object); err != nil {
		return nil, fmt.Errorf("reading pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	return object, nil
}

// applied returns what is stored with the difference between two values applied to it.
func applied(stored, from, to any) any {
	if stored == nil {
		return to
	}
	if reflect.DeepEqual(from, to) {
		return stored
	}
	switch to := to.(type) {
	case map[string]any:
		storedMap, isStored := stored.(map[string]any)
		fromMap, isFrom := from.(map[string]any)
		if isStored && isFrom {
			return appliedMap(storedMap, fromMap, to)
		}
	case []any:
		storedList, isStored := stored.([]any)
		fromList, isFrom := from.([]any)
		// Elements are found by their place in the list that was decoded.
		if isStored && isFrom && len(storedList) == len(fromList) {
			return appliedList(storedList, fromList, to)
		}
	}
	return to
}

func appliedMap(stored, from, to map[string]any) map[string]any {
	result := maps.Clone(stored)
	for key := range from {
		if _, stays := to[key]; !stays {
			delete(result, key)
		}
	}
	for key, value := range to {
		switch before, was := from[key]; {
		case !was:
			result[key] = value
		case reflect.DeepEqual(before, value):
			// As it is stored, which may be not at all: a default of our types.
		default:
			result[key] = applied(stored[key], before, value)
		}
	}
	return result
}

// appliedList keeps the order of the list to. What stays without a change is found first,
// so that another element with the same name does not take its place.
func appliedList(stored, from, to []any) []any {
	taken := make([]bool, len(from))
	origin := make([]int, len(to))
	find := func(i int, same func(before, after any) bool) {
		if origin[i] >= 0 {
			return
		}
		for j := range from {
			if !taken[j] && same(from[j], to[i]) {
				taken[j], origin[i] = true, j
				return
			}
		}
	}
	for i := range to {
		origin[i] = -1
		find(i, reflect.DeepEqual)
	}
	for i := range to {
		find(i, sameIdentity)
	}
	result := make([]any, len(to))
	for i := range to {
		// Terms and the like have no name. As many as before, each is in its place.
		if origin[i] < 0 && len(from) == len(to) && !taken[i] && identity(to[i]) == nil {
			taken[i], origin[i] = true, i
		}
		if result[i] = to[i]; origin[i] >= 0 {
			result[i] = applied(stored[origin[i]], from[origin[i]], to[i])
		}
	}
	return result
}

// sameIdentity reports whether two elements of lists are one thing that has changed.
func sameIdentity(before, after any) bool {
	one, other := identity(before), identity(after)
	return one != nil && slices.Equal(one, other)
}

// identity is what an element of a list is known by; nil when it has nothing of the kind.
// A mount has a name, too, that of its volume.
func identity(element any) []string {
	object, is := element.(map[string]any)
	if !is {
		return nil
	}
	for _, key := range []string{"mountPath", "devicePath", "name"} {
		if value, is := object[key].(string); is {
			return []string{key, value}
		}
	}
	return nil
}

// partOf returns a part of an object; nil when it has none of this name.
func partOf(object map[string]any, name string) map[string]any {
	part, _ := object[name].(map[string]any)
	return part
}
