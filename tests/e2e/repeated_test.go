package e2e

import (
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"

	"egate/internal/testutil"
)

// repeatedSYNs counts, for each test, the SYNs that its probes have sent a
// second time: a probe that a busy machine kept from ending in time. Each one
// was judged like the first, so a test's counters of dropped packets are
// higher by exactly as many.
var repeatedSYNs struct {
	sync.Mutex
	of map[testing.TB]uint64
}

// noteRepeatedSYNs runs a probe and notes what it sent again.
func noteRepeatedSYNs(t testing.TB, from *testutil.Netns, probe func()) {
	t.Helper()
	before := sentAgain(t, from)
	probe()
	if n := sentAgain(t, from) - before; n > 0 {
		t.Logf("the machine is busy: %d SYN sent again", n)
		repeatedSYNs.Lock()
		defer repeatedSYNs.Unlock()
		if repeatedSYNs.of == nil {
			repeatedSYNs.of = map[testing.TB]uint64{}
		}
		repeatedSYNs.of[t] += n
	}
}

// sentAgain reads the kernel's own count of SYNs that a namespace has sent
// again: the field TCPSynRetrans of /proc/net/netstat, whose lines come in
// pairs, names and numbers.
func sentAgain(t testing.TB, in *testutil.Netns) uint64 {
	t.Helper()
	var text []byte
	var err error
	in.Run(func() { text, err = os.ReadFile("/proc/thread-self/net/netstat") })
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	for i := 0; i+1 < len(lines); i += 2 {
		names, numbers := strings.Fields(lines[i]), strings.Fields(lines[i+1])
		for j, name := range names {
			if name == "TCPSynRetrans" && j < len(numbers) {
				n, err := strconv.ParseUint(numbers[j], 10, 64)
				if err != nil {
					t.Fatalf("parse TCPSynRetrans: %v", err)
				}
				return n
			}
		}
	}
	t.Fatal("/proc/net/netstat has no TCPSynRetrans")
	return 0
}

// withRepeatedSYNs are the wanted counters with the SYNs that were sent again,
// which fell on rules or defaults that drop, and on their reasons. If it was
// not as many as that, nothing is allowed for.
func (want counts) withRepeatedSYNs(t testing.TB, got counts) counts {
	repeatedSYNs.Lock()
	repeated := repeatedSYNs.of[t]
	repeatedSYNs.Unlock()
	if repeated == 0 {
		return want
	}
	adjusted := counts{}
	var byRule, byReason uint64
	for key, n := range want {
		adjusted[key] = n
		isReason := strings.Contains(key, ": ")
		if n == some || got[key] <= n || !isReason && !strings.HasSuffix(key, " dropped") {
			continue
		}
		adjusted[key] = got[key]
		if isReason {
			byReason += got[key] - n
		} else {
			byRule += got[key] - n
		}
	}
	if byRule != repeated || byReason > repeated {
		return want
	}
	return adjusted
}
