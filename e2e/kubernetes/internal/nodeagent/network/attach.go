package network

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Attachment is the network namespace of a Pod and its addresses, one of each
// family in the order of the node's networks.
type Attachment struct {
	Name      string
	Addresses []netip.Addr
}

// Path is the file of the namespace.
func (a Attachment) Path() string {
	return Path(a.Name)
}

// Path is the file of a named network namespace.
func Path(name string) string {
	return filepath.Join("/run/netns", name)
}

// Attach makes a namespace with an interface on the bridge. The name is short
// enough that "veth-" and its last eight characters are an interface's name.
func (n *Network) Attach(name string) (Attachment, error) {
	slot, err := n.take(name)
	if err != nil {
		return Attachment{}, err
	}
	attachment := Attachment{Name: name}
	for _, prefix := range n.prefixes {
		attachment.Addresses = append(attachment.Addresses, addressAt(prefix, slot))
	}
	if err := n.connect(attachment, slot); err != nil {
		return Attachment{}, errors.Join(fmt.Errorf("attach %s: %w", name, err), n.Detach(name))
	}
	return attachment, nil
}

// Detach removes the namespace and its interface and frees the addresses. What
// is gone already is no error.
func (n *Network) Detach(name string) error {
	err := Remove(name)
	n.mutex.Lock()
	defer n.mutex.Unlock()
	if slot, known := n.taken[name]; known {
		delete(n.taken, name)
		n.slots.Release(slot, time.Now())
	}
	return errors.Join(err, n.closePorts(name))
}

// Remove removes the namespace and its interface in the node's namespace.
func Remove(name string) error {
	var failures []error
	link, err := netlink.LinkByName(hostInterface(name))
	if err == nil {
		err = netlink.LinkDel(link)
	}
	if _, absent := errors.AsType[netlink.LinkNotFoundError](err); err != nil && !absent {
		failures = append(failures, err)
	}
	if err := unix.Unmount(Path(name), unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		failures = append(failures, fmt.Errorf("unmount %s: %w", Path(name), err))
	}
	if err := os.Remove(Path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		failures = append(failures, err)
	}
	return errors.Join(failures...)
}

func (n *Network) take(name string) (uint32, error) {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	slot, err := n.slots.Take(time.Now())
	if err == nil {
		n.taken[name] = slot
	}
	return slot, err
}

// connect makes the namespace and what is in it on a thread of its own, which
// ends with the goroutine and takes no other goroutine there.
func (n *Network) connect(attachment Attachment, slot uint32) error {
	node, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer node.Close()
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		result <- n.furnish(node, attachment, slot)
	}()
	return <-result
}

// furnish runs on the thread that becomes the first of the namespace; node is
// a handle on the node's namespace.
func (n *Network) furnish(node *netlink.Handle, attachment Attachment, slot uint32) error {
	namespace, err := netns.NewNamed(attachment.Name)
	if err != nil {
		return err
	}
	defer namespace.Close()
	if err := writeSysctls(podSysctls); err != nil {
		return err
	}
	attributes := netlink.NewLinkAttrs()
	attributes.Name = hostInterface(attachment.Name)
	attributes.MasterIndex = n.bridge.Attrs().Index
	veth := netlink.NewVeth(attributes)
	veth.PeerName = podInterface
	veth.PeerHardwareAddr = hardwareAddress(n.prefixes, slot)
	veth.PeerNamespace = netlink.NsFd(namespace)
	if err := node.LinkAdd(veth); err != nil {
		return fmt.Errorf("veth: %w", err)
	}
	if err := node.LinkSetUp(veth); err != nil {
		return fmt.Errorf("veth: %w", err)
	}
	pod, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer pod.Close()
	if err := up(pod, "lo"); err != nil {
		return err
	}
	if err := n.address(pod, attachment); err != nil {
		return err
	}
	if err := awaitCarrier(pod, podInterface); err != nil {
		return err
	}
	return awaitCarrier(node, attributes.Name)
}

// awaitCarrier waits until the kernel noticed that the interface has a peer:
// before, a bridge does not forward to it and packets of the Pod are lost.
func awaitCarrier(handle *netlink.Handle, name string) error {
	deadline := time.Now().Add(longestCarrier)
	for {
		link, err := handle.LinkByName(name)
		if err != nil {
			return err
		}
		if link.Attrs().OperState == netlink.OperUp {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s is %s, not up", name, link.Attrs().OperState)
		}
		time.Sleep(pollCarrier)
	}
}

// address gives the Pod's interface its addresses and routes.
func (n *Network) address(pod *netlink.Handle, attachment Attachment) error {
	link, err := pod.LinkByName(podInterface)
	if err != nil {
		return err
	}
	for _, address := range attachment.Addresses {
		entry := &netlink.Addr{IPNet: ipNet(single(address))}
		if address.Is6() {
			entry.Flags = unix.IFA_F_NODAD
		}
		if err := pod.AddrAdd(link, entry); err != nil {
			return fmt.Errorf("address %s: %w", address, err)
		}
	}
	if err := pod.LinkSetUp(link); err != nil {
		return err
	}
	for _, prefix := range n.prefixes {
		gateway := addressAt(prefix, gatewaySlot)
		everything := netip.PrefixFrom(gateway, 0).Masked()
		index := link.Attrs().Index
		for _, route := range []netlink.Route{
			{LinkIndex: index, Dst: ipNet(single(gateway)), Scope: netlink.SCOPE_LINK},
			{LinkIndex: index, Dst: ipNet(everything), Gw: gateway.AsSlice(), Flags: int(netlink.FLAG_ONLINK)},
		} {
			if err := pod.RouteAdd(&route); err != nil {
				return fmt.Errorf("route to %s: %w", route.Dst, err)
			}
		}
	}
	return nil
}

func up(handle *netlink.Handle, name string) error {
	link, err := handle.LinkByName(name)
	if err != nil {
		return err
	}
	return handle.LinkSetUp(link)
}

func hostInterface(name string) string {
	return "veth-" + name[max(0, len(name)-8):]
}

const (
	podInterface = "eth0"

	longestCarrier = 5 * time.Second
	pollCarrier    = time.Millisecond
)
