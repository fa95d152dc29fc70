package simulate

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	jsonpatch "github.com/evanphx/json-patch/v5"
	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	policyv1 "k8s.io/api/policy/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// errNotModelled is for what the product does not call.
var errNotModelled = errors.New("the simulation has no model of this call")

// apiClient is the client of an actor. Each call gives way before it takes effect, and
// after that.
type apiClient struct {
	w *world
	// cached serves lists of migrations, as the cache of a manager does.
	cached *cache
}

// call runs a call of the running process: the request is on its way, takes effect,
// and the answer is on its way. What the process meets there is in the fault plan.
func (w *world) call(verb string, effect func() error) error {
	p := w.running
	if p == nil {
		panic("a call to the API server outside of a process: " + verb)
	}
	if p.calls != nil {
		*p.calls++
	}
	w.statistic.Calls++
	fault := w.faults.next(p, verb)
	p.sleep(w.latency())
	if fault != nil && fault.meet(w, p, verb, beforeEffect) {
		return fault.err()
	}
	var err error
	actor := w.actorOf(p)
	w.as(actor, func() { err = effect() })
	if err != nil && w.traced && !apierrors.IsNotFound(err) {
		w.say(actor, "is answered to %s: %v", verb, err)
	}
	p.sleep(w.latency())
	if fault != nil && fault.meet(w, p, verb, afterEffect) {
		return fault.err()
	}
	return err
}

// actorOf names the actor of a process, and says whether a leader still has the lease.
func (w *world) actorOf(p *process) string {
	for _, l := range w.leaders {
		if l.process == p && !l.leads {
			return p.name + " (stale)"
		}
	}
	return p.name
}

// latency is that of one way to the API server.
func (w *world) latency() time.Duration { return w.between(200*time.Microsecond, 8*time.Millisecond) }

// Get implements client.Reader.
func (c *apiClient) Get(_ context.Context, key client.ObjectKey, into client.Object, _ ...client.GetOption) error {
	return c.w.call("get "+key.Name, func() error {
		if object, isPlain := into.(*unstructured.Unstructured); isPlain {
			pod := &corev1.Pod{}
			stored := c.w.get(pods, key.Namespace, key.Name)
			if stored == nil {
				return notFound(pods, key.Name)
			}
			copyInto(stored, pod)
			return toPlain(pod, object)
		}
		if class, is := into.(*nodev1.RuntimeClass); is && key.Name == v1alpha1.ProcessRuntimeClass {
			class.Name, class.Handler = key.Name, v1alpha1.ProcessRuntimeClass
			return nil
		}
		if class, is := into.(*storagev1.StorageClass); is {
			if c.w.scenario.noClass || key.Name != standardClassName {
				return apierrors.NewNotFound(storagev1.Resource("storageclasses"), key.Name)
			}
			standardClass().DeepCopyInto(class)
			return nil
		}
		k := kindOf(into)
		if k == kinds {
			return errNotModelled
		}
		stored := c.w.get(k, key.Namespace, key.Name)
		if stored == nil {
			return notFound(k, key.Name)
		}
		copyInto(stored, into)
		return nil
	})
}

// Names of StorageClasses: the default one, and that of claims whose volumes users have made.
const (
	standardClassName = "standard"
	manualClassName   = "manual"
)

// standardClass is the default class, whose volumes are made where their first pod is.
func standardClass() *storagev1.StorageClass {
	return &storagev1.StorageClass{
		ObjectMeta:        metav1.ObjectMeta{Name: standardClassName, Annotations: map[string]string{"storageclass.kubernetes.io/is-default-class": "true"}},
		Provisioner:       "csi.example",
		VolumeBindingMode: ptr.To(storagev1.VolumeBindingWaitForFirstConsumer),
	}
}

// toPlain writes a pod as the API server answers it to a client without types.
func toPlain(pod *corev1.Pod, into *unstructured.Unstructured) error {
	fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(pod)
	if err != nil {
		return err
	}
	into.Object = fields
	into.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Pod"))
	return nil
}

