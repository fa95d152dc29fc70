package containers_test

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	. "github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods/containers"
)

const shared = v1alpha1.SharedPathAnnotation

// volumeOf makes a PersistentVolume that only nodes with certain labels reach. Each
// term is a list of key, value pairs.
func volumeOf(source corev1.PersistentVolumeSource, terms ...[]string) *corev1.PersistentVolume {
	pv := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv-data"}, Spec: corev1.PersistentVolumeSpec{PersistentVolumeSource: source}}
	if len(terms) > 0 {
		pv.Spec.NodeAffinity = &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{}}
	}
	for _, pairs := range terms {
		var term corev1.NodeSelectorTerm
		for i := 0; i < len(pairs); i += 2 {
			r := corev1.NodeSelectorRequirement{Key: pairs[i], Operator: corev1.NodeSelectorOpIn, Values: strings.Split(pairs[i+1], ",")}
			if r.Key == metav1.ObjectNameField {
				term.MatchFields = append(term.MatchFields, r)
				continue
			}
			term.MatchExpressions = append(term.MatchExpressions, r)
		}
		pv.Spec.NodeAffinity.Required.NodeSelectorTerms = append(pv.Spec.NodeAffinity.Required.NodeSelectorTerms, term)
	}
	return pv
}

var (
	onHost  = corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/data"}}
	onDisk  = corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: "/mnt/disk"}}
	ofCSI   = corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: "driver"}}
	topolvm = "topology.topolvm.io/node"
)

func TestVolumesOfTheNodeAreRefused(t *testing.T) {
	annotated := func(pv *corev1.PersistentVolume, value string) *corev1.PersistentVolume {
		pv.Annotations = map[string]string{shared: value}
		return pv
	}
	ownClaim := func(change func(*corev1.PersistentVolumeClaim)) *corev1.PersistentVolumeClaim {
		claim := MakeClaim("data", corev1.ReadWriteOnce)
		change(claim)
		return claim
	}
	tests := []struct {
		name   string
		volume *corev1.PersistentVolume
		claim  *corev1.PersistentVolumeClaim
		may    string // what may be lost
		want   string // a part of the message; empty when the pod can move
	}{
		{name: "not bound yet"},
		{name: "local disk", volume: volumeOf(onDisk, []string{corev1.LabelHostname, "a"}), want: "local disk"},
		{name: "local disk, may be lost", volume: volumeOf(onDisk, []string{corev1.LabelHostname, "a"}), may: "data", want: "local disk"},
		{name: "path", volume: volumeOf(onHost), want: "path /data of the node"},
		{name: "path, may be lost", volume: volumeOf(onHost), may: "data"},
		{name: "path, another volume may be lost", volume: volumeOf(onHost), may: "other", want: "path /data"},
		{name: "path of one host", volume: volumeOf(onHost, []string{corev1.LabelHostname, "a"}), want: "only node a"},
		{name: "path of one host, may be lost", volume: volumeOf(onHost, []string{corev1.LabelHostname, "a"}), may: "data", want: "only node a"},
		{name: "path of one host that has another name than its node", volume: volumeOf(ofCSI, []string{corev1.LabelHostname, "ip-10-0-0-1"}), want: "only node a"},
		{name: "shared path", volume: annotated(volumeOf(onHost), "true")},
		{name: "shared path by its claim", volume: volumeOf(onHost), claim: ownClaim(func(c *corev1.PersistentVolumeClaim) { c.Annotations = map[string]string{shared: "true"} })},
		{name: "path that is said not to be shared", volume: annotated(volumeOf(onHost), "false"), want: "path /data"},
		{name: "shared path of one host", volume: annotated(volumeOf(onHost, []string{corev1.LabelHostname, "a"}), "true"), want: "only node a"},
		{name: "path of an earlier checkpoint of ours", volume: volumeOf(onHost),
			claim: ownClaim(func(c *corev1.PersistentVolumeClaim) {
				c.Labels = map[string]string{v1alpha1.ComponentLabel: v1alpha1.ComponentLabelValue}
			})},
		{name: "disk of a driver", volume: volumeOf(ofCSI, []string{topolvm, "a"}), want: "only node a"},
		{name: "disk of a driver, by name", volume: volumeOf(ofCSI, []string{metav1.ObjectNameField, "a"}), want: "only node a"},
		{name: "disk of a driver and its zone", volume: volumeOf(ofCSI, []string{corev1.LabelTopologyZone, "z", topolvm, "a"}), want: "only node a"},
		{name: "several terms for one host", volume: volumeOf(ofCSI, []string{topolvm, "a"}, []string{corev1.LabelHostname, "a"}), want: "only node a"},
		{name: "a term that matches nothing", volume: volumeOf(ofCSI, []string{topolvm, "a"}, nil), want: "only node a"},
		{name: "disk of two nodes", volume: volumeOf(ofCSI, []string{topolvm, "a,b"})},
		{name: "disk of two nodes, by terms", volume: volumeOf(ofCSI, []string{topolvm, "a"}, []string{corev1.LabelHostname, "b"})},
		{name: "disk of a zone", volume: volumeOf(ofCSI, []string{corev1.LabelTopologyZone, "z"})},
		{name: "disk of a zone with the name of a node", volume: volumeOf(ofCSI, []string{"topology.ebs.csi.aws.com/zone", "a"})},
		{name: "no affinity", volume: volumeOf(ofCSI)},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			pod := MakePod("p").Node("a").Volume("data", Claim("data")).Container("main", Running(), Mount("data", "/data")).
				Annotation(v1alpha1.DiscardableVolumesAnnotation, test.may).Obj()
			claim := test.claim
			if claim == nil {
				claim = MakeClaim("data", corev1.ReadWriteOnce)
			}
			_, refusal := containers.Assess(pod, containers.Policy{MayStop: true},
				func(string) (*corev1.PersistentVolumeClaim, *corev1.PersistentVolume) { return claim, test.volume }, nil)
			if test.want == "" {
				if refusal != nil {
					t.Errorf("refused: %+v", refusal)
				}
				return
			}
			if refusal == nil || refusal.Reason != containers.RefusalLocalVolume {
				t.Fatalf("refusal %+v, want one for a local volume", refusal)
			}
			for _, part := range []string{test.want, "claim data", "PersistentVolume pv-data"} {
				if !strings.Contains(refusal.Message, part) {
					t.Errorf("message %q, want one with %q", refusal.Message, part)
				}
			}
		})
	}
}

