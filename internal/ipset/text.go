package ipset

import (
	"fmt"
	"net/netip"
)

// AppendElement reads one element, an address, a prefix or a range a-b, and
// appends its ranges to dst: one, or two where the IPv4 block is left out of an
// IPv6 element. It accepts the addresses that netip.ParseAddr does, without
// zones. A prefix with host bits set is an error that names the prefix meant.
// Only an error allocates, apart from what dst needs to grow.
func AppendElement(dst []Range, text []byte) ([]Range, error) {
	r, err := scanElement(text)
	if err != nil {
		return dst, err
	}
	return appendRange(dst, r.First, r.Last), nil
}

// scanElement reads one element as the range from its first address to its
// last one, with the IPv4 block in it if it begins outside of that.
func scanElement(text []byte) (Range, error) {
	first, n, problem := scanAddr(text)
	if problem != "" {
		return Range{}, elementError(text, problem)
	}
	if n == len(text) {
		return Range{first.addr, first.addr}, nil
	}
	switch text[n] {
	case '/':
		bits, problem := scanBits(text[n+1:], first.width)
		if problem != "" {
			return Range{}, elementError(text, problem)
		}
		mask := prefixMask(bits + 128 - first.width)
		if first.addr.Hi&^mask.Hi|first.addr.Lo&^mask.Lo != 0 {
			return Range{}, hostBitsError(text, first, bits)
		}
		return Range{first.addr, Addr{first.addr.Hi | ^mask.Hi, first.addr.Lo | ^mask.Lo}}, nil
	case '-':
		last, m, problem := scanAddr(text[n+1:])
		switch {
		case problem != "":
			return Range{}, elementError(text, "is a range whose end "+problem)
		case n+1+m != len(text):
			return Range{}, elementError(text, unexpected(text[n+1+m]))
		case !sameFamily(first.addr, last.addr):
			return Range{}, elementError(text, "is a range from one address family to the other")
		case last.addr.Less(first.addr):
			return Range{}, elementError(text, "is a range that ends before it begins")
		}
		return Range{first.addr, last.addr}, nil
	}
	return Range{}, elementError(text, unexpected(text[n]))
}

// scanned is an address and how its text wrote it: width is 32 or 128.
type scanned struct {
	addr  Addr
	width int
}

// scanAddr reads the address that text begins with and tells how many bytes it
// took. A problem is a clause that follows the element's text.
func scanAddr(text []byte) (s scanned, n int, problem string) {
	for _, c := range text {
		switch {
		case c == '.':
			v4, n, problem := scan4(text)
			return scanned{From4(v4), 32}, n, problem
		case c == ':':
			v6, n, problem := scan6(text)
			return scanned{v6, 128}, n, problem
		case !isHex(c):
			return s, 0, notAddress
		}
	}
	return s, 0, notAddress
}

const notAddress = "is not an address"

func isHex(c byte) bool { return hexValue(c) < 16 }

// hexValue gives 16 for what is not a hexadecimal digit.
func hexValue(c byte) uint32 { return uint32(hexValues[c]) }

var hexValues = func() (values [256]uint8) {
	for c := range values {
		values[c] = 16
	}
	for i := range uint8(16) {
		values["0123456789abcdef"[i]] = i
		values["0123456789ABCDEF"[i]] = i
	}
	return values
}()

// scan4 reads four decimal parts, without leading zeros.
func scan4(text []byte) (a uint32, n int, problem string) {
	for part := 0; ; part++ {
		start, v := n, uint32(0)
		for ; n < len(text) && text[n]-'0' <= 9; n++ {
			v = v*10 + uint32(text[n]-'0')
			if v > 255 {
				return 0, 0, "has a part above 255"
			}
			if n > start && text[start] == '0' {
				return 0, 0, "has a part with a leading zero"
			}
		}
		if n == start {
			return 0, 0, notAddress
		}
		a = a<<8 | v
		dot := n < len(text) && text[n] == '.'
		switch {
		case part == 3 && dot:
			return 0, 0, "has more than four parts"
		case part == 3:
			return a, n, ""
		case !dot:
			return 0, 0, "has fewer than four parts"
		}
		n++
	}
}

