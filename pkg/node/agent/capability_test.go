package agent

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// fakeInstaller remembers what it was asked, and what the node said at that moment.
type fakeInstaller struct {
	present bool
	err     error
	asked   []bool
	onAsk   func()
}

func (f *fakeInstaller) Present() (bool, error) { return f.present, nil }

func (f *fakeInstaller) Ensure(_ context.Context, wanted bool) error {
	f.asked = append(f.asked, wanted)
	if f.onAsk != nil {
		f.onAsk()
	}
	if f.err == nil {
		f.present = wanted
	}
	return f.err
}

func TestTheNodeSaysWhetherProcessesCanMove(t *testing.T) {
	pool := labels.SelectorFromSet(labels.Set{"pool": "train"})
	for name, test := range map[string]struct {
		labels    map[string]string
		handler   bool
		installs  bool
		where     labels.Selector
		installer fakeInstaller
		versions  error
		label     string
		says      string
		asked     bool
		soon      bool
	}{
		"as it should be":        {handler: true, label: "true", says: "kernel 6.18"},
		"no handler":             {label: "false", says: "none: the container runtime has no handler ai-storage-process"},
		"no CRIU":                {handler: true, versions: errors.New("criu does not run on the node"), label: "false", says: "none: criu does not run on the node"},
		"just installed":         {installs: true, label: "false", says: "no handler", asked: true, soon: true},
		"installed":              {installs: true, handler: true, installer: fakeInstaller{present: true}, label: "true", says: "kernel 6.18", asked: true},
		"cannot be installed":    {installs: true, installer: fakeInstaller{err: errors.New("installing: no imports")}, label: "false", says: "none: installing: no imports", asked: true},
		"wanted on other nodes":  {installs: true, where: pool, label: "false", says: "no handler"},
		"wanted on this one":     {installs: true, where: pool, labels: map[string]string{"pool": "train"}, handler: true, label: "true", says: "kernel", asked: true},
		"just removed":           {handler: true, installer: fakeInstaller{present: true}, label: "false", says: "no handler"},
		"no longer wanted here":  {installs: true, where: pool, handler: true, installer: fakeInstaller{present: true}, label: "false", says: "no handler"},
		"in use, so it is there": {handler: true, installer: fakeInstaller{present: true, err: errors.New("removing: 2 containers")}, label: "false", says: "none: removing: 2 containers"},
		"made by others too":     {installs: true, handler: true, label: "true", says: "kernel", asked: true},
	} {
		t.Run(name, func(t *testing.T) {
			node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "a", Labels: map[string]string{v1alpha1.ProcessNodeLabel: "true"}}}
			for key, value := range test.labels {
				node.Labels[key] = value
			}
			if test.handler {
				node.Status.RuntimeHandlers = []corev1.NodeRuntimeHandler{{Name: v1alpha1.ProcessRuntimeClass}}
			}
			c := fake.NewClientBuilder().WithObjects(node).Build()
			now := func() *corev1.Node {
				node := &corev1.Node{}
				if err := c.Get(t.Context(), client.ObjectKey{Name: "a"}, node); err != nil {
					t.Fatal(err)
				}
				return node
			}
			installer := test.installer
			installer.onAsk = func() {
				if removes := installer.present && !test.asked; removes && now().Labels[v1alpha1.ProcessNodeLabel] != "false" {
					t.Error("the handler is being removed, and pods that need it still come")
				}
			}
			a := &capabilityReporter{
				node: "a", client: c, live: c, reports: true, installs: test.installs, where: test.where, handler: &installer,
				versions: func(context.Context) (string, error) { return "kernel 6.18", test.versions },
			}
			soon, err := a.reportOnce(t.Context())
			if err != nil || soon != test.soon || !slices.Equal(installer.asked, []bool{test.asked}) {
				t.Errorf("soon %t, asked %v, %v", soon, installer.asked, err)
			}
			got := now()
			if said := got.Annotations[v1alpha1.ProcessVersionsAnnotation]; got.Labels[v1alpha1.ProcessNodeLabel] != test.label || !strings.Contains(said, test.says) {
				t.Errorf("the node says %s %q, want %s %q", got.Labels[v1alpha1.ProcessNodeLabel], said, test.label, test.says)
			}
		})
	}
}

func TestUsersOfAProgram(t *testing.T) {
	dir := t.TempDir()
	if users, err := usersOf(filepath.Join(dir, "none"), "/p"); len(users) > 0 || err != nil {
		t.Errorf("without a directory: %v, %v", users, err)
	}
	for name, options := range map[string]string{
		"a": `{"binary_name":"/p"}`, "b": `{"binary_name":"/q"}`, "c": `{}`, "d": `{"binary_name":"/p","systemd_cgroup":true}`, "e": "",
	} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
		if options == "" {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, name, "options.json"), []byte(options), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if users, err := usersOf(dir, "/p"); !slices.Equal(users, []string{"a", "d"}) || err != nil {
		t.Errorf("%v, %v", users, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "c", "options.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := usersOf(dir, "/p"); err == nil {
		t.Error("who cannot be read is no user")
	}
}
