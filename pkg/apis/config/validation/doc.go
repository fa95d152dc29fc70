// Package validation checks the plugin arguments after defaults were filled
// in. It is called by the plugins, since the scheduler validates Kubernetes'
// own only, and by the loader of the rebalancer. Whatever takes validated
// arguments trusts them.
package validation
