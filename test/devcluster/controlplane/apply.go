package controlplane

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
)

const fieldManager = "devcluster"

// manifestOrder are the parts of a manifests directory that programs need which run
// outside of the cluster, in the order in which they are applied.
var manifestOrder = []string{
	"namespace.yaml", "crd", "base/scheduler-rbac.yaml", "base/rebalancer-rbac.yaml", "base/webhook.yaml", "base/policies.yaml", "base/roles.yaml",
}

// Applier applies manifests with server-side apply.
type Applier struct {
	client dynamic.Interface
	mapper *restmapper.DeferredDiscoveryRESTMapper
}

// NewApplier returns an applier with the rights of config.
func NewApplier(config *rest.Config) (*Applier, error) {
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	discoveryClient, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(discoveryClient))
	return &Applier{client: client, mapper: mapper}, nil
}

// ApplyDirectory applies what a user of the product applies, but for what makes
// pods. Parts that are not there are skipped. It returns the number of objects.
func (a *Applier) ApplyDirectory(ctx context.Context, directory string) (int, error) {
	if _, err := os.Stat(directory); err != nil {
		return 0, fmt.Errorf("manifests: %w", err)
	}
	total := 0
	for _, part := range manifestOrder {
		files, err := manifestFiles(filepath.Join(directory, part))
		if err != nil {
			return total, fmt.Errorf("manifests: %w", err)
		}
		for _, file := range files {
			content, err := os.ReadFile(file)
			if err != nil {
				return total, fmt.Errorf("manifests: %w", err)
			}
			applied, err := a.Apply(ctx, content)
			total += applied
			if err != nil {
				return total, fmt.Errorf("manifests: %s: %w", file, err)
			}
		}
	}
	return total, nil
}

func manifestFiles(path string) ([]string, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	files, err := filepath.Glob(filepath.Join(path, "*.yaml"))
	sort.Strings(files)
	return files, err
}

// Apply applies the objects of a YAML stream in their order and returns their
// number. It waits until a CRD is served.
func (a *Applier) Apply(ctx context.Context, manifest []byte) (int, error) {
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(manifest), 4096)
	for count := 0; ; {
		object := &unstructured.Unstructured{}
		if err := decoder.Decode(&object.Object); errors.Is(err, io.EOF) {
			return count, nil
		} else if err != nil {
			return count, fmt.Errorf("read manifest: %w", err)
		}
		if len(object.Object) == 0 {
			continue
		}
		if err := a.applyObject(ctx, object); err != nil {
			return count, fmt.Errorf("apply %s %s: %w", object.GetKind(), object.GetName(), err)
		}
		count++
	}
}

func (a *Applier) applyObject(ctx context.Context, object *unstructured.Unstructured) error {
	kind := object.GroupVersionKind()
	mapping, err := a.mapper.RESTMapping(kind.GroupKind(), kind.Version)
	if err != nil {
		return err
	}
	var client dynamic.ResourceInterface = a.client.Resource(mapping.Resource)
	if mapping.Scope.Name() == meta.RESTScopeNameNamespace {
		client = a.client.Resource(mapping.Resource).Namespace(object.GetNamespace())
	}
	options := metav1.ApplyOptions{FieldManager: fieldManager, Force: true}
	if _, err := client.Apply(ctx, object.GetName(), object, options); err != nil {
		return err
	}
	if kind.Kind != "CustomResourceDefinition" {
		return nil
	}
	a.mapper.Reset()
	return wait.PollUntilContextTimeout(ctx, 100*time.Millisecond, 30*time.Second, true, func(ctx context.Context) (bool, error) {
		latest, err := client.Get(ctx, object.GetName(), metav1.GetOptions{})
		return err == nil && isEstablished(latest), nil
	})
}

func isEstablished(definition *unstructured.Unstructured) bool {
	conditions, _, _ := unstructured.NestedSlice(definition.Object, "status", "conditions")
	for _, condition := range conditions {
		if fields, ok := condition.(map[string]any); ok && fields["type"] == "Established" {
			return fields["status"] == "True"
		}
	}
	return false
}