// A class says it for all of its volumes, and the volume that was given stays as it is.
func TestAClassMaySayThatItsPathsAreShared(t *testing.T) {
	class := func(value string) *storagev1.StorageClass {
		return &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "c", Annotations: map[string]string{shared: value}}}
	}
	pv := volumeOf(onHost)
	if got := containers.WithSharedPath(pv, class("true")); got.Annotations[shared] != "true" || got.Spec.HostPath == nil || len(pv.Annotations) > 0 {
		t.Errorf("got %+v, given %+v", got, pv)
	}
	if got := containers.WithSharedPath(pv, class("no")); got != pv {
		t.Errorf("got %+v", got)
	}
	if got := containers.WithSharedPath(pv, nil); got != pv {
		t.Errorf("got %+v", got)
	}
	if got := containers.WithSharedPath(nil, class("true")); got != nil {
		t.Errorf("got %+v", got)
	}
}

func TestReachableOnlyFrom(t *testing.T) {
	node := func(name string, pairs ...string) *corev1.Node {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{}}}
		for i := 0; i < len(pairs); i += 2 {
			n.Labels[pairs[i]] = pairs[i+1]
		}
		return n
	}
	const zone, box = corev1.LabelTopologyZone, "driver/box"
	nodes := []*corev1.Node{node("a", zone, "z1", box, "1"), node("b", zone, "z2", box, "2"), node("c", zone, "z2", box, "2")}
	for name, test := range map[string]struct {
		volume *corev1.PersistentVolume
		source string
		want   bool
	}{
		"a label that one node has":           {volumeOf(ofCSI, []string{box, "1"}), "a", true},
		"a label that two nodes have":         {volumeOf(ofCSI, []string{box, "2"}), "b", false},
		"the only node of its zone":           {volumeOf(ofCSI, []string{zone, "z1"}), "a", false},
		"one node by its name":                {volumeOf(ofCSI, []string{metav1.ObjectNameField, "b"}), "b", true},
		"two terms, two nodes":                {volumeOf(ofCSI, []string{box, "1"}, []string{metav1.ObjectNameField, "b"}), "a", false},
		"two terms, one node":                 {volumeOf(ofCSI, []string{box, "1"}, []string{metav1.ObjectNameField, "a"}), "a", true},
		"no node":                             {volumeOf(ofCSI, []string{box, "9"}), "a", false},
		"another node":                        {volumeOf(ofCSI, []string{box, "1"}), "b", false},
		"a node that is not known":            {volumeOf(ofCSI, []string{box, "1"}), "x", false},
		"no affinity":                         {volumeOf(ofCSI), "a", false},
		"no volume":                           {nil, "a", false},
		"a label and the zone it is not in":   {volumeOf(ofCSI, []string{box, "1", zone, "z9"}), "a", true},
		"a name and a label it does not have": {volumeOf(ofCSI, []string{metav1.ObjectNameField, "a", box, "2"}), "a", false},
	} {
		if got := containers.ReachableOnlyFrom(test.volume, test.source, nodes); got != test.want {
			t.Errorf("%s: got %t", name, got)
		}
	}
	pod := MakePod("p").Node("a").Volume("data", Claim("data")).Container("main", Running(), Mount("data", "/data")).Obj()
	claims := func(string) (*corev1.PersistentVolumeClaim, *corev1.PersistentVolume) {
		return MakeClaim("data", corev1.ReadWriteMany), volumeOf(ofCSI, []string{box, "1"})
	}
	v := containers.Judge(pod, containers.Policy{})
	if r := containers.RefuseClaims(pod, v, claims, nil); r != nil {
		t.Errorf("refused without knowledge of nodes: %+v", r)
	}
	if r := containers.RefuseClaims(pod, v, claims, nodes); r == nil || r.Reason != containers.RefusalLocalVolume {
		t.Errorf("refusal %+v", r)
	}
}
