package image

import "path/filepath"

// References of the images. Their tag is not "latest", which kubelets would
// want to pull.
const (
	// PauseReference is the image of every pod's sandbox on real nodes.
	PauseReference = "docker.io/ai-storage/pause:dev"
	// WorkloadReference is the image of pods in demos and tests.
	WorkloadReference = "docker.io/ai-storage/workload:dev"

	SchedulerReference  = "docker.io/ai-storage/scheduler:dev"
	RebalancerReference = "docker.io/ai-storage/rebalancer:dev"
	// NodeAgentReference is the image of the DaemonSet, of the gate in
	// replacements, and of placeholders.
	NodeAgentReference = "docker.io/ai-storage/node-agent:dev"
)

// nonRoot is the user that product images run as.
const nonRoot = "65532:65532"

type entry struct {
	archive, reference string
	// binary is in the directory of binaries and becomes /<binary>, as does extra, if any.
	binary    string
	extra     string
	arguments []string
	user      string
}

// nodeAgent runs as root: it reads every pod's volumes. In the pods of users it is
// given another user. It brings the wrapper of runc, which it installs on its node.
var nodeAgent = entry{archive: "node-agent.tar", reference: NodeAgentReference, binary: "node-agent", extra: "oci-runtime"}

// localEntries run as root: what is written to a host-path volume of the local
// cluster is root's alone.
var localEntries = []entry{
	{archive: "pause.tar", reference: PauseReference, binary: "workload", arguments: []string{"pause"}},
	{archive: "workload.tar", reference: WorkloadReference, binary: "workload"},
	nodeAgent,
}

var productEntries = []entry{
	{archive: "scheduler.tar", reference: SchedulerReference, binary: "scheduler", user: nonRoot},
	{archive: "rebalancer.tar", reference: RebalancerReference, binary: "rebalancer", user: nonRoot},
	nodeAgent,
}

// BuildLocal writes the images that real nodes need to run pods of demos and
// tests, from <binDir>/workload and <binDir>/node-agent, and returns the paths of the archives.
func BuildLocal(binDir, outDir string) ([]string, error) {
	var archives []string
	for _, e := range localEntries {
		archive := filepath.Join(outDir, e.archive)
		if err := e.contents(binDir).Write(archive, e.reference); err != nil {
			return nil, err
		}
		archives = append(archives, archive)
	}
	return archives, nil
}

// programs are those in the image.
func (e entry) programs() []string {
	if e.extra == "" {
		return []string{e.binary}
	}
	return []string{e.binary, e.extra}
}

func (e entry) contents(binDir string) Contents {
	binaries := map[string]string{}
	for _, program := range e.programs() {
		binaries["/"+program] = filepath.Join(binDir, program)
	}
	return Contents{
		Binaries:   binaries,
		Entrypoint: append([]string{"/" + e.binary}, e.arguments...),
		User:       e.user,
	}
}
