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
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
)

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

// Use is what the audit log tells of one user.
type Use struct {
	Used Set
	// Forbidden are requests that were refused for want of a right.
	Forbidden Set
}

type event struct {
	Verb      string
	User      struct{ Username string }
	ObjectRef *struct{ APIGroup, Resource, Subresource string }
	// Annotations tell what the authorizer decided.
	Annotations map[string]string
}

// Uses reads an audit log: what each of the users asked for and what was refused.
// The last line may still be being written.
func Uses(log io.Reader, users ...string) (map[string]*Use, error) {
	uses := map[string]*Use{}
	for _, user := range users {
		uses[user] = &Use{Used: Set{}, Forbidden: Set{}}
	}
	lines := bufio.NewScanner(log)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil || e.ObjectRef == nil || uses[e.User.Username] == nil {
			continue
		}
		resource := e.ObjectRef.Resource
		if e.ObjectRef.Subresource != "" {
			resource += "/" + e.ObjectRef.Subresource
		}
		right := Right{e.ObjectRef.APIGroup, resource, e.Verb}
		use := uses[e.User.Username]
		if e.Annotations["authorization.k8s.io/decision"] == "forbid" {
			use.Forbidden[right] = true
			continue
		}
		use.Used[right] = true
	}
	return uses, lines.Err()
}
