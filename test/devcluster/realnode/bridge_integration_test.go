package realnode

import (
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// TestBridgePassesAFirewall makes and removes a bridge in a network namespace
// whose firewall drops what it should forward, as Docker's does.
func TestBridgePassesAFirewall(t *testing.T) {
	if os.Getenv("REAL_NODES") == "" {
		t.Skip("set REAL_NODES=1, as root, to make bridges")
	}
	if _, err := exec.LookPath("iptables"); err != nil {
		t.Skip("a machine without iptables has no such firewall")
	}
	if os.Getenv("IN_OWN_NETWORK") == "" {
		again := exec.Command(os.Args[0], "-test.run=^TestBridgePassesAFirewall$", "-test.v")
		again.Env = append(os.Environ(), "IN_OWN_NETWORK=1")
		again.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS}
		if output, err := again.CombinedOutput(); err != nil {
			t.Errorf("%v:\n%s", err, output)
		}
		return
	}
	// /sys shows the network that it was mounted in.
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("sysfs", "/sys", "sysfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	l, err := newLayout(t.TempDir(), "real-0")
	if err != nil {
		t.Fatal(err)
	}
	network := subnet{netip.MustParsePrefix("10.130.0.0/24")}
	if err := run(t.Context(), "iptables", "-P", "FORWARD", "DROP"); err != nil {
		t.Fatal(err)
	}
	if err := createBridge(t.Context(), l, network); err != nil {
		t.Fatal(err)
	}
	// A port that nobody removed, as after a crash.
	if err := run(t.Context(), "ip", "link", "add", "port", "master", l.bridge, "type", "veth", "peer", "pod"); err != nil {
		t.Fatal(err)
	}
	rules := forwardRules(t)
	for _, want := range []string{"-i " + l.bridge + " -j ACCEPT", "-o " + l.bridge + " -j ACCEPT"} {
		if !strings.Contains(rules, want) {
			t.Errorf("no rule %q in:\n%s", want, rules)
		}
	}
	for range 2 { // the second time there is nothing to delete
		if err := deleteBridge(t.Context(), l); err != nil {
			t.Fatal(err)
		}
	}
	if rules := forwardRules(t); rules != "-P FORWARD DROP\n" {
		t.Errorf("rules are left:\n%s", rules)
	}
	links, err := exec.Command("ip", "-brief", "link").Output()
	if err != nil || strings.Count(string(links), "\n") != 1 {
		t.Errorf("more than the loopback is left, error %v:\n%s", err, links)
	}
}

func forwardRules(t *testing.T) string {
	t.Helper()
	rules, err := exec.Command("iptables", "-w", "-S", "FORWARD").Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(rules)
}
