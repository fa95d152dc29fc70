package controlplane

import (
	"fmt"
	"net"
)

const (
	serviceAddresses    = "10.96.0.0/16"
	firstServiceAddress = "10.96.0.1"
)

// Ports on loopback.
type Ports struct {
	EtcdClient        int `json:"etcdClient"`
	EtcdPeer          int `json:"etcdPeer"`
	EtcdMetrics       int `json:"etcdMetrics"`
	APIServer         int `json:"apiServer"`
	ControllerManager int `json:"controllerManager"`
	MetricsServer     int `json:"metricsServer"`
	// SimulatedKubelet serves the metrics of all simulated nodes.
	SimulatedKubelet int `json:"simulatedKubelet"`
	// Those of our own components.
	Scheduler         int `json:"scheduler"`
	DefaultScheduler  int `json:"defaultScheduler"`
	RebalancerMetrics int `json:"rebalancerMetrics"`
	RebalancerHealth  int `json:"rebalancerHealth"`
	RebalancerWebhook int `json:"rebalancerWebhook"`
}

// FreePorts chooses ports that nobody listens on now. All are held until the
// last one is chosen, so that they differ.
func FreePorts() (Ports, error) {
	var ports Ports
	for _, port := range []*int{
		&ports.EtcdClient, &ports.EtcdPeer, &ports.EtcdMetrics, &ports.APIServer,
		&ports.ControllerManager, &ports.MetricsServer, &ports.SimulatedKubelet,
		&ports.Scheduler, &ports.DefaultScheduler, &ports.RebalancerMetrics, &ports.RebalancerHealth, &ports.RebalancerWebhook,
	} {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return Ports{}, fmt.Errorf("choose a free port: %w", err)
		}
		defer listener.Close()
		*port = listener.Addr().(*net.TCPAddr).Port
	}
	return ports, nil
}

func (p Ports) server() string { return loopbackURL("https", p.APIServer) }

func loopbackURL(scheme string, port int) string {
	return fmt.Sprintf("%s://127.0.0.1:%d", scheme, port)
}
