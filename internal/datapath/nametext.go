package datapath

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cilium/ebpf"
)

// wireLabels cuts a name as DNS writes it, without compression, into its
// labels. ok is false where length does not end with the root's label.
func wireLabels(wire []byte) (labels []string, ok bool) {
	for at := 0; at < len(wire); {
		n := int(wire[at])
		at++
		if n == 0 {
			return labels, at == len(wire)
		}
		if n > 63 || at+n > len(wire) {
			return nil, false
		}
		labels = append(labels, string(wire[at:at+n]))
		at += n
	}
	return nil, false
}

// nameText writes labels as people read names, without a dot at the end; ""
// is the root. Bytes that would not show stand as in zone files (RFC 1035, 5.1).
func nameText(labels []string) string {
	var text strings.Builder
	for i, label := range labels {
		if i > 0 {
			text.WriteByte('.')
		}
		for _, c := range []byte(label) {
			switch {
			case c == '.' || c == '\\':
				text.WriteByte('\\')
				text.WriteByte(c)
			case c <= ' ' || c >= 0x7f:
				fmt.Fprintf(&text, "\\%03d", c)
			default:
				text.WriteByte(c)
			}
		}
	}
	return text.String()
}

// text is the name for people; ok is false where it can't be one.
func (n *abiEgateName) text() (text string, ok bool) { return textOfWire(n.Wire[:], n.Length) }

// textOfWire reads a name of which the first bytes of wire are in use. The root
// is ".".
func textOfWire(wire []byte, length uint8) (text string, ok bool) {
	labels, ok := wireLabels(wire[:min(int(length), len(wire))])
	if !ok {
		return "", false
	}
	if len(labels) == 0 {
		return ".", true
	}
	return nameText(labels), true
}

// hashText reads a name's text by its hash; "" where it is forgotten.
func hashText(names *ebpf.Map, hash uint64) (string, error) {
	var n abiEgateName
	err := names.Lookup(hash, &n)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("look a name up: %w", err)
	}
	text, _ := n.text()
	return text, nil
}
