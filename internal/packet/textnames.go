package packet

import (
	"fmt"
	"slices"
	"strings"

	"egate/internal/domain"
	"egate/internal/verdict"
)

const expectName = "domain names, e.g. name=registry.example.com or name=a.example,b.example"

// parseNames takes what the destination is known as; the word may come again.
func (p *textParser) parseNames(value string, w word) error {
	for text := range strings.SplitSeq(value, ",") {
		name, err := domain.ParseName(text)
		switch {
		case err != nil:
			return errAt(w.column, expectName, "%v", err)
		case slices.Contains(p.extras.Names, name):
			return errAt(w.column, "each name once, e.g. name=a.example,b.example", "%s says %s again", w.quote(), name)
		case len(p.extras.Names) == MaxNames:
			return errAt(w.column, fmt.Sprintf("up to %d names", MaxNames), "egate remembers no more names of an address")
		}
		p.extras.Names = append(p.extras.Names, name)
	}
	if p.names.column == 0 {
		p.names = w
	}
	return nil
}

// finishNames checks that there is somebody whom the names belong to.
func (p *textParser) finishNames() error {
	switch {
	case len(p.extras.Names) == 0:
	case p.key.Direction != verdict.Egress:
		return errAt(p.names.column, "name=NAME only in a packet that goes out", "names are known of destinations, and this packet comes in")
	case !p.key.Has(HaveDst):
		return errAt(p.names.column, "a destination that can be read, e.g. tcp 10.0.0.5 -> 93.184.216.34:443 name=example.com",
			"a destination that cannot be read has no name")
	}
	return nil
}
