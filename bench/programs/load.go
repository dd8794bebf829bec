// Package programs stands beside the stages: it holds the BPF programs that
// egate is measured against, and measures them and egate's own by test runs
// (BPF_PROG_TEST_RUN), which time a program alone, without a network around it.
package programs

import (
	"errors"
	"fmt"
	"io"
	"net/netip"

	"github.com/cilium/ebpf"
)

// LoadEmpty loads the program that does nothing. The caller closes.
func LoadEmpty() (*ebpf.Program, io.Closer, error) {
	var o struct {
		Program *ebpf.Program `ebpf:"empty"`
	}
	if err := loadContendersObjects(&o, nil); err != nil {
		return nil, nil, fmt.Errorf("load program empty: %w", err)
	}
	return o.Program, o.Program, nil
}

// LoadICMPDrop loads the program that drops ICMP and ICMPv6. The caller closes.
func LoadICMPDrop() (*ebpf.Program, io.Closer, error) {
	var o struct {
		Program *ebpf.Program `ebpf:"icmp_drop"`
	}
	if err := loadContendersObjects(&o, nil); err != nil {
		return nil, nil, fmt.Errorf("load program icmp_drop: %w", err)
	}
	return o.Program, o.Program, nil
}

// trieObjects is the program with its maps.
type trieObjects struct {
	Program   *ebpf.Program `ebpf:"trie"`
	Prefixes4 *ebpf.Map     `ebpf:"prefixes4"`
	Prefixes6 *ebpf.Map     `ebpf:"prefixes6"`
}

func (o *trieObjects) Close() error {
	return errors.Join(o.Program.Close(), o.Prefixes4.Close(), o.Prefixes6.Close())
}

// LoadTrie loads the program that drops packets to the prefixes, which it keeps
// in LPM tries of the kernel, filled in the order given. The caller closes.
func LoadTrie(prefixes []netip.Prefix) (*ebpf.Program, io.Closer, error) {
	var keys4 []contendersKey4
	var keys6 []contendersKey6
	for _, p := range prefixes {
		p = p.Masked()
		if p.Addr().Is4() {
			k := contendersKey4{Bits: uint32(p.Bits())}
			k.Address = p.Addr().As4()
			keys4 = append(keys4, k)
		} else {
			k := contendersKey6{Bits: uint32(p.Bits())}
			k.Address = p.Addr().As16()
			keys6 = append(keys6, k)
		}
	}
	spec, err := loadContenders()
	if err != nil {
		return nil, nil, fmt.Errorf("load program trie: %w", err)
	}
	spec.Maps["prefixes4"].MaxEntries = uint32(max(1, len(keys4)))
	spec.Maps["prefixes6"].MaxEntries = uint32(max(1, len(keys6)))
	o := &trieObjects{}
	if err := spec.LoadAndAssign(o, nil); err != nil {
		return nil, nil, fmt.Errorf("load program trie: %w", err)
	}
	if err := errors.Join(fill(o.Prefixes4, keys4), fill(o.Prefixes6, keys6)); err != nil {
		return nil, nil, errors.Join(err, o.Close())
	}
	return o.Program, o, nil
}

// fill writes keys whose values say nothing.
func fill[K any](m *ebpf.Map, keys []K) error {
	if len(keys) == 0 {
		return nil
	}
	if _, err := m.BatchUpdate(keys, make([]uint8, len(keys)), nil); err != nil {
		return fmt.Errorf("fill trie: %w", err)
	}
	return nil
}