// List implements client.Reader.
func (c *apiClient) List(_ context.Context, into client.ObjectList, options ...client.ListOption) error {
	o := client.ListOptions{}
	o.ApplyOptions(options)
	if list, is := into.(*v1alpha1.PodMigrationList); is && c.cached != nil {
		// A cache is read without a call.
		list.Items = c.cached.list(o)
		return nil
	}
	return c.w.call("list", func() error {
		switch into := into.(type) {
		case *corev1.PodList:
			into.Items = listed(c.w, pods, o, func(p *corev1.Pod) corev1.Pod { return *p.DeepCopy() })
		case *corev1.NodeList:
			into.Items = listed(c.w, nodes, o, func(n *corev1.Node) corev1.Node { return *n.DeepCopy() })
		case *v1alpha1.PodMigrationList:
			into.Items = listed(c.w, migrations, o, func(m *v1alpha1.PodMigration) v1alpha1.PodMigration { return *m.DeepCopy() })
		case *policyv1.PodDisruptionBudgetList:
			into.Items = listed(c.w, budgets, o, func(b *policyv1.PodDisruptionBudget) policyv1.PodDisruptionBudget { return *b.DeepCopy() })
		case *storagev1.StorageClassList:
			if !c.w.scenario.noClass {
				into.Items = []storagev1.StorageClass{*standardClass()}
			}
		case *corev1.EventList:
			// There is no autoscaler, and nobody else whose events are read.
		default:
			return errNotModelled
		}
		return nil
	})
}

func listed[P client.Object, T any](w *world, k kind, o client.ListOptions, copied func(P) T) (items []T) {
	each(w.store, k, func(object P) {
		if isListed(object, o) {
			items = append(items, copied(object))
		}
	})
	return items
}

func isListed(object client.Object, o client.ListOptions) bool {
	return (o.Namespace == "" || o.Namespace == object.GetNamespace()) && (o.LabelSelector == nil || o.LabelSelector.Matches(labelSet(object.GetLabels())))
}

// Create implements client.Writer.
func (c *apiClient) Create(_ context.Context, object client.Object, options ...client.CreateOption) error {
	o := client.CreateOptions{}
	o.ApplyOptions(options)
	return c.w.call("create "+object.GetName(), func() error {
		plain, isPlain := object.(*unstructured.Unstructured)
		if !isPlain {
			return c.w.admitAndCreate(object, slices.Contains(o.DryRun, metav1.DryRunAll))
		}
		pod := &corev1.Pod{}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(plain.Object, pod); err != nil {
			return err
		}
		if err := c.w.admitAndCreate(pod, slices.Contains(o.DryRun, metav1.DryRunAll)); err != nil {
			return err
		}
		return toPlain(pod, plain)
	})
}

// Delete implements client.Writer.
func (c *apiClient) Delete(_ context.Context, object client.Object, options ...client.DeleteOption) error {
	o := client.DeleteOptions{}
	o.ApplyOptions(options)
	return c.w.call("delete "+object.GetName(), func() error {
		return c.w.delete(kindOf(object), object.GetNamespace(), object.GetName(), preconditionsOf(o.Preconditions), o.GracePeriodSeconds, slices.Contains(o.DryRun, metav1.DryRunAll))
	})
}

func preconditionsOf(p *metav1.Preconditions) preconditions {
	if p == nil {
		return preconditions{}
	}
	found := preconditions{version: p.ResourceVersion}
	if p.UID != nil {
		found.uid = ptr.To(string(*p.UID))
	}
	return found
}

// Patch implements client.Writer.
func (c *apiClient) Patch(_ context.Context, object client.Object, patch client.Patch, _ ...client.PatchOption) error {
	return c.w.call("patch "+object.GetName(), func() error { return c.w.patch(object, patch, false) })
}

// patch applies a merge patch that a client made of an object. What is read at the
// version that is stored needs no merging.
func (w *world) patch(object client.Object, patch client.Patch, status bool) error {
	k := kindOf(object)
	stored := w.get(k, object.GetNamespace(), object.GetName())
	if stored == nil {
		return notFound(k, object.GetName())
	}
	becomes := object
	if object.GetResourceVersion() != stored.GetResourceVersion() {
		var err error
		if becomes, err = merged(stored, object, patch); err != nil {
			return err
		}
	}
	if err := w.update(becomes, status); err != nil {
		return err
	}
	if now := w.get(k, object.GetNamespace(), object.GetName()); now != nil {
		copyInto(now, object)
	}
	return nil
}

