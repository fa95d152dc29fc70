// Package roadef reads instances of the ROADEF/EURO challenge 2012 (Google
// machine reassignment), writes solutions in the challenge's format, and
// checks them. The checker is written from the challenge's text and shares no
// evaluation with pkg/scheduling/reassignment, so that one can find the other's faults.
package roadef
