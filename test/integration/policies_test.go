package integration

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

const (
	agentNamespace = "ai-storage-node-agent"
	agentAccount   = "ai-storage-node-agent"

	rebalancerAccount = "system:serviceaccount:ai-storage-system:ai-storage-rebalancer"
)

var applyAgentRBAC sync.Once

// agentOn is a client with the token that a kubelet gives to the node agent of a node: bound
// to a pod of that node. An empty name gives a token that is bound to nothing.
func agentOn(t *testing.T, node string) client.Client {
	t.Helper()
	applyAgentRBAC.Do(func() { applyAgentRights(t) })
	request := &authenticationv1.TokenRequest{}
	if node != "" {
		pod := fixture.MakePod("").UID("").Namespace(agentNamespace).Node(node).Container("node-agent", nil).Obj()
		pod.GenerateName, pod.Spec.ServiceAccountName = "ai-storage-node-agent-", agentAccount
		must(t, k8s.Create(t.Context(), pod))
		request.Spec.BoundObjectRef = &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID}
	}
	return withToken(t, agentNamespace, agentAccount, request)
}

// applyAgentRights gives the agents what the manifests give them, and the right that they
// have on nodes where processes move.
func applyAgentRights(t *testing.T) {
	t.Helper()
	objects := []client.Object{
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: agentNamespace}},
		&rbacv1.ClusterRole{
			ObjectMeta: metav1.ObjectMeta{Name: "policies-nodes"},
			Rules:      []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"nodes"}, Verbs: []string{"get", "patch"}}},
		},
		&rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: "policies-nodes"},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "policies-nodes"},
			Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: agentNamespace, Name: agentAccount}},
		},
	}
	for _, object := range readManifests(t, "base/node-agent-rbac.yaml") {
		objects = append(objects, object)
	}
	for _, object := range objects {
		if err := k8s.Create(t.Context(), object); err != nil && !apierrors.IsAlreadyExists(err) {
			t.Fatal(err)
		}
	}
}

func withToken(t *testing.T, namespace, name string, request *authenticationv1.TokenRequest) client.Client {
	t.Helper()
	admin, err := kubernetes.NewForConfig(restConfig)
	must(t, err)
	issued, err := admin.CoreV1().ServiceAccounts(namespace).CreateToken(t.Context(), name, request, metav1.CreateOptions{})
	must(t, err)
	config := rest.AnonymousClientConfig(restConfig)
	config.BearerToken, config.QPS = issued.Status.Token, -1
	return newClient(t, config)
}

func newClient(t *testing.T, config *rest.Config) client.Client {
	t.Helper()
	made, err := client.New(config, client.Options{Scheme: scheme})
	must(t, err)
	return made
}

// userNamed is a client with every right under the name of a user.
func userNamed(t *testing.T, name string) client.Client {
	t.Helper()
	config := rest.CopyConfig(restConfig)
	config.Impersonate = rest.ImpersonationConfig{UserName: name, Groups: []string{"system:masters", "system:authenticated"}}
	return newClient(t, config)
}

// tenant is a user with every right in a namespace.
func tenant(t *testing.T, namespace string) client.Client {
	t.Helper()
	must(t, k8s.Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "tenant"}}))
	must(t, k8s.Create(t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "tenant"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: namespace, Name: "tenant"}},
	}))
	return withToken(t, namespace, "tenant", &authenticationv1.TokenRequest{})
}

// wantDenied checks that a policy has denied a request with a message that has all of want.
// Without any, the request must be allowed.
func wantDenied(t *testing.T, err error, policy string, want ...string) {
	t.Helper()
	if len(want) == 0 {
		if err != nil {
			t.Errorf("denied: %v", err)
		}
		return
	}
	if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "ValidatingAdmissionPolicy '"+policy+"'") {
		t.Fatalf("answered with %v, want a denial by policy %s", err, policy)
	}
	for _, text := range want {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("denied with %q, want %q in it", err, text)
		}
	}
}

