package contender

import (
	"fmt"
	"net/netip"
	"reflect"
	"testing"

	"egate/bench/prefixes"
)

// listed says by a walk over the rules or prefixes whether a task lists a
// packet of UDP.
func listed(t *Task, to netip.AddrPort) bool {
	for _, r := range t.Rules {
		if r.Protocol == "udp" && r.Port == to.Port() && r.To.Contains(to.Addr()) {
			return true
		}
	}
	if t.Prefixes != nil {
		for _, p := range t.Prefixes.Prefixes {
			if p.Contains(to.Addr()) {
				return true
			}
		}
	}
	return false
}

func TestTasksSayWhatTheyList(t *testing.T) {
	for _, family := range []prefixes.Family{prefixes.IPv4, prefixes.IPv6} {
		for _, n := range []int{1, 2, 20, 1000} {
			for kind, task := range map[string]Task{
				"rules":    Rules(family, Drop, n, 64),
				"prefixes": Prefixes(prefixes.New(family, n), Drop, 64),
			} {
				name := fmt.Sprintf("%d %s of %v", n, kind, family)
				if task.Size() != n || len(task.Listed) != 64 || len(task.Unlisted) != 64 {
					t.Errorf("%s: size %d, %d listed, %d unlisted", name, task.Size(), len(task.Listed), len(task.Unlisted))
				}
				for _, to := range task.Listed {
					if !listed(&task, to) {
						t.Errorf("%s: %v is not listed", name, to)
					}
				}
				for _, to := range task.Unlisted {
					if listed(&task, to) {
						t.Errorf("%s: %v is listed", name, to)
					}
				}
			}
			if a, b := Rules(family, Drop, n, 64), Rules(family, Drop, n, 64); !reflect.DeepEqual(a, b) {
				t.Errorf("%d rules of %v differ from one time to the next", n, family)
			}
		}
	}
}

func TestPassing(t *testing.T) {
	task := Rules(prefixes.IPv4, Drop, 4, 8)
	if !reflect.DeepEqual(task.Passing(), task.Unlisted) || !reflect.DeepEqual(task.Dropped(), task.Listed) {
		t.Error("a drop list passes what it does not list")
	}
	task.Action = Allow
	if !reflect.DeepEqual(task.Passing(), task.Listed) || !reflect.DeepEqual(task.Dropped(), task.Unlisted) {
		t.Error("an allow list passes what it lists")
	}
}
