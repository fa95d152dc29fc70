package main

import (
	_ "github.com/google/go-cmp/cmp"
	_ "github.com/google/go-containerregistry/pkg/v1/tarball"
	_ "github.com/prometheus/client_golang/prometheus"
	_ "github.com/spf13/cobra"
	_ "github.com/spf13/pflag"
	_ "k8s.io/component-base/cli"
	_ "k8s.io/kubernetes/cmd/kube-scheduler/app"
	_ "k8s.io/metrics/pkg/client/clientset/versioned"
	_ "sigs.k8s.io/controller-runtime"
	_ "sigs.k8s.io/controller-runtime/pkg/envtest"
	_ "sigs.k8s.io/yaml"

	_ "gonum.org/v1/gonum/stat"
	_ "sigs.k8s.io/scheduler-plugins/apis/config/scheme"
	_ "sigs.k8s.io/scheduler-plugins/pkg/capacityscheduling"
	_ "sigs.k8s.io/scheduler-plugins/pkg/coscheduling"
	_ "sigs.k8s.io/scheduler-plugins/pkg/networkaware/networkoverhead"
	_ "sigs.k8s.io/scheduler-plugins/pkg/networkaware/topologicalsort"
	_ "sigs.k8s.io/scheduler-plugins/pkg/noderesources"
	_ "sigs.k8s.io/scheduler-plugins/pkg/noderesourcetopology"
	_ "sigs.k8s.io/scheduler-plugins/pkg/podstate"
	_ "sigs.k8s.io/scheduler-plugins/pkg/preemptiontoleration"
	_ "sigs.k8s.io/scheduler-plugins/pkg/qos"
	_ "sigs.k8s.io/scheduler-plugins/pkg/sysched"
	_ "sigs.k8s.io/scheduler-plugins/pkg/trimaran/loadvariationriskbalancing"
	_ "sigs.k8s.io/scheduler-plugins/pkg/trimaran/lowriskovercommitment"
	_ "sigs.k8s.io/scheduler-plugins/pkg/trimaran/peaks"
	_ "sigs.k8s.io/scheduler-plugins/pkg/trimaran/targetloadpacking"
)

func main() {}
