// Package rights compares the rights that the manifests give to our programs with
// those that they use by the API server's audit log.
package rights

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// Programs are ours: the user that each is, and the file of its rights in
// manifests/base.
var Programs = []struct{ User, File string }{
	{"system:serviceaccount:ai-storage-system:ai-storage-scheduler", "scheduler-rbac.yaml"},
	{"system:serviceaccount:ai-storage-system:ai-storage-rebalancer", "rebalancer-rbac.yaml"},
	{"system:serviceaccount:ai-storage-node-agent:ai-storage-node-agent", "node-agent-rbac.yaml"},
}

// Right is a verb on a resource of a group. A subresource is named as RBAC names
// it, like pods/eviction.
type Right struct{ Group, Resource, Verb string }

func (r Right) String() string {
	if r.Group == "" {
		return r.Verb + " " + r.Resource
	}
	return r.Verb + " " + r.Resource + "." + r.Group
}

// Set of rights.
type Set map[Right]bool

// Sorted returns the rights in order.
func (s Set) Sorted() []Right {
	sorted := make([]Right, 0, len(s))
	for right := range s {
		sorted = append(sorted, right)
	}
	slices.SortFunc(sorted, func(a, b Right) int { return strings.Compare(a.String(), b.String()) })
	return sorted
}

// Granted returns what the roles in a YAML stream grant. Names of resources
// are not looked at. A wildcard is an error.
func Granted(manifest []byte) (Set, error) {
	granted := Set{}
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(manifest), 4096)
	for {
		var role rbacv1.ClusterRole // a Role has the same fields
		if err := decoder.Decode(&role); errors.Is(err, io.EOF) {
			return granted, nil
		} else if err != nil {
			return nil, fmt.Errorf("read roles: %w", err)
		}
		if role.Kind != "ClusterRole" && role.Kind != "Role" {
			continue
		}
		for _, rule := range role.Rules {
			if slices.Contains(slices.Concat(rule.APIGroups, rule.Resources, rule.Verbs), "*") {
				return nil, fmt.Errorf("%s %s grants everything of something: %v", role.Kind, role.Name, rule)
			}
			for _, group := range rule.APIGroups {
				for _, resource := range rule.Resources {
					for _, verb := range rule.Verbs {
						granted[Right{group, resource, verb}] = true
					}
				}
			}
		}
	}
}

// Use is what the audit log records of one program.
type Use struct {
	User string
	// Granted are the rights of its own roles. What Kubernetes' own roles grant
	// that it is bound to is not among them.
	Granted Set
	Used    Set
	// Forbidden are requests that were refused for want of a right.
	Forbidden Set
}

// Unused are the rights that were granted and not used, in order. To list what is
// watched is used by a client of an older API server, which cannot begin a watch with
// what is there.
func (u *Use) Unused() []Right {
	unused := Set{}
	for right := range u.Granted {
		watch := Right{right.Group, right.Resource, "watch"}
		if !u.Used[right] && (right.Verb != "list" || !u.Used[watch]) {
			unused[right] = true
		}
	}
	return unused.Sorted()
}

// Compare reads the rights of our programs, and an audit log from a byte of it on.
func Compare(manifestsDir, auditLog string, from int64) ([]*Use, error) {
	log, err := os.Open(auditLog)
	if err != nil {
		return nil, fmt.Errorf("rights: %w", err)
	}
	defer log.Close()
	if _, err := log.Seek(from, io.SeekStart); err != nil {
		return nil, fmt.Errorf("rights: %s: %w", auditLog, err)
	}
	var uses []*Use
	for _, program := range Programs {
		manifest, err := os.ReadFile(filepath.Join(manifestsDir, "base", program.File))
		if err != nil {
			return nil, fmt.Errorf("rights: %w", err)
		}
		granted, err := Granted(manifest)
		if err != nil {
			return nil, fmt.Errorf("rights: %s: %w", program.File, err)
		}
		uses = append(uses, &Use{User: program.User, Granted: granted, Used: Set{}, Forbidden: Set{}})
	}
	if err := addUses(uses, log); err != nil {
		return nil, fmt.Errorf("rights: %s: %w", auditLog, err)
	}
	return uses, nil
}

type event struct {
	Verb      string
	User      struct{ Username string }
	ObjectRef *struct{ APIGroup, Resource, Subresource string }
	// Annotations tell what the authorizer decided.
	Annotations map[string]string
}

// addUses reads an audit log. Its last line may still be being written.
func addUses(uses []*Use, log io.Reader) error {
	lines := bufio.NewScanner(log)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil || e.ObjectRef == nil {
			continue
		}
		i := slices.IndexFunc(uses, func(u *Use) bool { return u.User == e.User.Username })
		if i < 0 {
			continue
		}
		resource := e.ObjectRef.Resource
		if e.ObjectRef.Subresource != "" {
			resource += "/" + e.ObjectRef.Subresource
		}
		right := Right{e.ObjectRef.APIGroup, resource, e.Verb}
		if e.Annotations["authorization.k8s.io/decision"] == "forbid" {
			uses[i].Forbidden[right] = true
			continue
		}
		uses[i].Used[right] = true
	}
	return lines.Err()
}