// scan6 reads groups of up to four hexadecimal digits, one "::" among them,
// and an IPv4 address in place of the last two groups.
func scan6(text []byte) (a Addr, n int, problem string) {
	var groups [8]uint16
	count, ellipsis := 0, -1
	if len(text) >= 2 && text[0] == ':' && text[1] == ':' {
		ellipsis, n = 0, 2
	}
	for count < 8 {
		start, v := n, uint32(0)
		for ; n < len(text) && isHex(text[n]); n++ {
			if n-start == 4 {
				return a, 0, "has a group of more than four digits"
			}
			v = v<<4 | hexValue(text[n])
		}
		if n == start {
			if ellipsis == count {
				break // "::" ends the address
			}
			return a, 0, notAddress
		}
		if n < len(text) && text[n] == '.' {
			v4, m, problem := scan4(text[start:])
			if problem != "" {
				return a, 0, problem
			}
			if count > 6 || ellipsis < 0 && count != 6 {
				return a, 0, "has an IPv4 part at the wrong place"
			}
			groups[count], groups[count+1] = uint16(v4>>16), uint16(v4)
			count, n = count+2, start+m
			break
		}
		groups[count] = uint16(v)
		count++
		if n == len(text) || text[n] != ':' {
			break
		}
		switch {
		case n+1 < len(text) && text[n+1] == ':':
			if ellipsis >= 0 {
				return a, 0, `has "::" twice`
			}
			ellipsis, n = count, n+2
		case count == 8:
			return a, 0, "has more than eight groups"
		default:
			n++
		}
	}
	switch {
	case ellipsis < 0 && count < 8:
		return a, 0, "has fewer than eight groups"
	case ellipsis >= 0 && count == 8:
		return a, 0, `has "::" beside eight groups`
	case ellipsis >= 0:
		tail := count - ellipsis
		copy(groups[8-tail:], groups[ellipsis:count])
		clear(groups[ellipsis : 8-tail])
	}
	for i := range 4 {
		a.Hi = a.Hi<<16 | uint64(groups[i])
		a.Lo = a.Lo<<16 | uint64(groups[4+i])
	}
	return a, n, ""
}

// scanBits reads a prefix length, which must be all of text.
func scanBits(text []byte, width int) (bits int, problem string) {
	for _, c := range text {
		if c-'0' > 9 {
			return 0, "has a prefix length that is not a number"
		}
	}
	if len(text) > 1 && text[0] == '0' {
		return 0, "has a prefix length with a leading zero"
	}
	for _, c := range text {
		if bits = bits*10 + int(c-'0'); bits > width {
			if width == 32 {
				return 0, "has a prefix length above 32"
			}
			return 0, "has a prefix length above 128"
		}
	}
	if len(text) == 0 {
		return 0, "has no prefix length"
	}
	return bits, ""
}

func unexpected(c byte) string {
	switch c {
	case '%':
		return "has a zone; egate tells interfaces apart by the interfaces key only"
	case ' ', '\t':
		return "has text after it; a comment begins with #"
	}
	return "is not an address, a prefix or a range a-b"
}

func elementError(text []byte, problem string) error {
	return fmt.Errorf("%s %s", Quote(text), problem)
}

func hostBitsError(text []byte, s scanned, bits int) error {
	ip := s.addr.Netip()
	if s.width == 128 {
		ip = netip.AddrFrom16(ip.As16())
	}
	return fmt.Errorf("%s has host bits set; the prefix is %s", Quote(text), netip.PrefixFrom(ip, bits).Masked())
}

// Quote is text in double quotes, shortened to what fits a message.
func Quote(text []byte) string {
	const most = 60
	if len(text) > most {
		return fmt.Sprintf("%q...", text[:most])
	}
	return fmt.Sprintf("%q", text)
}
