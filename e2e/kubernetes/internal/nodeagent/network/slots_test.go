package network

import (
	"net/netip"
	"testing"
	"time"
)

func TestASlotRestsBeforeItIsTakenAgain(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	// A step takes the wanted slot, or releases one. Zero wants a refusal.
	type step struct {
		second  int
		release uint32
		want    uint32
	}
	for name, steps := range map[string][]step{
		"slots are given in turn": {
			{0, 0, 2}, {0, 0, 3}, {0, 0, 4},
		},
		"none is in use twice": {
			{0, 0, 2}, {0, 0, 3}, {0, 0, 4}, {0, 0, 0}, {99, 0, 0},
		},
		"a free one goes before one that rests": {
			{0, 0, 2}, {1, 2, 0}, {1, 0, 3}, {1, 0, 4},
		},
		"the one that rested longest goes first where all rest": {
			{0, 0, 2}, {0, 0, 3}, {0, 0, 4}, {1, 4, 0}, {2, 2, 0}, {3, 0, 4}, {3, 0, 2}, {3, 0, 0},
		},
		"a rested one comes in its turn": {
			{0, 0, 2}, {0, 2, 0}, {30, 0, 3}, {30, 0, 4}, {30, 0, 2},
		},
		"a release of what is not in use changes nothing": {
			{0, 3, 0}, {0, 0, 2}, {0, 0, 3}, {0, 0, 4},
		},
	} {
		slots := NewSlots(2, 4, 30*time.Second)
		for number, step := range steps {
			now := start.Add(time.Duration(step.second) * time.Second)
			if step.release != 0 {
				slots.Release(step.release, now)
				continue
			}
			got, err := slots.Take(now)
			if got != step.want || (err != nil) != (step.want == 0) {
				t.Errorf("%s: step %d gives %d, %v", name, number, got, err)
			}
		}
	}
}

func TestAddresses(t *testing.T) {
	for _, row := range []struct {
		network string
		slot    uint32
		want    string
		last    uint32
	}{
		{"10.244.1.0/24", 1, "10.244.1.1", 254},
		{"10.244.1.0/24", 254, "10.244.1.254", 254},
		{"10.244.0.0/16", 300, "10.244.1.44", 65000},
		{"10.244.1.16/28", 14, "10.244.1.30", 14},
		{"fd12:3456:789a:f401::/64", 258, "fd12:3456:789a:f401::102", 65000},
	} {
		network := netip.MustParsePrefix(row.network)
		if got := addressAt(network, row.slot).String(); got != row.want {
			t.Errorf("slot %d of %s is %s, want %s", row.slot, row.network, got, row.want)
		}
		if first, last := podSlots([]netip.Prefix{network}); first != 2 || last != row.last {
			t.Errorf("%s has slots %d to %d, want 2 to %d", row.network, first, last, row.last)
		}
	}
}
