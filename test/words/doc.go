// Package words holds the list of words that must not come back: they were names
// of our own for things that have a name in Kubernetes and its field. The test
// reads all tracked text: documents, comments, identifiers, messages, manifests.
//
// To add a word, add a row with what to say instead, and two examples. What is
// right in one place for a reason is allowed there, and the reason is given.
package words
