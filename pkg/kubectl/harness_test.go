package kubectl

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

var update = flag.Bool("update", false, "rewrite the golden files")

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// bench is a cluster of the test's own, and the command line on it.
type bench struct {
	t      *testing.T
	client client.WithWatch
	cli    *cli
	mu     sync.Mutex
	made   int
	// watched is closed when migrations are watched.
	watched chan struct{}
	once    sync.Once
	// refuse returns the error for a request; nil lets it pass.
	refuse func(verb string, object any) error
	// onCreate hears of every migration that is created.
	onCreate func(*v1alpha1.PodMigration)
}

func newBench(t *testing.T, objects ...client.Object) *bench {
	t.Helper()
	b := &bench{t: t, watched: make(chan struct{}), refuse: func(string, any) error { return nil }}
	mapper := meta.NewDefaultRESTMapper(nil)
	mapper.Add(v1alpha1.SchemeGroupVersion.WithKind("PodMigration"), meta.RESTScopeNamespace)
	b.client = fake.NewClientBuilder().WithRESTMapper(mapper).WithScheme(scheme).WithObjects(objects...).WithStatusSubresource(&v1alpha1.PodMigration{}).
		WithIndex(&corev1.Pod{}, "spec.nodeName", func(o client.Object) []string { return []string{o.(*corev1.Pod).Spec.NodeName} }).
		WithIndex(&v1alpha1.PodMigration{}, "metadata.name", func(o client.Object) []string { return []string{o.GetName()} }).
		WithIndex(&corev1.Event{}, "involvedObject.uid", func(o client.Object) []string {
			return []string{string(o.(*corev1.Event).InvolvedObject.UID)}
		}).WithInterceptorFuncs(interceptor.Funcs{Create: b.create, Get: b.get, List: b.list, Watch: b.watch}).Build()
	b.cli = &cli{
		flags: genericclioptions.NewConfigFlags(true), now: func() time.Time { return noon }, width: func() int { return 0 }, silence: func() {}, poll: 5 * time.Millisecond,
	}
	b.cli.connect = func() (*session, error) { return newSession(b.client, "default"), nil }
	return b
}

// create gives names and UIDs in order, and the clock of the test.
func (b *bench) create(ctx context.Context, c client.WithWatch, object client.Object, options ...client.CreateOption) error {
	if review, is := object.(*authenticationv1.SelfSubjectReview); is {
		review.Status.UserInfo.Username = "jane"
		return nil
	}
	if err := b.refuse("create", object); err != nil {
		return err
	}
	b.mu.Lock()
	b.made++
	if object.GetName() == "" {
		object.SetName(fmt.Sprintf("%s%d", object.GetGenerateName(), b.made))
	}
	object.SetUID(types.UID(fmt.Sprintf("made-%d", b.made)))
	b.mu.Unlock()
	object.SetCreationTimestamp(metav1.NewTime(noon))
	if m, is := object.(*v1alpha1.PodMigration); is && b.onCreate != nil {
		b.onCreate(m)
	}
	return c.Create(ctx, object, options...)
}

func (b *bench) get(ctx context.Context, c client.WithWatch, key client.ObjectKey, object client.Object, options ...client.GetOption) error {
	if err := b.refuse("get", object); err != nil {
		return err
	}
	return c.Get(ctx, key, object, options...)
}

func (b *bench) list(ctx context.Context, c client.WithWatch, list client.ObjectList, options ...client.ListOption) error {
	if err := b.refuse("list", list); err != nil {
		return err
	}
	err := c.List(ctx, list, options...)
	list.SetResourceVersion("1")
	return err
}

func (b *bench) watch(ctx context.Context, c client.WithWatch, list client.ObjectList, options ...client.ListOption) (watch.Interface, error) {
	w, err := c.Watch(ctx, list, options...)
	b.once.Do(func() { close(b.watched) })
	return w, err
}

// result is what the user sees.
type result struct {
	code     int
	out, err string
}

func (r result) String() string {
	text := r.out
	if r.err != "" {
		text += "--- standard error\n" + r.err
	}
	return text + fmt.Sprintf("--- exit code %d\n", r.code)
}

func (b *bench) run(args ...string) result { return b.runContext(b.t.Context(), args...) }

func (b *bench) runContext(ctx context.Context, args ...string) result {
	b.t.Helper()
	var out, errOut bytes.Buffer
	c := *b.cli
	c.IOStreams = genericiooptions.IOStreams{In: strings.NewReader(""), Out: &out, ErrOut: &errOut}
	code := c.run(ctx, append([]string{}, args...)) // cobra takes nil for the program's own
	return result{code, out.String(), errOut.String()}
}

// golden compares with a file of testdata.
func golden(t *testing.T, name string, got result) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(path, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v: write it with go test ./pkg/kubectl -update", err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

func (b *bench) migration(name string) *v1alpha1.PodMigration {
	b.t.Helper()
	m := &v1alpha1.PodMigration{}
	if err := b.client.Get(b.t.Context(), client.ObjectKey{Namespace: "default", Name: name}, m); err != nil {
		b.t.Fatal(err)
	}
	return m
}

func (b *bench) migrations() []v1alpha1.PodMigration {
	b.t.Helper()
	list := &v1alpha1.PodMigrationList{}
	if err := b.client.List(b.t.Context(), list); err != nil {
		b.t.Fatal(err)
	}
	return list.Items
}

// control plays the controller: each step is a status that is written.
func (b *bench) control(name string, steps ...func(*v1alpha1.PodMigration)) (done <-chan struct{}) {
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		<-b.watched
		for _, step := range steps {
			m := &v1alpha1.PodMigration{}
			key := client.ObjectKey{Namespace: "default", Name: name}
			if err := b.client.Get(b.t.Context(), key, m); err != nil {
				b.t.Error(err)
				return
			}
			step(m)
			if err := b.client.Status().Update(b.t.Context(), m); err != nil {
				b.t.Error(err)
				return
			}
		}
	}()
	return finished
}

func trainer() *fixture.PodBuilder {
	return fixture.MakePod("trainer").Node("node-a").RestartPolicy(corev1.RestartPolicyNever).
		Container("prepare", fixture.Exited(0), fixture.Requests("1", "2Gi")).
		Container("train", fixture.Running(), fixture.Requests("500m", "1Gi"))
}

func node(name string) *corev1.Node { return fixture.MakeNode(name).Obj() }

func at(seconds float64) *metav1.MicroTime {
	t := metav1.NewMicroTime(noon.Add(time.Duration(seconds * float64(time.Second))))
	return &t
}
