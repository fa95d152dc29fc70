package pods

import "unicode/utf8"

// MaxEventNote is how many bytes the note of an event may have (events.k8s.io/v1).
const MaxEventNote = 1024

// ellipsis ends a text that was cut.
const ellipsis = "…"

// Truncate returns a text of at most limit bytes: the text itself, or as many of its
// first characters as fit before an ellipsis. No character is cut in two. Below the
// three bytes of the ellipsis nothing is left.
func Truncate(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	end := limit - len(ellipsis)
	if end < 0 {
		return ""
	}
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + ellipsis
}
