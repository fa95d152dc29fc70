package realnode

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestChooseSubnet(t *testing.T) {
	free, err := chooseSubnet("/state", 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	sibling, err := chooseSubnet("/state", 2, []netip.Prefix{free.prefix})
	if err != nil {
		t.Fatal(err)
	}
	if free.prefix.Overlaps(sibling.prefix) {
		t.Errorf("nodes 1 and 2 share %s", free.prefix)
	}
	taken := netip.PrefixFrom(free.nodeIP(), 16).Masked()
	other, err := chooseSubnet("/state", 1, []netip.Prefix{taken})
	if err != nil {
		t.Fatal(err)
	}
	if other.prefix.Overlaps(taken) {
		t.Errorf("%s overlaps %s, which is in use", other.prefix, taken)
	}
	for index, used := range map[int][]netip.Prefix{
		1:   {netip.MustParsePrefix("10.0.0.0/8")},
		-1:  nil,
		256: nil,
	} {
		if got, err := chooseSubnet("/state", index, used); err == nil {
			t.Errorf("index %d beside %v gives %s", index, used, got.prefix)
		}
	}
}

func TestSubnetAddresses(t *testing.T) {
	s := subnet{netip.MustParsePrefix("10.130.2.0/24")}
	if got := s.nodeIP().String(); got != "10.130.2.1" {
		t.Errorf("node IP %s", got)
	}
	if got := s.hardwareAddress().String(); got != "0a:58:0a:82:02:01" {
		t.Errorf("hardware address %s", got)
	}
}

func TestParseRoutes(t *testing.T) {
	const table = `Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask		MTU	Window	IRTT
eth0	00000000	0102000A	0003	0	0	0	00000000	0	0	0
eth0	000200C0	00000000	0001	0	0	0	00FFFFFF	0	0	0
wg0	0000820A	00000000	0001	0	0	0	0000FFFF	0	0	0
`
	want := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("10.130.0.0/16")}
	if diff := cmp.Diff(want, parseRoutes(table), cmpopts.EquateComparable(netip.Prefix{})); diff != "" {
		t.Errorf("routes (-want +got):\n%s", diff)
	}
}
