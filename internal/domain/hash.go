package domain

import (
	"encoding/binary"
	"math/bits"
)

// Key is the secret under which names are hashed. Each gate has its own, so
// that nobody can make up names that collide.
type Key [2]uint64

// Hash is the twin of hash_name in bpf/include/names.h: SipHash-1-3 (Aumasson
// and Bernstein, 2012; the form with one round a word and three at the end)
// over the labels from the last to the first. Each label is its length and its
// bytes, filled up with zeros to whole words of 8 bytes. There is no last word
// with the length of it all, so that the hash of a name is on the way to those
// of the names below it; who could make use of that never sees a hash. name is
// in egate's form; "" is the root.
func (k Key) Hash(name string) uint64 {
	s := newSip(k)
	for end := len(name); end > 0; {
		start := end
		for start > 0 && name[start-1] != '.' {
			start--
		}
		s.label(name[start:end])
		end = start - 1
	}
	return s.sum()
}

type sip struct{ v0, v1, v2, v3 uint64 }

func newSip(k Key) sip {
	return sip{k[0] ^ 0x736f6d6570736575, k[1] ^ 0x646f72616e646f6d, k[0] ^ 0x6c7967656e657261, k[1] ^ 0x7465646279746573}
}

func (s *sip) round() {
	s.v0 += s.v1
	s.v1 = bits.RotateLeft64(s.v1, 13) ^ s.v0
	s.v0 = bits.RotateLeft64(s.v0, 32)
	s.v2 += s.v3
	s.v3 = bits.RotateLeft64(s.v3, 16) ^ s.v2
	s.v0 += s.v3
	s.v3 = bits.RotateLeft64(s.v3, 21) ^ s.v0
	s.v2 += s.v1
	s.v1 = bits.RotateLeft64(s.v1, 17) ^ s.v2
	s.v2 = bits.RotateLeft64(s.v2, 32)
}

// label takes one label in.
func (s *sip) label(label string) {
	block := make([]byte, (1+len(label)+7)&^7)
	block[0] = byte(len(label))
	copy(block[1:], label)
	for ; len(block) > 0; block = block[8:] {
		word := binary.LittleEndian.Uint64(block)
		s.v3 ^= word
		s.round()
		s.v0 ^= word
	}
}

// sum gives the hash of what was taken in, and never 0, which stands for no name.
func (s sip) sum() uint64 {
	s.v2 ^= 0xff
	s.round()
	s.round()
	s.round()
	if h := s.v0 ^ s.v1 ^ s.v2 ^ s.v3; h != 0 {
		return h
	}
	return 1
}
