package main

// mutants are the promises that a reading of the tests found unguarded, and
// others of their kind. Add one with each defect that a test had not noticed.
var mutants = []mutant{
	{
		name: "a node takes pods in up to the threshold itself",
		file: "pkg/scheduling/planner/options.go",
		text: "const fillShare = 0.95", changed: "const fillShare = 1.0",
	},
}
