// Package kubectl is the command line, kubectl migrate: it creates migrations,
// follows them, and shows what the rebalancer sees and plans. It acts with the
// rights of the user who calls it and keeps nothing of its own: what it writes
// are PodMigrations, the ConfigMap that pauses the loop, and cordons.
package kubectl
