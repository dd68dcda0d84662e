package network

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"
)

// Slots hands out the numbers that Pods have in their networks: Pod 7 of a
// node has the seventh address of each network.
//
// A number is not in use twice, and a released one rests for a while, so that
// who still holds the address does not meet a stranger behind it.
type Slots struct {
	first, last uint32
	next        uint32
	rest        time.Duration
	used        map[uint32]bool
	released    map[uint32]time.Time
}

// NewSlots makes all slots from first to last free.
func NewSlots(first, last uint32, rest time.Duration) *Slots {
	return &Slots{
		first: first, last: last, next: first, rest: rest,
		used: map[uint32]bool{}, released: map[uint32]time.Time{},
	}
}

// Take returns a free slot: the next rested one in turn, else the one that
// rested longest.
func (s *Slots) Take(now time.Time) (uint32, error) {
	var chosen uint32
	var oldest time.Time
	found := false
	for count := s.last - s.first + 1; count > 0; count-- {
		slot := s.next
		s.next = s.after(s.next)
		if s.used[slot] {
			continue
		}
		released := s.released[slot]
		if !found || released.Before(oldest) {
			chosen, oldest, found = slot, released, true
		}
		if released.IsZero() || now.Sub(released) >= s.rest {
			chosen = slot
			break
		}
	}
	if !found {
		return 0, fmt.Errorf("all %d Pod addresses of the node are in use", s.last-s.first+1)
	}
	s.next = s.after(chosen)
	s.used[chosen] = true
	delete(s.released, chosen)
	return chosen, nil
}

// Release ends the use of a slot.
func (s *Slots) Release(slot uint32, now time.Time) {
	if s.used[slot] {
		delete(s.used, slot)
		s.released[slot] = now
	}
}

func (s *Slots) after(slot uint32) uint32 {
	if slot == s.last {
		return s.first
	}
	return slot + 1
}

// podSlots are the slots for Pods in networks of the given sizes: the first
// is the bridge's, IPv4 has a broadcast address at the end.
func podSlots(networks []netip.Prefix) (first, last uint32) {
	last = maximumSlot
	for _, network := range networks {
		bits := network.Addr().BitLen() - network.Bits()
		if bits < 16 {
			last = min(last, uint32(1)<<bits-2)
		}
	}
	return gatewaySlot + 1, last
}

// addressAt is the address number slot of a network.
func addressAt(network netip.Prefix, slot uint32) netip.Addr {
	octets := network.Masked().Addr().AsSlice()
	tail := octets[len(octets)-4:]
	binary.BigEndian.PutUint32(tail, binary.BigEndian.Uint32(tail)+slot)
	address, _ := netip.AddrFromSlice(octets)
	return address
}

const (
	gatewaySlot = 1
	maximumSlot = 65000
)
