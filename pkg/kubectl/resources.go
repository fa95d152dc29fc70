package kubectl

import (
	"cmp"
	"fmt"
	"io"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// writeResources compares what original and replacement request and use, with
// the difference in percent of what was there before.
func writeResources(w io.Writer, before, after *v1alpha1.ResourceRecord) {
	table := newTable(w)
	fmt.Fprintln(table, "RESOURCE\tREQUESTED\tNOW\tSAVED\tUSED\tNOW\tSAVED")
	for _, name := range resourceNames(before, after) {
		fmt.Fprintf(table, "%s\t%s\t%s\n", name,
			compare(name, requestsIn(before), requestsIn(after), after != nil), compare(name, usageIn(before), usageIn(after), after != nil))
	}
	table.Flush()
	if source := sourceOf(before, after); source != "" {
		fmt.Fprintln(w, source)
	}
}

func requestsIn(r *v1alpha1.ResourceRecord) corev1.ResourceList {
	if r == nil {
		return nil
	}
	return r.Requests
}

func usageIn(r *v1alpha1.ResourceRecord) corev1.ResourceList {
	if r == nil {
		return nil
	}
	return r.Usage
}

// resourceNames are CPU, memory and the others by name.
func resourceNames(records ...*v1alpha1.ResourceRecord) []corev1.ResourceName {
	var names []corev1.ResourceName
	for _, r := range records {
		for _, list := range []corev1.ResourceList{requestsIn(r), usageIn(r)} {
			for name := range list {
				if !slices.Contains(names, name) {
					names = append(names, name)
				}
			}
		}
	}
	rank := func(name corev1.ResourceName) int {
		return slices.Index([]corev1.ResourceName{corev1.ResourceMemory, corev1.ResourceCPU}, name)
	}
	slices.SortFunc(names, func(a, b corev1.ResourceName) int { return cmp.Or(cmp.Compare(rank(b), rank(a)), cmp.Compare(a, b)) })
	return names
}

// compare writes three columns: before, after, and what is saved. What is not
// known is "-"; where there is a replacement, what it does not request is 0.
func compare(name corev1.ResourceName, before, after corev1.ResourceList, isThere bool) string {
	old, hadOld := before[name]
	now, hasNow := after[name]
	if !hasNow && isThere && hadOld && len(after) > 0 {
		now, hasNow = resource.Quantity{Format: old.Format}, true
	}
	columns := [2]string{"-", "-"}
	if hadOld {
		columns[0] = amount(name, old)
	}
	if hasNow {
		columns[1] = amount(name, now)
	}
	if !hadOld || !hasNow {
		return columns[0] + "\t" + columns[1] + "\t-"
	}
	saved := old.DeepCopy()
	saved.Sub(now)
	return fmt.Sprintf("%s\t%s\t%s (%s)", columns[0], columns[1], amount(name, saved), percentOf(saved.MilliValue(), old.MilliValue()))
}

// sourceOf says where the use comes from, if it is not known for both.
func sourceOf(before, after *v1alpha1.ResourceRecord) string {
	switch {
	case before == nil || after == nil:
		return ""
	case before.Source == v1alpha1.UsageUnavailable && after.Source == v1alpha1.UsageUnavailable:
		return "The use was not measured: metrics.k8s.io did not deliver."
	case before.Source == v1alpha1.UsageUnavailable:
		return "The use of the original was not measured: metrics.k8s.io did not deliver."
	case after.Source == v1alpha1.UsageUnavailable:
		return "The use of the replacement was not measured: metrics.k8s.io did not deliver in time."
	}
	return ""
}
