//go:build e2e

package e2e

import (
	"bufio"
	"encoding/json"
	"os"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// checkNeverNamedANode proves from the audit log of the API server that the
// replacement was created without a node and bound by the scheduler.
func checkNeverNamedANode(t testing.TB, pod *corev1.Pod) {
	t.Helper()
	created, bound := auditOf(t, pod)
	if len(created) != 1 {
		t.Fatalf("the audit log has %d creations of the replacement, want 1", len(created))
	}
	var request corev1.Pod
	if err := json.Unmarshal(created[0].RequestObject, &request); err != nil {
		t.Fatal(err)
	}
	if request.Spec.NodeName != "" {
		t.Errorf("the replacement was created with nodeName %q", request.Spec.NodeName)
	}
	if len(request.Spec.Containers) == 0 {
		t.Error("the audit log does not hold the request: the check proves nothing")
	}
	if len(bound) != 1 || bound[0].User.Username != "system:serviceaccount:ai-storage-system:ai-storage-scheduler" {
		t.Errorf("bindings in the audit log: %+v", bound)
	}
	t.Logf("audit: created by %s with nodeName %q, bound by %s", created[0].User.Username, request.Spec.NodeName, bound[0].User.Username)
}

type auditEvent struct {
	Stage     string
	Verb      string
	User      struct{ Username string }
	ObjectRef struct{ Resource, Namespace, Name, Subresource string }

	RequestObject  json.RawMessage
	ResponseObject struct {
		Metadata struct{ Name string }
	}
	ResponseStatus struct{ Code int }
}

// auditOf returns the successful creations and bindings of a pod.
func auditOf(t testing.TB, pod *corev1.Pod) (created, bound []auditEvent) {
	t.Helper()
	file, err := os.Open(env.cluster.AuditLogPath())
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e auditEvent
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			continue // the last line may still be being written
		}
		isOurs := e.Stage == "ResponseComplete" && e.Verb == "create" && e.ResponseStatus.Code < 300 &&
			e.ObjectRef.Resource == "pods" && e.ObjectRef.Namespace == pod.Namespace
		switch {
		case isOurs && e.ObjectRef.Subresource == "" && e.ResponseObject.Metadata.Name == pod.Name:
			created = append(created, e)
		case isOurs && e.ObjectRef.Subresource == "binding" && e.ObjectRef.Name == pod.Name:
			bound = append(bound, e)
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return created, bound
}
