package packet

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

// ErrLinkType is a capture's link type that egate cannot read.
var ErrLinkType = errors.New("unknown link type")

// Link types of captures (tcpdump.org/linktypes.html) that gopacket has no
// name for: raw IP as some systems number it.
const (
	linkTypeRawBSD     = layers.LinkType(12)
	linkTypeRawOpenBSD = layers.LinkType(14)
)

// ReadCapture calls visit for every packet of a pcap or pcapng file, counted
// from 1. length is that of the whole frame, where the capture cut it short;
// FrameInfo takes it. Linux's "any" captures come as Ethernet frames whose
// addresses mean nothing. visit owns frame; its error ends the reading and is
// returned as it is. ErrLinkType tells of a link type that is not read.
func ReadCapture(r io.Reader, visit func(n int, frame []byte, link LinkLayer, length int) error) error {
	next, err := openCapture(bufio.NewReader(r))
	if err != nil {
		return fmt.Errorf("read capture: %w", err)
	}
	for n := 1; ; n++ {
		data, info, linkType, err := next()
		if err == io.EOF && info.CaptureLength == 0 {
			return nil
		}
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return fmt.Errorf("read capture: packet %d: %w", n, err)
		}
		frame, link, length, err := unwrap(data, info.Length, linkType)
		if err != nil {
			return fmt.Errorf("read capture: packet %d: %w", n, err)
		}
		if err := visit(n, frame, link, length); err != nil {
			return err
		}
	}
}

type nextPacket func() ([]byte, gopacket.CaptureInfo, layers.LinkType, error)

// openCapture tells the two file formats apart by their first bytes.
func openCapture(r *bufio.Reader) (nextPacket, error) {
	const sectionHeader = 0x0a0d0d0a // the same in both byte orders
	magic, err := r.Peek(4)
	if err != nil {
		return nil, fmt.Errorf("no pcap or pcapng file: %w", err)
	}
	if binary.BigEndian.Uint32(magic) == sectionHeader {
		ng, err := pcapgo.NewNgReader(r, pcapgo.NgReaderOptions{WantMixedLinkType: true, SkipUnknownVersion: true})
		if err != nil {
			return nil, fmt.Errorf("pcapng: %w", err)
		}
		return func() ([]byte, gopacket.CaptureInfo, layers.LinkType, error) {
			data, info, err := ng.ReadPacketData()
			if err != nil {
				return nil, info, 0, err
			}
			iface, err := ng.Interface(info.InterfaceIndex)
			return data, info, iface.LinkType, err
		}, nil
	}
	classic, err := pcapgo.NewReader(r)
	if err != nil {
		return nil, fmt.Errorf("pcap: %w", err)
	}
	return func() ([]byte, gopacket.CaptureInfo, layers.LinkType, error) {
		data, info, err := classic.ReadPacketData()
		return data, info, classic.LinkType(), err
	}, nil
}

// unwrap turns a captured record into a frame that Decode takes.
func unwrap(data []byte, length int, linkType layers.LinkType) ([]byte, LinkLayer, int, error) {
	strip := func(n int) ([]byte, int) { return data[min(n, len(data)):], max(length-n, 0) }
	switch linkType {
	case layers.LinkTypeEthernet:
		return data, Ethernet, length, nil
	case layers.LinkTypeRaw, linkTypeRawBSD, linkTypeRawOpenBSD, layers.LinkTypeIPv4, layers.LinkTypeIPv6:
		return data, NoLink, length, nil
	case layers.LinkTypeNull, layers.LinkTypeLoop:
		frame, length := strip(4) // the family; the first nibble tells it too
		return frame, NoLink, length, nil
	case layers.LinkTypeLinuxSLL:
		frame, length := strip(2) // of 16 bytes: what is left ends in the type, as Ethernet's header does
		return frame, Ethernet, length, nil
	case layers.LinkTypeLinuxSLL2:
		if len(data) >= 20 {
			copy(data[18:20], data[0:2]) // the type, to where Ethernet has it
		}
		frame, length := strip(6)
		return frame, Ethernet, length, nil
	}
	return nil, 0, 0, fmt.Errorf("%w %d (%s): egate reads Ethernet, raw IP, BSD loopback and Linux cooked captures", ErrLinkType, uint16(linkType), linkType)
}
