package controlplane

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"syscall"
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
	// kube-proxy, where Services work.
	ServiceProxy        int `json:"serviceProxy"`
	ServiceProxyMetrics int `json:"serviceProxyMetrics"`
	// Those of our own components.
	Scheduler         int `json:"scheduler"`
	DefaultScheduler  int `json:"defaultScheduler"`
	RebalancerMetrics int `json:"rebalancerMetrics"`
	RebalancerHealth  int `json:"rebalancerHealth"`
	RebalancerWebhook int `json:"rebalancerWebhook"`
	RebalancerAPI     int `json:"rebalancerAPI"`
}

// Ports are chosen below those of NodePort services, and below those that Linux
// gives to outgoing connections (32768 and up, net.ipv4.ip_local_port_range): a
// client that calls an API server which is down could get the server's own port.
const firstPort, portCount = 10000, 20000

// FreePorts chooses ports that nobody listens on now. All are held until the
// last one is chosen, so that they differ.
func FreePorts() (Ports, error) {
	var ports Ports
	for _, port := range []*int{
		&ports.EtcdClient, &ports.EtcdPeer, &ports.EtcdMetrics, &ports.APIServer,
		&ports.ControllerManager, &ports.MetricsServer, &ports.SimulatedKubelet,
		&ports.ServiceProxy, &ports.ServiceProxyMetrics,
		&ports.Scheduler, &ports.DefaultScheduler, &ports.RebalancerMetrics, &ports.RebalancerHealth, &ports.RebalancerWebhook, &ports.RebalancerAPI,
	} {
		listener, err := listenSomewhere()
		if err != nil {
			return Ports{}, fmt.Errorf("choose a free port: %w", err)
		}
		defer listener.Close()
		*port = listener.Addr().(*net.TCPAddr).Port
	}
	return ports, nil
}

func listenSomewhere() (net.Listener, error) {
	// At random: clusters that start at the same time seldom try the same ones.
	offset := rand.IntN(portCount)
	for i := range portCount {
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(firstPort+(offset+i)%portCount))
		listener, err := net.Listen("tcp", address)
		if !errors.Is(err, syscall.EADDRINUSE) {
			return listener, err
		}
	}
	return nil, fmt.Errorf("all from %d to %d are in use", firstPort, firstPort+portCount-1)
}

func (p Ports) server() string { return loopbackURL("https", p.APIServer) }

func loopbackURL(scheme string, port int) string {
	return fmt.Sprintf("%s://127.0.0.1:%d", scheme, port)
}