func merged(stored, object client.Object, patch client.Patch) (client.Object, error) {
	data, err := patch.Data(object)
	if err != nil {
		return nil, err
	}
	var sent metav1.PartialObjectMetadata
	if err := json.Unmarshal(data, &sent); err != nil {
		return nil, err
	}
	if sent.ResourceVersion != "" && sent.ResourceVersion != stored.GetResourceVersion() {
		return nil, conflict(stored, "the object has been modified; please apply your changes to the latest version and try again")
	}
	before, err := json.Marshal(stored)
	if err != nil {
		return nil, err
	}
	after, err := jsonpatch.MergePatch(before, data)
	if err != nil {
		return nil, err
	}
	becomes := newOf(stored)
	return becomes, json.Unmarshal(after, becomes)
}

// SubResource implements client.Client.
func (c *apiClient) SubResource(name string) client.SubResourceClient {
	return &subResource{c: c, name: name}
}

// Status implements client.Client.
func (c *apiClient) Status() client.SubResourceWriter { return &subResource{c: c, name: "status"} }

// subResource is the status of an object, or the eviction of a pod.
type subResource struct {
	c    *apiClient
	name string
}

// Create implements client.SubResourceWriter.
func (s *subResource) Create(_ context.Context, object, sub client.Object, _ ...client.SubResourceCreateOption) error {
	eviction, is := sub.(*policyv1.Eviction)
	if !is || s.name != "eviction" {
		return errNotModelled
	}
	o := ptr.Deref(eviction.DeleteOptions, metav1.DeleteOptions{})
	p := preconditionsOf(o.Preconditions)
	p.grace = o.GracePeriodSeconds
	return s.c.w.call("evict "+object.GetName(), func() error {
		return s.c.w.evict(object.GetNamespace(), object.GetName(), p, slices.Contains(o.DryRun, metav1.DryRunAll))
	})
}

// Patch implements client.SubResourceWriter.
func (s *subResource) Patch(_ context.Context, object client.Object, patch client.Patch, _ ...client.SubResourcePatchOption) error {
	return s.c.w.call("patch status of "+object.GetName(), func() error { return s.c.w.patch(object, patch, true) })
}

// Get implements client.SubResourceReader.
func (s *subResource) Get(context.Context, client.Object, client.Object, ...client.SubResourceGetOption) error {
	return errNotModelled
}

// Update implements client.SubResourceWriter.
func (s *subResource) Update(context.Context, client.Object, ...client.SubResourceUpdateOption) error {
	return errNotModelled
}

// Apply implements client.SubResourceWriter.
func (s *subResource) Apply(context.Context, runtime.ApplyConfiguration, ...client.SubResourceApplyOption) error {
	return errNotModelled
}

// Update implements client.Writer.
func (c *apiClient) Update(context.Context, client.Object, ...client.UpdateOption) error {
	return errNotModelled
}

// Apply implements client.Writer.
func (c *apiClient) Apply(context.Context, runtime.ApplyConfiguration, ...client.ApplyOption) error {
	return errNotModelled
}

// DeleteAllOf implements client.Writer.
func (c *apiClient) DeleteAllOf(context.Context, client.Object, ...client.DeleteAllOfOption) error {
	return errNotModelled
}

// Scheme implements client.Client.
func (c *apiClient) Scheme() *runtime.Scheme { return scheme }

// RESTMapper implements client.Client.
func (c *apiClient) RESTMapper() meta.RESTMapper { return nil }

// GroupVersionKindFor implements client.Client.
func (c *apiClient) GroupVersionKindFor(runtime.Object) (schema.GroupVersionKind, error) {
	return schema.GroupVersionKind{}, errNotModelled
}

// IsObjectNamespaced implements client.Client.
func (c *apiClient) IsObjectNamespaced(runtime.Object) (bool, error) { return true, errNotModelled }
