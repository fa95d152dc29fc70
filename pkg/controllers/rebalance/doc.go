// Package rebalance is the loop that acts without being asked: observe, plan,
// validate, create PodMigrations. It waits for nothing but its next turn; how a
// migration continues is the business of package migration.
package rebalance
