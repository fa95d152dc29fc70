// Package pki makes the certificate authorities and certificates of a local
// cluster, in memory. It must not read or write files, and it is not meant
// for a cluster that anybody else can reach: keys live as files beside the
// processes that use them, and nothing renews or revokes.
package pki
