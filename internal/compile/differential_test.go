package compile

import (
	"os"
	"reflect"
	"strconv"
	"testing"

	"egate/internal/oracle"
	"egate/internal/packet"
	"egate/internal/policy"
	"egate/internal/tables"
)

// pairsVariable sets how many policy and packet pairs TestLookupAgreesWithWalk
// judges.
const pairsVariable = "EGATE_PAIRS"

func seed(t testing.TB) uint64 {
	t.Helper()
	seed, err := oracle.Seed()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s=%d repeats this run", oracle.SeedVariable, seed)
	return seed
}

func mustCompile(t testing.TB, p *policy.Policy) *tables.Set {
	t.Helper()
	set, _, err := Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// compareWalk judges one packet both ways and tells whether they agree.
func compareWalk(t testing.TB, p *policy.Policy, set *tables.Set, k packet.Key, st tables.State) bool {
	t.Helper()
	want := oracle.InTables(&set.Chains[k.Direction], oracle.Walk(p, &k, st))
	got := set.Lookup(&k, st)
	if reflect.DeepEqual(got, want) {
		return true
	}
	t.Errorf("Lookup gives %+v, the walk %+v\npacket %+v\nstate %+v", got, want, k, st)
	return false
}

// stateOf makes what the kernel might remember, which is about rules of the
// tables.
func stateOf(gen *oracle.Generator, p *policy.Policy, set *tables.Set, k *packet.Key) tables.State {
	st := gen.State(p, k)
	if st.FragmentRule != tables.NoRule {
		st.FragmentRule = int(set.Chains[k.Direction].Of[st.FragmentRule])
	}
	return st
}

func TestLookupAgreesWithWalk(t *testing.T) {
	pairs := 300_000
	if text := os.Getenv(pairsVariable); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatalf("read %s: %v", pairsVariable, err)
		}
		pairs = n
	}
	const perPolicy = 300
	gen := oracle.NewGenerator(seed(t))
	byRule, byContinue, byMerged, byName, rules := 0, 0, 0, 0, 0
	for done := 0; done < pairs; done += perPolicy {
		p := gen.Policy()
		set := mustCompile(t, p)
		rules = max(rules, len(set.Chains[0].Rules))
		for range perPolicy {
			k := gen.Key(p)
			st := stateOf(gen, p, set, &k)
			if !compareWalk(t, p, set, k, st) {
				t.Fatalf("policy %d of the sequence", done/perPolicy)
			}
			res := set.Lookup(&k, st)
			if res.Rule != tables.NoRule {
				byRule++
				if c := &set.Chains[k.Direction]; res.Rule < len(c.Rules) {
					if c.Rules[res.Rule].Merged() {
						byMerged++
					}
					if c.Rules[res.Rule].Named {
						byName++
					}
				}
			}
			if len(res.Continues) > 0 {
				byContinue++
			}
		}
	}
	t.Logf("%d pairs, %d decided by a rule, %d of them by merged ones, %d by ones with names, %d passed a continue rule, largest chain %d rules", pairs, byRule, byMerged, byName, byContinue, rules)
	if byRule < pairs/20 || byMerged < pairs/50 || byName < pairs/100 || byContinue < pairs/100 {
		t.Error("too few packets meet a rule for the comparison to mean much")
	}
}

// FuzzCompile compares the walk and Lookup on the policies and packets that
// the seeds generate.
func FuzzCompile(f *testing.F) {
	f.Add(uint64(1), uint16(3), uint64(1))
	f.Add(uint64(2), uint16(64), uint64(7))
	f.Add(uint64(3), uint16(65), uint64(9))
	f.Add(uint64(4), uint16(0), uint64(0))
	f.Fuzz(func(t *testing.T, policySeed uint64, rules uint16, packetSeed uint64) {
		p := oracle.NewGenerator(policySeed).PolicyOf(int(rules) % 300)
		set := mustCompile(t, p)
		gen := oracle.NewGenerator(packetSeed)
		for range 20 {
			k := gen.Key(p)
			compareWalk(t, p, set, k, stateOf(gen, p, set, &k))
		}
	})
}
