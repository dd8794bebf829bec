// Package result is what a run of the benchmarks found, as it is printed,
// drawn and kept as JSON.
package result

import "time"

// Run is everything one run measured.
type Run struct {
	Started time.Time     `json:"started"`
	Took    time.Duration `json:"took_ns"`
	Form    string        `json:"form"` // quick or full
	Machine Machine       `json:"machine"`
	Sheets  []Sheet       `json:"sheets"`
}

// Machine is where it ran.
type Machine struct {
	CPU      string            `json:"cpu"`
	CPUs     int               `json:"cpus"`
	MemoryMB int               `json:"memory_mb"`
	Kernel   string            `json:"kernel"`
	Tools    map[string]string `json:"tools"` // versions: nft, iptables, ipset, iperf3, dnsmasq, egate
}

// Sheet is one figure: contenders over sizes, measured interleaved.
type Sheet struct {
	ID       string   `json:"id"` // file name of its plot
	Title    string   `json:"title"`
	Size     string   `json:"size"`               // what Point.Size counts: rules, prefixes
	Unit     string   `json:"unit"`               // of the values: ns, Mbit/s, ms, MB
	Baseline string   `json:"baseline,omitempty"` // the contender that Added is counted from
	Better   string   `json:"better"`             // lower or higher
	Points   []Point  `json:"points"`
	Notes    []string `json:"notes,omitempty"` // what was left out and why
}

// Point is one contender at one size.
type Point struct {
	Contender string    `json:"contender"`
	Size      int       `json:"size"`
	Value     Spread    `json:"value"`           // as measured
	Added     *Spread   `json:"added,omitempty"` // over the baseline of the same round and size
	Samples   []float64 `json:"samples"`
}

// Spread is a median with the quartiles around it.
type Spread struct {
	Median float64 `json:"median"`
	Low    float64 `json:"low"`  // first quartile
	High   float64 `json:"high"` // third quartile
}

// Names of contenders, as sheets show them.
const (
	Nothing       = "nothing"
	Empty         = "empty program"
	ICMPDrop      = "ICMP drop"
	Trie          = "LPM trie"
	NFTRules      = "nft rules"
	NFTSet        = "nft set"
	IPTablesRules = "iptables rules"
	IPSet         = "ipset"
	Dnsmasq       = "dnsmasq"              // forwards look-ups, and filters nothing
	DnsmasqNFTSet = "dnsmasq, nft set"     // writes addresses into a set of nftables before it answers
	Sniffer       = "ipset, reading along" // a program that reads answers beside their way
	Egate         = "egate"
	// Under a default of drop egate lets replies pass to whom has connected
	// from outside, unless the policy says otherwise. The others would need
	// conntrack for that, so egate does without it too, but here.
	EgateReplies = "egate with replies"
)
