package cli

import (
	"fmt"
	"strings"

	"egate/internal/cli/table"
	"egate/internal/tables"
	"egate/internal/verdict"
)

// policyTitle is "policy NAME", or "the policy" where it has none.
func policyTitle(name string) string {
	if name == "" {
		return "the policy"
	}
	return "policy " + table.Clean(name)
}

// list joins a few names.
func list(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return table.Clean(strings.Join(names, ", "))
}

// rulesText is "5 egress rules and 1 ingress rule".
func rulesText(set *tables.Set) string {
	return fmt.Sprintf("%s and %s",
		table.Plural(set.Chains[verdict.Egress].PolicyRules(), "egress rule"),
		table.Plural(set.Chains[verdict.Ingress].PolicyRules(), "ingress rule"))
}

// mergedText is ", merged to 3" where rules were merged.
func mergedText(c *tables.Chain) string {
	if c.PolicyRules() == len(c.Rules) {
		return ""
	}
	return ", merged to " + table.Count(uint64(len(c.Rules)))
}
