package realnode

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const ipForwardFile = "/proc/sys/net/ipv4/ip_forward"

// subnet is the network of one node.
type subnet struct {
	prefix netip.Prefix
}

// nodeIP is the address of the bridge: the node's own, and its pods' gateway.
func (s subnet) nodeIP() netip.Addr { return s.prefix.Addr().Next() }

// hardwareAddress is fixed by the address, so that pods need not learn a new
// one whenever a bridge would take over that of another port.
func (s subnet) hardwareAddress() net.HardwareAddr {
	ip := s.nodeIP().As4()
	return net.HardwareAddr{0x0a, 0x58, ip[0], ip[1], ip[2], ip[3]}
}

// chooseSubnet picks 10.x.<index>.0/24 with x in 128..191, beside what is in
// use on the machine. The first x tried follows from the state directory, so that
// the nodes of a cluster are usually neighbours and clusters apart.
func chooseSubnet(stateDir string, index int, used []netip.Prefix) (subnet, error) {
	if index < 0 || index > 255 {
		return subnet{}, fmt.Errorf("choose a subnet: node index %d is not within 0 to 255", index)
	}
	sum := sha256.Sum256([]byte(stateDir))
	start := binary.BigEndian.Uint32(sum[:])
	const choices = 64
	for i := range uint32(choices) {
		x := byte(128 + (start+i)%choices)
		candidate := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, x, byte(index), 0}), 24)
		if !overlapsAny(candidate, used) {
			return subnet{candidate}, nil
		}
	}
	return subnet{}, fmt.Errorf("choose a subnet: all of 10.128-191.%d.0/24 are in use on this machine", index)
}

func overlapsAny(candidate netip.Prefix, used []netip.Prefix) bool {
	for _, prefix := range used {
		if prefix.Overlaps(candidate) {
			return true
		}
	}
	return false
}

// usedNetworks returns the IPv4 networks that the machine has addresses in or
// routes to.
func usedNetworks() ([]netip.Prefix, error) {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("list the machine's addresses: %w", err)
	}
	var used []netip.Prefix
	for _, address := range addresses {
		if prefix, err := netip.ParsePrefix(address.String()); err == nil && prefix.Addr().Is4() {
			used = append(used, prefix.Masked())
		}
	}
	routes, err := os.ReadFile("/proc/net/route")
	if err != nil {
		return nil, fmt.Errorf("list the machine's routes: %w", err)
	}
	return append(used, parseRoutes(string(routes))...), nil
}

// parseRoutes reads /proc/net/route, whose addresses are little-endian
// hexadecimal numbers. The default route is no claim to an address.
func parseRoutes(table string) []netip.Prefix {
	var prefixes []netip.Prefix
	for _, line := range strings.Split(table, "\n") {
		fields := strings.Fields(line)
		if len(fields) < 8 {
			continue
		}
		var destination, mask uint32
		if _, err := fmt.Sscanf(fields[1]+" "+fields[7], "%x %x", &destination, &mask); err != nil || mask == 0 {
			continue
		}
		var address, netmask [4]byte
		binary.LittleEndian.PutUint32(address[:], destination)
		binary.LittleEndian.PutUint32(netmask[:], mask)
		ones, _ := net.IPMask(netmask[:]).Size()
		prefixes = append(prefixes, netip.PrefixFrom(netip.AddrFrom4(address), ones))
	}
	return prefixes
}

// createBridge makes the node's bridge. The caller has removed an older one.
func createBridge(ctx context.Context, l layout, s subnet) error {
	address := netip.PrefixFrom(s.nodeIP(), s.prefix.Bits()).String()
	for _, arguments := range [][]string{
		{"link", "add", l.bridge, "address", s.hardwareAddress().String(), "type", "bridge"},
		{"link", "set", l.bridge, "alias", bridgeAlias(l)},
		{"address", "add", address, "dev", l.bridge},
		{"link", "set", l.bridge, "up"},
	} {
		if err := run(ctx, "ip", arguments...); err != nil {
			return fmt.Errorf("create bridge %s: %w", l.bridge, err)
		}
	}
	return acceptForwarding(ctx, l)
}

// deleteBridge removes the bridge and whatever is plugged in: a pod's cable
// goes with its network namespace, but the kernel takes its time.
func deleteBridge(ctx context.Context, l layout) error {
	if err := withdrawForwarding(ctx, l); err != nil {
		return err
	}
	sys := filepath.Join("/sys/class/net", l.bridge)
	ports, _ := os.ReadDir(filepath.Join(sys, "brif"))
	for _, port := range ports {
		err := run(ctx, "ip", "link", "delete", port.Name())
		if _, statErr := os.Stat(filepath.Join("/sys/class/net", port.Name())); err != nil && statErr == nil {
			return fmt.Errorf("delete the ports of bridge %s: %w", l.bridge, err)
		}
	}
	if _, err := os.Stat(sys); err != nil {
		return nil
	}
	if err := run(ctx, "ip", "link", "delete", l.bridge); err != nil {
		return fmt.Errorf("delete bridge %s: %w", l.bridge, err)
	}
	return nil
}

// forwardingRules let pods' packets pass where a firewall of the machine would
// drop what is not its own, as Docker's does.
func forwardingRules(l layout) [][]string {
	return [][]string{
		{"FORWARD", "-i", l.bridge, "-j", "ACCEPT"},
		{"FORWARD", "-o", l.bridge, "-j", "ACCEPT"},
	}
}

func acceptForwarding(ctx context.Context, l layout) error {
	if _, err := exec.LookPath("iptables"); err != nil {
		return nil
	}
	chain, err := exec.CommandContext(ctx, "iptables", "-w", "-S", "FORWARD").Output()
	if err != nil || strings.TrimSpace(string(chain)) == "-P FORWARD ACCEPT" {
		return nil // no such table in this kernel, or nothing that drops
	}
	for _, rule := range forwardingRules(l) {
		if err := run(ctx, "iptables", append([]string{"-w", "-I"}, rule...)...); err != nil {
			return fmt.Errorf("let packets of bridge %s pass: %w", l.bridge, err)
		}
	}
	return nil
}

func withdrawForwarding(ctx context.Context, l layout) error {
	if _, err := exec.LookPath("iptables"); err != nil {
		return nil
	}
	for _, rule := range forwardingRules(l) {
		for exec.CommandContext(ctx, "iptables", append([]string{"-w", "-C"}, rule...)...).Run() == nil {
			if err := run(ctx, "iptables", append([]string{"-w", "-D"}, rule...)...); err != nil {
				return fmt.Errorf("remove the rules of bridge %s: %w", l.bridge, err)
			}
		}
	}
	return nil
}

// run executes a program; the error carries what it said.
func run(ctx context.Context, program string, arguments ...string) error {
	output, err := exec.CommandContext(ctx, program, arguments...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", program, strings.Join(arguments, " "), err, strings.TrimSpace(string(output)))
	}
	return nil
}
