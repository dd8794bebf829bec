package datapath

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestTwoWritersAtOnce: both succeed, one after the other, and readers meet a
// whole gate whose counters never go back.
func TestTwoWritersAtOnce(t *testing.T) {
	w := newWorld(t, HookAuto)
	p := w.newProbe(1000, 2000)
	sets := [2]string{onlyPorts(1000), onlyPorts(2000)}
	w.apply(sets[0])
	var writers sync.WaitGroup
	for i := range sets {
		writers.Go(func() {
			set := testSet(t, sets[i])
			for range 15 {
				if _, err := w.tryApply(set, w.options()); err != nil {
					t.Errorf("writer %d: %v", i, err)
				}
				// Commands do not take the lock again at once; the one that waits
				// looks every lockPoll.
				time.Sleep(2 * lockPoll)
			}
		})
	}
	finished := make(chan struct{})
	go func() { writers.Wait(); close(finished) }()
	var last uint64
	for reading := 0; ; reading++ {
		p.send(3000)
		s, err := ReadStatus(w.gate)
		if err != nil {
			t.Fatalf("status: %v", err)
		}
		if now := s.Chains[0].Fallback.Dropped.Packets; now < last || s.State != Enforcing {
			t.Fatalf("state %s, problems %q, %d packets dropped by default after %d", s.State, s.Problems, now, last)
		} else {
			last = now
		}
		select {
		case <-finished:
			if one, two := p.passes(1000), p.passes(2000); one == two {
				t.Errorf("port 1000 passes: %v, port 2000: %v", one, two)
			}
			if s := w.status(); s.Generation != 31 {
				t.Errorf("generation %d, want 31", s.Generation)
			}
			t.Logf("%d readings", reading)
			return
		default:
		}
	}
}

func TestBusySaysWho(t *testing.T) {
	w := newWorld(t, HookAuto)
	h, err := lockHost()
	if err != nil {
		t.Fatal(err)
	}
	defer h.lock.Close()
	f, err := os.Open(w.bpffs)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	err = lockFile(f, time.Now())
	wantError(t, "lock", err, ErrBusy)
	if err != nil && !strings.Contains(err.Error(), fmt.Sprintf("pid %d", os.Getpid())) {
		t.Errorf("lock: %v; want the pid %d", err, os.Getpid())
	}
}
