// Package planner turns a snapshot into a plan: an ordered list of moves with
// the load that is predicted before and after them. It decides and never acts:
// no API, no clock, no randomness. The same snapshot, options and answers of
// the Feasibility give the same plan, byte for byte.
//
// The model is the load term of Google's machine reassignment problem
// (ROADEF/EURO challenge 2012): what a node uses above its safe level costs
// most, imbalance costs a little, and every move has a price.
package planner