// halfway is a migration from node A to node B whose volumes are being copied.
func halfway(t *testing.T, namespace string, change func(*v1alpha1.PodMigrationStatus)) *v1alpha1.PodMigration {
	t.Helper()
	m := newMigration(namespace, "", "web")
	m.GenerateName = "m-"
	must(t, k8s.Create(t.Context(), m))
	m.Status = v1alpha1.PodMigrationStatus{
		Phase: v1alpha1.PhasePlacing, Message: "copying",
		Original:    &v1alpha1.PodReference{Name: "web", UID: "0b8f2c1e-0000-4000-8000-000000000001", NodeName: nodeA},
		Replacement: &v1alpha1.PodReference{Name: "web-migrated", UID: "0b8f2c1e-0000-4000-8000-000000000002", NodeName: nodeB},
		Conditions:  []metav1.Condition{{Type: v1alpha1.ConditionAccepted, Status: metav1.ConditionTrue, Reason: "Accepted", LastTransitionTime: metav1.Now()}},
		Checkpoint: &v1alpha1.CheckpointStatus{
			Mode: v1alpha1.CheckpointFrozen, Volumes: []string{"scratch"}, Step: v1alpha1.StepCopy, Attempt: 1,
			Source:      &v1alpha1.SourceReport{Node: nodeA, Attempt: 1, Phase: v1alpha1.SourceCopied, Pass: 1},
			Destination: &v1alpha1.DestinationReport{Node: nodeB, Attempt: 1, Phase: v1alpha1.DestinationWarm, Pass: 1},
		},
	}
	if change != nil {
		change(&m.Status)
	}
	must(t, asRebalancer(t).Status().Update(t.Context(), m))
	return m
}

// asRebalancer writes for the rebalancer what a test gives, with more rights than it has.
func asRebalancer(t *testing.T) client.Client {
	t.Helper()
	return userNamed(t, rebalancerAccount)
}

