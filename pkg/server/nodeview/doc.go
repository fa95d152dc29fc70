// Package nodeview shows nodes as users look at them: what they can give, what
// is asked of them, what they really use, and what finished containers still
// hold. It must not call an API server, read a clock or log.
package nodeview
