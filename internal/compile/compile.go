// Package compile is stage 2: a policy model to tables. Compile is a pure
// function: equal policies give equal tables, byte for byte, whatever machine
// or run. It needs no kernel and no privilege.
//
// Each dimension is compiled by itself: the rules are sorted into groups that
// ask for the same, the boundaries of what the groups ask for are walked in
// order, and every combination of groups met on the way becomes a class. The
// cost grows with the number of boundaries, not with rules times boundaries.
// Before that, rules without a name that are treated alike become one rule.
package compile

import (
	"errors"
	"fmt"
	"slices"

	"egate/internal/policy"
	"egate/internal/tables"
	"egate/internal/verdict"
)

// ErrTooLarge says that a policy does not fit into the tables' encoding, or
// holds more than package policy allows. The error around it names the limit
// and what to do; where one place of the policy passes it, it is a LimitError.
var ErrTooLarge = errors.New("policy too large")

// ErrModel says that a policy could not have come from package policy.
var ErrModel = errors.New("invalid policy model")

// Compile turns a policy into tables. Warnings come egress first, of each
// direction those about rules that can never match before those about names,
// in the order of the rules. The tables share nothing with the policy that may change.
// Errors wrap ErrTooLarge or ErrModel.
func Compile(p *policy.Policy) (*tables.Set, policy.Problems, error) {
	set := &tables.Set{
		Name:       p.Name,
		Interfaces: slices.Clone(p.Interfaces),
		Audit:      p.Audit,
		MaxFlows:   p.MaxFlows,
	}
	set.DNS = compileDNS(p)
	var warnings policy.Problems
	for _, dir := range verdict.Directions {
		model, opposite := &p.Chains[dir], &p.Chains[dir.Opposite()]
		if err := validate(dir, model); err != nil {
			return nil, nil, err
		}
		chain := &set.Chains[dir]
		chain.Default, chain.Replies, chain.Events = model.Default, model.Replies, model.Events
		chain.Track = opposite.Replies && opposite.Default != verdict.Allow
		plan := mergeRules(model.Rules, !searchable(model.Rules), tables.MaxRules)
		if err := plan.checkLimit(dir); err != nil {
			return nil, nil, err
		}
		dims, err := compileChain(chain, plan)
		if err != nil {
			return nil, nil, fmt.Errorf("compile %s rules: %w", dir, err)
		}
		warnings = append(warnings, limitWarnings(plan.unreachable(chain, dims), "rules from here on can never match")...)
		warnings = append(warnings, nameWarnings(model.Rules)...)
	}
	warnings = append(warnings, dnsWarnings(p)...)
	return set, warnings, nil
}

// dimensions is what the chain's dimensions were compiled from; nil where no
// rule asks.
type dimensions [tables.DimensionCount]*dimension

// compileChain fills c with the rules and their dimensions.
func compileChain(c *tables.Chain, plan *merged) (dimensions, error) {
	rules := plan.chain()
	plan.describe(c)
	c.Words = (len(rules) + 63) / 64
	c.Deciding = make([]uint64, c.Words)
	for i := range rules {
		if rules[i].Action.Decides() {
			c.Deciding[i/64] |= 1 << (i % 64)
		}
	}
	var dims dimensions
	for d := range tables.DimensionCount {
		var dim *dimension
		var err error
		switch d {
		case tables.Destination, tables.Source:
			dim, err = compileAddresses(&c.Addresses[d], groupAddresses(rules, d))
		case tables.Name:
			dim, err = compileNames(&c.Names, groupNames(rules), rules)
		default:
			dim, err = compileSelectors(&c.Selectors[d-tables.Service], groupServices(rules, d))
		}
		if err != nil {
			return dims, fmt.Errorf("%s: %w", d, err)
		}
		if dim != nil {
			dims[d] = dim
			c.Used[d] = true
			dim.expand(len(rules))
			c.Vectors[d] = dim.table()
		}
	}
	return dims, nil
}

// validate keeps what package policy never builds away from the tables.
func validate(dir verdict.Direction, c *policy.Chain) error {
	if len(c.Rules) > policy.MaxRules {
		return fmt.Errorf("compile %s rules: %d rules, at most %d; put the addresses of rules that are treated alike into a set: %w", dir, len(c.Rules), policy.MaxRules, ErrTooLarge)
	}
	if c.Default > verdict.Reject {
		return fmt.Errorf("compile %s rules: default %s does not decide: %w", dir, c.Default, ErrModel)
	}
	continues := 0
	for i := range c.Rules {
		r := &c.Rules[i]
		if r.Action > verdict.Continue {
			return fmt.Errorf("compile %s rule %s: unknown %s: %w", dir, r.Label(i), r.Action, ErrModel)
		}
		if r.Action == verdict.Continue {
			continues++
		}
		if err := validateNames(dir, r); err != nil {
			return fmt.Errorf("compile %s rule %s: %w", dir, r.Label(i), err)
		}
		for _, list := range [2][]policy.Service{r.Services, r.SourcePorts} {
			for _, s := range list {
				if !s.Whole && s.First > s.Last {
					return fmt.Errorf("compile %s rule %s: selectors %d-%d run backwards: %w", dir, r.Label(i), s.First, s.Last, ErrModel)
				}
			}
		}
	}
	if continues > policy.MaxContinueRules {
		return fmt.Errorf("compile %s rules: %d continue rules, at most %d; every one may cost work on every packet: %w", dir, continues, policy.MaxContinueRules, ErrTooLarge)
	}
	return nil
}