func TestAgentsReportOfTheirNodesAlone(t *testing.T) {
	t.Parallel()
	const policy, third = "ai-storage-node-agent-reports", "node-of-nobody"
	namespace := newNamespace(t)
	a, b, c, unbound := agentOn(t, nodeA), agentOn(t, nodeB), agentOn(t, third), agentOn(t, "")
	source := func(node string, phase v1alpha1.SourcePhase) func(*v1alpha1.PodMigrationStatus) {
		return func(s *v1alpha1.PodMigrationStatus) {
			now := metav1.NowMicro()
			s.Checkpoint.Source = &v1alpha1.SourceReport{
				Node: node, Attempt: 1, Phase: phase, Pass: 2, Files: 3, FrozenAt: &now, SealedAt: &now,
				Reason: "FreezeTooLong", Message: "it took too long", ManifestDigest: "sha256:" + strings.Repeat("0a", 32),
			}
		}
	}
	destination := func(node string, phase v1alpha1.DestinationPhase) func(*v1alpha1.PodMigrationStatus) {
		return func(s *v1alpha1.PodMigrationStatus) {
			s.Checkpoint.Destination = &v1alpha1.DestinationReport{Node: node, Attempt: 1, Phase: phase, PodUID: s.Replacement.UID, Pass: 2}
		}
	}
	elsewhere := func(s *v1alpha1.PodMigrationStatus) { s.Original.NodeName, s.Replacement.NodeName = third, nodeB }
	// Expressions have a limit of their cost.
	large := func(s *v1alpha1.PodMigrationStatus) {
		s.Checkpoint.Manifest = strings.Repeat("m", 256<<10)
		for i := range 500 {
			name := fmt.Sprint("c", i)
			s.Checkpoint.Volumes = append(s.Checkpoint.Volumes, name)
			s.Containers = append(s.Containers, v1alpha1.ContainerVerdict{Name: name, Kind: v1alpha1.KindContainer, State: v1alpha1.StateRunning, ShouldMigrate: true, Reason: "Running", Message: strings.Repeat("x", 100)})
		}
	}
	stopsFirst := func(s *v1alpha1.PodMigrationStatus) {
		s.Placeholder = &v1alpha1.PodReference{Name: "p", UID: "0b8f2c1e-0000-4000-8000-000000000003", NodeName: nodeB}
		s.Replacement = &v1alpha1.PodReference{Name: "web"}
		s.Checkpoint.Destination = nil
	}
	tests := []struct {
		name  string
		agent client.Client
		given func(*v1alpha1.PodMigrationStatus)
		write func(*v1alpha1.PodMigrationStatus)
		want  []string
	}{
		{"source, thawed", a, nil, source(nodeA, v1alpha1.SourceThawed), nil},
		{"source, sealed", a, nil, source(nodeA, v1alpha1.SourceSealed), nil},
		{"source, failed", a, nil, source(nodeA, v1alpha1.SourceFailed), nil},
		{"source, the first report", a, func(s *v1alpha1.PodMigrationStatus) { s.Checkpoint.Source, s.Checkpoint.Destination = nil, nil }, source(nodeA, v1alpha1.SourceMeasured), nil},
		{"destination, restored", b, nil, destination(nodeB, v1alpha1.DestinationRestored), nil},
		{"destination, the first report", b, func(s *v1alpha1.PodMigrationStatus) { s.Checkpoint.Destination = nil }, destination(nodeB, v1alpha1.DestinationRestoring), nil},
		{"destination after another node's", b, destination(third, v1alpha1.DestinationWarm), destination(nodeB, v1alpha1.DestinationWarm), nil},
		{"destination, for the placeholder", b, stopsFirst, destination(nodeB, v1alpha1.DestinationWarm), nil},

		{"source of a large status", a, large, source(nodeA, v1alpha1.SourceSealed), nil},

		{"the other's half: source writes destination", a, nil, destination(nodeA, v1alpha1.DestinationRestored),
			[]string{`the node agent of node-a may not write status.checkpoint.destination: replacement or placeholder are on node "node-b" and the report names node "node-a"`}},
		{"the other's half: destination writes source", b, nil, source(nodeB, v1alpha1.SourceSealed),
			[]string{`the node agent of node-b may not write status.checkpoint.source: the original is on node "node-a" and the report names node "node-b"`}},
		{"in the name of the other: source", b, nil, source(nodeA, v1alpha1.SourceSealed), []string{"may not write status.checkpoint.source"}},
		{"in the name of the other: destination", a, nil, destination(nodeB, v1alpha1.DestinationRestored), []string{"may not write status.checkpoint.destination"}},
		{"its half with another node", a, nil, source(nodeB, v1alpha1.SourceSealed), []string{`the report names node "node-b"`}},
		{"both halves", a, nil, func(s *v1alpha1.PodMigrationStatus) {
			source(nodeA, v1alpha1.SourceSealed)(s)
			destination(nodeB, v1alpha1.DestinationRestored)(s)
		}, []string{"may not write status.checkpoint.destination"}},
		{"its half removed", a, nil, func(s *v1alpha1.PodMigrationStatus) { s.Checkpoint.Source = nil }, []string{`the report names node ""`}},
		{"the other's half removed", a, nil, func(s *v1alpha1.PodMigrationStatus) { s.Checkpoint.Destination = nil }, []string{"may not write status.checkpoint.destination"}},
		{"the checkpoint removed", a, nil, func(s *v1alpha1.PodMigrationStatus) { s.Checkpoint = nil }, []string{"may not change status.checkpoint.", "attempt", "volumes"}},
		{"destination without a node yet", b, func(s *v1alpha1.PodMigrationStatus) { s.Replacement, s.Checkpoint.Destination = nil, nil }, func(s *v1alpha1.PodMigrationStatus) {
			s.Checkpoint.Destination = &v1alpha1.DestinationReport{Node: nodeB, Attempt: 1, Phase: v1alpha1.DestinationWarm}
		}, []string{`replacement or placeholder are on node ""`}},

		{"orders: step", a, nil, func(s *v1alpha1.PodMigrationStatus) { s.Checkpoint.Step = v1alpha1.StepRelease }, []string{"the node agent of node-a", "may not change status.checkpoint.step"}},
		{"orders: volumes", a, nil, func(s *v1alpha1.PodMigrationStatus) { s.Checkpoint.Volumes = []string{"other"} }, []string{"may not change status.checkpoint.volumes"}},
		{"orders: processes", a, nil, func(s *v1alpha1.PodMigrationStatus) { s.Checkpoint.Processes = []string{"c"} }, []string{"may not change status.checkpoint.processes"}},
		{"another field: phase and message", a, nil, func(s *v1alpha1.PodMigrationStatus) { s.Phase, s.Message = v1alpha1.PhaseSucceeded, "" }, []string{"status.phase", "status.message"}},
		{"another field: conditions", b, nil, func(s *v1alpha1.PodMigrationStatus) { s.Conditions[0].Status = metav1.ConditionFalse }, []string{"status.conditions"}},
		{"another field: original", b, nil, func(s *v1alpha1.PodMigrationStatus) { s.Original.NodeName = nodeB }, []string{"status.original"}},
		{"another field beside its half", a, nil, func(s *v1alpha1.PodMigrationStatus) {
			source(nodeA, v1alpha1.SourceSealed)(s)
			s.Replacement.NodeName = nodeA
		}, []string{"status.replacement"}},

		{"another migration: source", a, elsewhere, source(nodeA, v1alpha1.SourceSealed), []string{`the original is on node "node-of-nobody"`}},
		{"another migration: destination", a, elsewhere, destination(nodeA, v1alpha1.DestinationWarm), []string{`are on node "node-b"`}},
		{"a third node: source", c, nil, source(third, v1alpha1.SourceThawed), []string{"the node agent of node-of-nobody may not write status.checkpoint.source"}},
		{"a third node: destination", c, nil, destination(third, v1alpha1.DestinationRestored), []string{"the node agent of node-of-nobody may not write status.checkpoint.destination"}},
		{"before it was accepted", a, func(s *v1alpha1.PodMigrationStatus) { *s = v1alpha1.PodMigrationStatus{} }, func(s *v1alpha1.PodMigrationStatus) {
			s.Checkpoint = &v1alpha1.CheckpointStatus{Mode: v1alpha1.CheckpointFrozen, Source: &v1alpha1.SourceReport{Node: nodeA, Attempt: 1, Phase: v1alpha1.SourceSealed}}
		}, []string{"may not change status.checkpoint.mode"}},
		{"a token that names no node", unbound, nil, source(nodeA, v1alpha1.SourceThawed), []string{"must be bound to its pod", "authentication.kubernetes.io/node-name"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			m := halfway(t, namespace, test.given)
			base := m.DeepCopy()
			test.write(&m.Status)
			// As the agents report.
			err := test.agent.Status().Patch(t.Context(), m, client.MergeFromWithOptions(base, client.MergeFromWithOptimisticLock{}))
			wantDenied(t, err, policy, test.want...)
		})
	}
}

