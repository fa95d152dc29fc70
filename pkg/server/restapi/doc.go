// Package restapi serves PodMigrations over HTTP, for scripts and for the page.
//
// It keeps nothing: what it answers is read from the API server or from the caches
// of its process, and what it is asked to do becomes a PodMigration, which the
// migration controller carries out. So any replica can answer, and nothing is lost
// when one dies: a POST is answered with 202 only after its PodMigration is stored.
//
// openapi.yaml is the contract. Tests hold every request and answer against it, and
// compare its paths and fields with the routes and types here.
package restapi
