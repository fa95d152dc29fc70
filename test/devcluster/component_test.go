package devcluster

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

func TestWithKubeconfig(t *testing.T) {
	for _, test := range []struct {
		name, configuration string
		want                map[string]any
	}{
		{
			"no connection yet", "kind: K\nprofiles: [{schedulerName: a}]\n",
			map[string]any{
				"kind": "K", "profiles": []any{map[string]any{"schedulerName": "a"}},
				"clientConnection": map[string]any{"kubeconfig": "/k"},
			},
		},
		{
			"other settings of the connection stay", "clientConnection: {qps: 7, kubeconfig: old}\nunknownField: 1\n",
			map[string]any{
				"clientConnection": map[string]any{"qps": 7.0, "kubeconfig": "/k"},
				// Judged by the components, not here.
				"unknownField": 1.0,
			},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			rendered, err := withKubeconfig([]byte(test.configuration), "/k")
			if err != nil {
				t.Fatal(err)
			}
			var got map[string]any
			if err := yaml.Unmarshal(rendered, &got); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("configuration (-want +got):\n%s", diff)
			}
		})
	}
	if _, err := withKubeconfig([]byte("a: 1\na: 2\n"), "/k"); err == nil {
		t.Error("a field given twice is accepted")
	}
}
