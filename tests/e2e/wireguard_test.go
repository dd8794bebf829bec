package e2e

import (
	"crypto/ecdh"
	"crypto/rand"
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"egate/internal/testutil"
)

// wireguardLine is a WireGuard tunnel between two hosts.
func wireguardLine(t *testing.T) line {
	p := newPair(t)
	ends := []testutil.Link{p.client, p.server}
	addrs := [][]netip.Prefix{
		testutil.Addrs("10.78.0.1/24", "fd78::1/64"),
		testutil.Addrs("10.78.0.2/24", "fd78::2/64"),
	}
	var keys []*ecdh.PrivateKey
	for range ends {
		key, err := ecdh.X25519().GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, key)
	}
	var made []testutil.Link
	for i, end := range ends {
		addLink(t, end.Netns, "wg0", "wireguard")
		var err error
		peer := wireguardPeer{keys[1-i].PublicKey(), netip.AddrPortFrom(addrsOf(ends[1-i])[0], wireguardPort), addrs[1-i]}
		end.Netns.Run(func() { err = setWireguard("wg0", keys[i], peer) })
		if err != nil {
			t.Fatalf("configure wg0: %v", err)
		}
		made = append(made, setUp(t, end.Netns, "wg0", addrs[i]...))
	}
	return lineOf(made[0], made[1])
}

const wireguardPort = 51820

type wireguardPeer struct {
	key      *ecdh.PublicKey
	endpoint netip.AddrPort // IPv4
	allowed  []netip.Prefix
}

// setWireguard gives an interface of the thread's namespace its key and its
// only peer, as the tool wg does. The numbers are those of linux/wireguard.h.
func setWireguard(name string, key *ecdh.PrivateKey, peer wireguardPeer) error {
	const (
		cmdSetDevice                                                = 1
		deviceName, devicePrivateKey, deviceListenPort, devicePeers = 2, 3, 6, 8
		peerPublicKey, peerEndpoint, peerAllowedIPs                 = 1, 4, 9
		allowedFamily, allowedAddr, allowedMask                     = 1, 2, 3
	)
	family, err := netlink.GenlFamilyGet("wireguard")
	if err != nil {
		return err
	}
	endpoint := make([]byte, 16) // struct sockaddr_in
	binary.NativeEndian.PutUint16(endpoint, unix.AF_INET)
	binary.BigEndian.PutUint16(endpoint[2:], peer.endpoint.Port())
	copy(endpoint[4:], peer.endpoint.Addr().AsSlice())

	peers := nl.NewRtAttr(devicePeers|unix.NLA_F_NESTED, nil)
	one := peers.AddRtAttr(0|unix.NLA_F_NESTED, nil)
	one.AddRtAttr(peerPublicKey, peer.key.Bytes())
	one.AddRtAttr(peerEndpoint, endpoint)
	allowed := one.AddRtAttr(peerAllowedIPs|unix.NLA_F_NESTED, nil)
	for _, prefix := range peer.allowed {
		af := uint16(unix.AF_INET)
		if prefix.Addr().Is6() {
			af = unix.AF_INET6
		}
		ip := allowed.AddRtAttr(0|unix.NLA_F_NESTED, nil)
		ip.AddRtAttr(allowedFamily, nl.Uint16Attr(af))
		ip.AddRtAttr(allowedAddr, prefix.Masked().Addr().AsSlice())
		ip.AddRtAttr(allowedMask, []byte{uint8(prefix.Bits())})
	}
	request := nl.NewNetlinkRequest(int(family.ID), unix.NLM_F_ACK)
	request.AddData(&nl.Genlmsg{Command: cmdSetDevice, Version: 1})
	request.AddData(nl.NewRtAttr(deviceName, nl.ZeroTerminated(name)))
	request.AddData(nl.NewRtAttr(devicePrivateKey, key.Bytes()))
	request.AddData(nl.NewRtAttr(deviceListenPort, nl.Uint16Attr(wireguardPort)))
	request.AddData(peers)
	_, err = request.Execute(unix.NETLINK_GENERIC, 0)
	return err
}
