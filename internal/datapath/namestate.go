package datapath

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/cilium/ebpf"

	"egate/internal/domain"
	"egate/internal/tables"
)

// Names of the maps of the state that hold what was learned of names. They are
// made for the first policy that uses names, all of them together, and stay
// when a policy follows that does not: it works on small maps of its own, and
// the next one finds what is still alive. Those of the program have their names
// from bpf/include/maps.h.
const (
	nameKeyMap      = "name_key" // u64[2]: the key under which names are hashed; never changed while the maps live
	sweptMap        = "swept"    // u64 each: what was taken out of and put into maps of names by other than programs
	learnedMap      = "learned"
	namesMap        = "names"
	questionsMap    = "questions"
	bindingsMap     = "bindings"
	streamsMap      = "streams"
	streamRoomsMap  = "stream_rooms"
	nameTotalsMap   = "name_totals"
	questionTimeMap = "question_time"
	unreadMap       = "unread"
)

// programNameMaps are those that programs use. `learned` stands last: it tells
// whether twins are in force, see settleTwins, and that they are complete.
var programNameMaps = []string{
	unreadMap, questionTimeMap, nameTotalsMap, streamRoomsMap, streamsMap, bindingsMap, questionsMap, namesMap, learnedMap,
}

var nameStateMaps = append([]string{nameKeyMap, sweptMap}, programNameMaps...)

// nameMapSizes are the sizes of the maps of names: entries, or bytes of the
// ring. LRU maps take all of their memory at once, 37 MB together: what stands
// behind each is what Linux 6.18 says of it.
var nameMapSizes = map[string]uint32{
	learnedMap:     32768,   // addresses; 9.7 MB
	namesMap:       32768,   // texts; 11.5 MB
	questionsMap:   8192,    // without an answer yet; 1.0 MB
	bindingsMap:    65536,   // connections that go by a name; 9.4 MB
	streamsMap:     8192,    // connections whose first request, or whose DNS, is being read; 0.9 MB
	streamRoomsMap: 256,     // of these, such as have an unfinished message; 4.2 MB
	unreadMap:      1 << 18, // about 800 answers; 0.3 MB
}

// What stands where in map `swept`. Programs count what they enter into maps
// of names; with what others enter and remove, evictions can be told from it.
const (
	sweptAddresses uint32 = iota // taken out
	sweptNames
	sweptQuestions
	sweptBindings
	sweptStreams
	addedAddresses // put in
	addedNames
	sweptEntries
)

// newNameState makes the maps of names, puts them into s and pins them under
// their names with a suffix.
func (g *gate) newNameState(s state, suffix string) error {
	specs, err := stateSpecs()
	if err != nil {
		return err
	}
	for _, name := range nameStateMaps {
		if err := step("names"); err != nil {
			return err
		}
		if err := g.newStateMap(s, specs[name], name, suffix); err != nil {
			return err
		}
	}
	return writeNameKey(s[nameKeyMap])
}

// writeNameKey makes up a key.
func writeNameKey(m *ebpf.Map) error {
	var random [16]byte
	if _, err := rand.Read(random[:]); err != nil {
		return fmt.Errorf("make key of names: %w", err)
	}
	if err := m.Put(uint32(0), random); err != nil {
		return fmt.Errorf("write key of names: %w", err)
	}
	return nil
}

// needNameState opens the maps of names for a policy that uses them. If there
// are none it makes them, as twins: they get their names when a policy that
// uses them is in force for good.
func (g *gate) needNameState(s state, set *tables.Set) error {
	if !set.DNS.InUse || s[learnedMap] != nil {
		return nil
	}
	_, err := os.Stat(g.path(statePin, learnedMap))
	if errors.Is(err, fs.ErrNotExist) {
		return g.newNameState(s, twinSuffix)
	}
	if err != nil {
		return fmt.Errorf("look for %s of the state: %w", learnedMap, err)
	}
	return g.openStateMaps(s, nameStateMaps)
}

// nameKey reads the key under which the gate hashes names; the zero key where
// the state has none.
func (s state) nameKey() (key domain.Key, err error) {
	m := s[nameKeyMap]
	if m == nil {
		return key, nil
	}
	raw, err := m.LookupBytes(uint32(0))
	if err != nil {
		return key, fmt.Errorf("read key of names: %w", err)
	}
	if len(raw) != 16 {
		return key, fmt.Errorf("read key of names: it has %d bytes: %w", len(raw), ErrDamaged)
	}
	for i := range key {
		key[i] = binary.NativeEndian.Uint64(raw[8*i:])
	}
	return key, nil
}
