package rights

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestGranted(t *testing.T) {
	granted, err := Granted([]byte(`
kind: ServiceAccount
---
kind: ClusterRole
rules:
- {apiGroups: ["", events.k8s.io], resources: [events], verbs: [create, patch]}
---
kind: Role
rules:
- {apiGroups: [""], resources: [pods/eviction], resourceNames: [x], verbs: [create]}
`))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, right := range granted.Sorted() {
		got = append(got, right.String())
	}
	want := []string{"create events", "create events.events.k8s.io", "create pods/eviction", "patch events", "patch events.events.k8s.io"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("granted (-want +got):\n%s", diff)
	}
	if _, err := Granted([]byte("kind: Role\nrules: [{apiGroups: ['*'], resources: [pods], verbs: [get]}]")); err == nil {
		t.Error("a wildcard is no error")
	}
}

func TestAddUses(t *testing.T) {
	log := `{"verb":"create","user":{"username":"us"},"objectRef":{"resource":"pods","subresource":"eviction"},"responseStatus":{"code":429},"annotations":{"authorization.k8s.io/decision":"allow"}}
{"verb":"watch","user":{"username":"us"},"objectRef":{"apiGroup":"batch","resource":"jobs"},"annotations":{"authorization.k8s.io/decision":"forbid"}}
{"verb":"get","user":{"username":"us"},"requestURI":"/version"}
{"verb":"watch","user":{"username":"us"},"objectRef":{"resource":"nodes"},"annotations":{"authorization.k8s.io/decision":"allow"}}
{"verb":"get","user":{"username":"others"},"objectRef":{"resource":"secrets"}}
{"verb":"ge`
	use := &Use{User: "us", Granted: Set{{"", "pods/eviction", "create"}: true, {"batch", "jobs", "watch"}: true, {"", "nodes", "list"}: true}, Used: Set{}, Forbidden: Set{}}
	if err := addUses([]*Use{use}, strings.NewReader(log)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Set{{"", "pods/eviction", "create"}: true, {"", "nodes", "watch"}: true}, use.Used); diff != "" {
		t.Errorf("used (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(Set{{"batch", "jobs", "watch"}: true}, use.Forbidden); diff != "" {
		t.Errorf("forbidden (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]Right{{"batch", "jobs", "watch"}}, use.Unused()); diff != "" {
		t.Errorf("unused (-want +got):\n%s", diff)
	}
}

// No program may grant itself more, or become another one.
func TestManifestsGrantNoPowers(t *testing.T) {
	files, err := filepath.Glob("../../manifests/base/*-rbac.yaml")
	if err != nil || len(files) != len(Programs) {
		t.Fatalf("%d files of rights, %v; want %d", len(files), err, len(Programs))
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		granted, err := Granted(content)
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		for right := range granted {
			group := right.Group == "rbac.authorization.k8s.io" || right.Group == "certificates.k8s.io"
			verb := right.Verb == "impersonate" || right.Verb == "escalate" || right.Verb == "bind"
			pods := right.Resource == "pods/exec" || right.Resource == "pods/attach" || right.Resource == "nodes/proxy" || right.Resource == "serviceaccounts/token"
			secrets := right.Resource == "secrets" && (right.Verb == "list" || right.Verb == "watch")
			if group || verb || pods || secrets {
				t.Errorf("%s: %s", file, right)
			}
		}
	}
}
