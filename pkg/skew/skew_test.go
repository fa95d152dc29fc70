package skew

import (
	"context"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/version"
	apiversion "k8s.io/apimachinery/pkg/version"
	fakediscovery "k8s.io/client-go/discovery/fake"
	clienttesting "k8s.io/client-go/testing"
)

func TestFor(t *testing.T) {
	for _, test := range []struct {
		name, server  string
		servesDevices bool
		want, reason  string
	}{
		{"the same", "v1.35.4", true, "1.35", ""},
		{"another patch", "v1.35.0-rc.1", true, "1.35", ""},
		{"older, with devices", "v1.34.2", true, "1.34", "older"},
		{"older, with devices turned off", "v1.34.2", false, "1.33", "does not serve"},
		{"older, before devices", "v1.33.13", false, "1.33", "older"},
		{"as old, and the vendor serves devices", "v1.33.13-gke.1+x", true, "1.33", "older"},
		{"the same, with devices turned off", "v1.35.4", false, "1.33", "does not serve"},
		{"newer", "v1.37.2", true, "1.35", ""},
		{"newer, with devices turned off", "v1.37.2", false, "1.33", "does not serve"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := For(version.MustParseSemantic("1.35.4"), version.MustParseSemantic(test.server), test.servesDevices)
			if err != nil {
				t.Fatal(err)
			}
			if got.Version.String() != test.want || (got.Reason == "") != (test.reason == "") || !strings.Contains(got.Reason, test.reason) {
				t.Errorf("version %s because %q, want %s because of %q", got.Version, got.Reason, test.want, test.reason)
			}
		})
	}
	_, err := For(version.MustParseSemantic("1.35.4"), version.MustParseSemantic("v1.32.9"), true)
	if err == nil || !strings.Contains(err.Error(), "1.33 or newer") {
		t.Errorf("an API server that is too old: %v", err)
	}
}

func TestAsk(t *testing.T) {
	for _, test := range []struct {
		name, server, want string
		resources          []*metav1.APIResourceList
	}{
		{"old", "v1.33.13", "1.33", nil},
		{"the same", "v1.35.4", "1.35", []*metav1.APIResourceList{{GroupVersion: devices}}},
		{"the same, without devices", "v1.35.4", "1.33", []*metav1.APIResourceList{{GroupVersion: "v1"}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			api := &fakediscovery.FakeDiscovery{
				Fake: &clienttesting.Fake{Resources: test.resources}, FakedServerVersion: &apiversion.Info{GitVersion: test.server},
			}
			got, err := Ask(t.Context(), api, version.MustParseSemantic("1.35.4"))
			if err != nil || got.Version.String() != test.want {
				t.Errorf("%v, %v; want %s", got.Version, err, test.want)
			}
		})
	}
}

func TestAskEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	api := &fakediscovery.FakeDiscovery{Fake: &clienttesting.Fake{}, FakedServerVersion: &apiversion.Info{GitVersion: "unreadable"}}
	if _, err := Ask(ctx, api, version.MustParseSemantic("1.35.4")); err == nil {
		t.Error("no error")
	}
}
