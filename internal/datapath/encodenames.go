package datapath

import (
	"fmt"
	"slices"
	"strings"

	"egate/internal/domain"
	"egate/internal/policy"
	"egate/internal/tables"
	"egate/internal/verdict"
)

// sharedType is the bit that stands for all types of questions above it.
const sharedType = 255

// encodeNames lays out what the policy says of names and of DNS.
func encodeNames(set *tables.Set, key domain.Key) abiEgateNamesConfig {
	dns := &set.DNS
	out := abiEgateNamesConfig{
		Key:            key,
		InUse:          1,
		ListedOnly:     bit(dns.ListedOnly),
		Nxdomain:       bit(dns.NXDomain),
		CheckTypes:     bit(dns.Types != nil),
		MaxLabel:       dns.MaxLabel,
		RateIntervalNs: uint64(dns.Rate.Interval.Nanoseconds()),
		RateBurst:      dns.Rate.Burst,
		Elsewhere:      uint8(dns.Elsewhere),
	}
	if out.MaxLabel == 0 { // nothing said
		out.MaxLabel = domain.MaxLabel
	}
	for _, t := range dns.Types {
		t = min(t, sharedType)
		out.Types[t/64] |= 1 << (t % 64)
	}
	egress := &set.Chains[verdict.Egress]
	for i := range egress.Names.Entries {
		out.Deepest = max(out.Deepest, uint8(1+strings.Count(egress.Names.Entries[i].Name, ".")))
	}
	return out
}

// refusesNames tells whether an egress packet may be rejected for a name or for
// being DNS, whatever the rules' actions are.
func refusesNames(set *tables.Set) bool {
	if set.DNS.InUse { // a segment of DNS that can't be read is rejected
		return true
	}
	for i := range set.Chains[verdict.Egress].Rules {
		if r := &set.Chains[verdict.Egress].Rules[i]; r.Verify != policy.VerifyNone || r.DropECH || r.DropQUIC {
			return true
		}
	}
	return false
}

// ruleFlags is what a rule says of names, as enum egate_rule_flag.
func ruleFlags(r *tables.Rule) uint8 {
	var flags abiEgateRuleFlag
	if r.Named {
		flags |= abiEgateRuleFlagEGATE_RULE_NAMED
	}
	switch r.Verify {
	case policy.VerifyWellKnown:
		flags |= abiEgateRuleFlagEGATE_RULE_VERIFY
	case policy.VerifyAll:
		flags |= abiEgateRuleFlagEGATE_RULE_VERIFY | abiEgateRuleFlagEGATE_RULE_VERIFY_ALL
	}
	if r.DropECH {
		flags |= abiEgateRuleFlagEGATE_RULE_ECH_DROP
	}
	if r.DropQUIC {
		flags |= abiEgateRuleFlagEGATE_RULE_QUIC_DROP
	}
	return uint8(flags)
}

// encodeDomains gives the names that the policy's patterns mention by their
// hashes. Two names of one hash would be one, so they are an error.
func encodeDomains(t *tables.NameTable, key domain.Key) (hashes []uint64, values []abiEgateDomain, err error) {
	hashes, values = make([]uint64, len(t.Entries)), make([]abiEgateDomain, len(t.Entries))
	for i := range t.Entries {
		e := &t.Entries[i]
		hashes[i] = key.Hash(e.Name)
		values[i] = abiEgateDomain{Exact: e.Exact, Below: e.Below, AskExact: bit(e.AskExact), AskBelow: bit(e.AskBelow)}
	}
	sorted := slices.Sorted(slices.Values(hashes))
	for i := 1; i < len(sorted); i++ {
		if sorted[i] != sorted[i-1] {
			continue
		}
		one := slices.Index(hashes, sorted[i])
		other := one + 1 + slices.Index(hashes[one+1:], sorted[i])
		return nil, nil, fmt.Errorf("hash names: %s and %s have the same hash under this gate's key, so one could not be told from the other; `egate off` and apply again makes another key: %w",
			t.Entries[one].Name, t.Entries[other].Name, ErrUnsupported)
	}
	return hashes, values, nil
}