// What a status patch says of metadata and spec is ignored by the API server.
func TestAgentsDoNotChangeMetadata(t *testing.T) {
	t.Parallel()
	m := halfway(t, newNamespace(t), nil)
	base := m.DeepCopy()
	m.Labels, m.Annotations, m.Finalizers = map[string]string{"a": "b"}, map[string]string{"a": "b"}, []string{"a.b/c"}
	m.Spec.Cancel, m.Status.Checkpoint.Source.Pass = true, 7
	must(t, agentOn(t, nodeA).Status().Patch(t.Context(), m, client.MergeFrom(base)))
	stored := &v1alpha1.PodMigration{}
	must(t, k8s.Get(t.Context(), client.ObjectKeyFromObject(base), stored))
	if stored.Labels != nil || stored.Annotations != nil || stored.Finalizers != nil || stored.Spec.Cancel || stored.Status.Checkpoint.Source.Pass != 7 {
		t.Errorf("stored: %+v", stored)
	}
}

func TestOthersWriteNoStatus(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t)
	m := halfway(t, namespace, nil)
	base := m.DeepCopy()
	m.Status.Checkpoint.Source.Phase = v1alpha1.SourceSealed
	err := tenant(t, namespace).Status().Patch(t.Context(), m, client.MergeFrom(base))
	wantDenied(t, err, "ai-storage-migration-status", "only the rebalancer and the node agents write the status of a PodMigration, not system:serviceaccount:"+namespace+":tenant", "spec.cancel")
}

