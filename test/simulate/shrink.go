package simulate

import "regexp"

// Shrink drops the disturbances that a violation does not need, one by one, and returns
// the run that is left, with its trace.
func Shrink(o Options, found Result) Result {
	kept := make([]int, 0, len(found.Disturbances))
	if o.Only != nil {
		kept = append(kept, o.Only...)
	} else {
		for i := range found.Disturbances {
			kept = append(kept, i)
		}
	}
	for again := true; again; {
		again = false
		for i := range kept {
			fewer := append(append([]int{}, kept[:i]...), kept[i+1:]...)
			o.Only = fewer
			if r := Run(o); r.Violation != nil && kindOfViolation(r) == kindOfViolation(found) {
				kept, again = fewer, true
				break
			}
		}
	}
	o.Only, o.Trace = kept, true
	return Run(o)
}

var digits = regexp.MustCompile(`[0-9]+|leader-[12]`)

// kindOfViolation is the same for two violations that only differ in numbers.
func kindOfViolation(r Result) string {
	return string(r.Violation.Invariant) + digits.ReplaceAllString(r.Violation.What, "")
}
