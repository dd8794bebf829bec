package demo

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"
)

// rawPing is one echo request through a raw socket, where no ping is installed.
func rawPing(ctx context.Context, to netip.Addr) (outcome, error) {
	network, request, reply, header := "ip4:icmp", byte(8), byte(0), true
	if to.Is6() {
		// The kernel computes ICMPv6 checksums, and gives no IPv6 header.
		network, request, reply, header = "ip6:ipv6-icmp", 128, 129, false
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, network, to.String())
	if err != nil {
		return untried, fmt.Errorf("open raw socket: %w", err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return untried, err
	}
	message := make([]byte, 16)
	message[0] = request
	id := uint16(os.Getpid()) ^ 0x5a5a
	binary.BigEndian.PutUint16(message[4:], id)
	binary.BigEndian.PutUint16(message[6:], 1)
	binary.BigEndian.PutUint16(message[2:], checksum(message))
	if _, err := conn.Write(message); err != nil {
		return refusal(err)
	}
	buf := make([]byte, 1500)
	for {
		size, err := conn.Read(buf)
		if err != nil {
			return refusal(err)
		}
		if isEcho(buf[:size], reply, id, header) {
			return passed, nil
		}
	}
}

// isEcho tells our answer from other messages. Depending on how it was read,
// an IPv4 header may still stand before it.
func isEcho(message []byte, kind byte, id uint16, header bool) bool {
	if header && len(message) > 0 && message[0]>>4 == 4 {
		skip := int(message[0]&15) * 4
		message = message[min(skip, len(message)):]
	}
	return len(message) >= 8 && message[0] == kind && binary.BigEndian.Uint16(message[4:]) == id
}

// checksum is that of RFC 1071, of a message whose checksum field is 0.
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
