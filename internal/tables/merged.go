package tables

import (
	"fmt"

	"egate/internal/packet"
	"egate/internal/policy"
)

// Merged tells whether the rule stands for several of the policy.
func (r *Rule) Merged() bool { return r.Count > 1 }

// Lines is where the rule stands in the policy file, as "line 5" or "lines
// 5-104".
func (r *Rule) Lines() string { return linesText(r.Line, r.LastLine) }

func linesText(first, last int) string {
	if last <= first {
		return fmt.Sprintf("line %d", first)
	}
	return fmt.Sprintf("lines %d-%d", first, last)
}

// Members gives the indexes of the policy's rules that rule r stands for, in
// order.
func (c *Chain) Members(r int) func(yield func(int) bool) {
	rule := &c.Rules[r]
	return func(yield func(int) bool) {
		for i := rule.First; i <= rule.Last && i < len(c.Of); i++ {
			if int(c.Of[i]) == r && !yield(i) {
				return
			}
		}
	}
}

// Member finds which of the policy's rules that rule r stands for a packet
// meets first: its index in rules, the chain that c was compiled from. names is
// what the destination is known as. ok is false if it meets none, as where a
// fragment follows the verdict of another.
func (c *Chain) Member(rules []policy.Rule, r int, k *packet.Key, names []string) (index int, ok bool) {
	for i := range c.Members(r) {
		if i < len(rules) && rules[i].Matches(k, names) {
			return i, true
		}
	}
	return 0, false
}

// PolicyRules is how many rules the policy's chain has.
func (c *Chain) PolicyRules() int { return len(c.Of) }
