// Package rebalance is the loop that acts without being asked: observe, plan,
// validate, create PodMigrations. It waits for nothing but its next turn; how a
// migration goes on is the business of package migration.
package rebalance
