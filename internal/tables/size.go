package tables

// Bytes that entries take in the kernel maps.
const (
	lineBytes     = 64
	wordBytes     = 8
	selectorBytes = 2 // of a row's and a page's entry; a protocol's is two
	ruleBytes     = 32
	nameBytes     = 80 // a hash table's element and its share of the buckets
)

// Size is how large the tables are.
type Size struct {
	Chains [2]ChainSize `json:"chains"` // indexed by verdict.Direction
	Bytes  int64        `json:"bytes"`  // of both chains in the kernel maps
}

// ChainSize is how large one chain's tables are.
type ChainSize struct {
	Rules       int                 `json:"rules"`
	Classes     [DimensionCount]int `json:"classes"` // of each dimension in use, class 0 included
	Lines       int                 `json:"lines"`   // of the address tables
	Rows        int                 `json:"rows"`
	Pages       int                 `json:"pages"`
	Names       int                 `json:"names"`        // of the table of names
	VectorWords int                 `json:"vector_words"` // with the summaries
	Bytes       int64               `json:"bytes"`
}

// Size counts the tables' entries and the bytes that they take in the kernel,
// without what the kernel adds for each map.
func (s *Set) Size() Size {
	var out Size
	for i := range s.Chains {
		out.Chains[i] = s.Chains[i].size()
		out.Bytes += out.Chains[i].Bytes
	}
	return out
}

func (c *Chain) size() ChainSize {
	out := ChainSize{Rules: len(c.Rules)}
	selectors := 0
	for d := range DimensionCount {
		if !c.Used[d] {
			continue
		}
		out.Classes[d] = c.ClassCount(d)
		out.VectorWords += len(c.Vectors[d].Words)
		switch d {
		case Destination, Source:
			out.Lines += len(c.Addresses[d].Lines)
		case Name:
			out.Names = len(c.Names.Entries)
		default:
			t := &c.Selectors[d-Service]
			out.Rows += len(t.Rows)
			out.Pages += len(t.Pages)
			selectors += 2*len(t.Protos) + 256*(len(t.Rows)+len(t.Pages))
		}
	}
	out.Bytes = int64(out.Lines)*lineBytes +
		int64(out.VectorWords)*wordBytes +
		int64(selectors)*selectorBytes +
		int64(out.Names)*nameBytes +
		int64(out.Rules)*ruleBytes
	return out
}

// ClassCount is how many classes a dimension has, class 0 included; 0 where it
// is not in use.
func (c *Chain) ClassCount(d Dimension) int {
	if !c.Used[d] {
		return 0
	}
	return len(c.Vectors[d].Words) / c.Vectors[d].Stride
}