func TestAgentsWriteTwoKeysOfTheirNode(t *testing.T) {
	t.Parallel()
	const policy = "ai-storage-node-agent-nodes"
	a, unbound := agentOn(t, nodeA), agentOn(t, "")
	// A patch of an object that does not change is no update, so each gives a value of its own.
	capability := func(n *corev1.Node) {
		metav1.SetMetaDataLabel(&n.ObjectMeta, v1alpha1.ProcessNodeLabel, "true")
		metav1.SetMetaDataAnnotation(&n.ObjectMeta, v1alpha1.ProcessVersionsAnnotation, t.Name())
	}
	tests := []struct {
		name  string
		agent client.Client
		node  string
		write func(*corev1.Node)
		want  []string
	}{
		{"its keys", a, nodeA, capability, nil},
		{"its keys change", a, nodeA, func(n *corev1.Node) {
			n.Labels[v1alpha1.ProcessNodeLabel], n.Annotations[v1alpha1.ProcessVersionsAnnotation] = "false", "none: x"
		}, nil},
		{"its keys go", a, nodeA, func(n *corev1.Node) {
			delete(n.Labels, v1alpha1.ProcessNodeLabel)
			delete(n.Annotations, v1alpha1.ProcessVersionsAnnotation)
		}, nil},
		{"another node", a, nodeB, capability, []string{"the node agent of node-a may not write to node node-b"}},
		{"a taint", a, nodeA, func(n *corev1.Node) {
			n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: "a", Effect: corev1.TaintEffectNoExecute})
		}, []string{"the node agent of node-a", "may not change spec"}},
		{"schedulable again", a, nodeA, func(n *corev1.Node) { n.Spec.Unschedulable = false }, []string{"may not change spec"}},
		{"another label", a, nodeA, func(n *corev1.Node) { metav1.SetMetaDataLabel(&n.ObjectMeta, "pool", "secret") }, []string{"may not change label pool"}},
		{"another label beside its keys", a, nodeA, func(n *corev1.Node) {
			capability(n)
			metav1.SetMetaDataLabel(&n.ObjectMeta, "pool", "secret")
		}, []string{"may not change label pool"}},
		{"another annotation", a, nodeA, func(n *corev1.Node) { metav1.SetMetaDataAnnotation(&n.ObjectMeta, "a", "b") }, []string{"may not change annotation a"}},
		{"a label less", a, nodeA, func(n *corev1.Node) { delete(n.Labels, corev1.LabelHostname) }, []string{"may not change label kubernetes.io/hostname"}},
		{"a finalizer", a, nodeA, func(n *corev1.Node) { n.Finalizers = append(n.Finalizers, "a.b/c") }, []string{"may not change metadata.finalizers"}},
		{"a token that names no node", unbound, nodeA, capability, []string{"must be bound to its pod"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			node := &corev1.Node{}
			must(t, k8s.Get(t.Context(), client.ObjectKey{Name: test.node}, node))
			base := node.DeepCopy()
			test.write(node)
			wantDenied(t, test.agent.Patch(t.Context(), node, client.MergeFrom(base)), policy, test.want...)
		})
	}
}
