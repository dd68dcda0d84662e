package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
)

// Route leads to the Pods of another node.
type Route struct {
	Destination netip.Prefix
	Via         netip.Addr
}

// DesiredRoutes lead to the Pod networks of every other node, each by that
// node's first internal address of the same family. What a Node says that is
// no address is left out.
func DesiredRoutes(self string, nodes []*v1.Node) map[Route]bool {
	desired := map[Route]bool{}
	for _, node := range nodes {
		if node.Name == self {
			continue
		}
		for _, text := range node.Spec.PodCIDRs {
			prefix, err := netip.ParsePrefix(text)
			if err != nil {
				continue
			}
			if via, found := internalAddress(node, prefix.Addr().Is4()); found {
				desired[Route{Destination: prefix.Masked(), Via: via}] = true
			}
		}
	}
	return desired
}

func internalAddress(node *v1.Node, is4 bool) (netip.Addr, bool) {
	for _, address := range node.Status.Addresses {
		if address.Type != v1.NodeInternalIP {
			continue
		}
		if parsed, err := netip.ParseAddr(address.Address); err == nil && parsed.Is4() == is4 {
			return parsed, true
		}
	}
	return netip.Addr{}, false
}

// KeepRoutes makes the kernel's routes those that desired returns, on every
// change of theirs, of the kernel's links and routes, and now and then.
func KeepRoutes(ctx context.Context, changed <-chan struct{}, desired func() map[Route]bool) {
	links := make(chan netlink.LinkUpdate, 64)
	if err := netlink.LinkSubscribe(links, ctx.Done()); err != nil {
		slog.Warn("Links are not watched", "error", err)
	}
	ticker := time.NewTicker(resyncRoutes)
	defer ticker.Stop()
	for {
		if err := syncRoutes(desired()); err != nil {
			slog.Warn("Routes to other nodes are not complete", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case _, open := <-links:
			if !open {
				links = nil
			}
		case <-ticker.C:
		}
	}
}

// syncRoutes removes routes of ours that are not desired and adds the rest.
func syncRoutes(desired map[Route]bool) error {
	var failures []error
	held := map[Route]bool{}
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		routes, err := netlink.RouteListFiltered(family, &netlink.Route{Protocol: protocol}, netlink.RT_FILTER_PROTOCOL)
		if err != nil {
			failures = append(failures, err)
			continue
		}
		for _, entry := range routes {
			route, valid := routeOf(entry)
			if valid && desired[route] {
				held[route] = true
			} else if err := netlink.RouteDel(&entry); err != nil {
				failures = append(failures, fmt.Errorf("remove the route to %s: %w", entry.Dst, err))
			}
		}
	}
	for route := range desired {
		if held[route] {
			continue
		}
		entry := netlink.Route{Dst: ipNet(route.Destination), Gw: route.Via.AsSlice(), Protocol: protocol}
		if err := netlink.RouteReplace(&entry); err != nil {
			failures = append(failures, fmt.Errorf("add a route to %s via %s: %w", route.Destination, route.Via, err))
		}
	}
	return errors.Join(failures...)
}

func routeOf(entry netlink.Route) (Route, bool) {
	via, valid := netip.AddrFromSlice(entry.Gw)
	if entry.Dst == nil || !valid {
		return Route{}, false
	}
	address, valid := netip.AddrFromSlice(entry.Dst.IP)
	bits, _ := entry.Dst.Mask.Size()
	return Route{Destination: netip.PrefixFrom(address.Unmap(), bits), Via: via.Unmap()}, valid
}

// protocol marks routes of the agent (`ip route` shows it as proto 71).
const protocol = 71

const resyncRoutes = 5 * time.Second
