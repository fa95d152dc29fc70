// Package documents holds the documents to what they say: links lead somewhere,
// examples parse, every setting is described with its real default and range,
// and the effects of settings are those that the real loop shows.
package documents
