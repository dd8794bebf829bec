package policy

import "strings"

// questionType is a type of DNS questions that has a name here.
type questionType struct {
	name   string
	number uint16
}

const (
	typeA     = 1
	typeAAAA  = 28
	typeSVCB  = 64
	typeHTTPS = 65

	// sharedTypes and all above it are one to the kernel's table.
	sharedTypes = 255
)

// questionTypes are those that programs ask for, in the order of their numbers
// (IANA, Domain Name System Parameters).
var questionTypes = []questionType{
	{"A", typeA}, {"NS", 2}, {"CNAME", 5}, {"SOA", 6}, {"PTR", 12}, {"HINFO", 13}, {"MX", 15}, {"TXT", 16}, {"RP", 17},
	{"AFSDB", 18}, {"AAAA", typeAAAA}, {"LOC", 29}, {"SRV", 33}, {"NAPTR", 35}, {"CERT", 37}, {"DNAME", 39}, {"DS", 43},
	{"SSHFP", 44}, {"RRSIG", 46}, {"NSEC", 47}, {"DNSKEY", 48}, {"NSEC3", 50}, {"NSEC3PARAM", 51}, {"TLSA", 52},
	{"SMIMEA", 53}, {"CDS", 59}, {"CDNSKEY", 60}, {"OPENPGPKEY", 61}, {"SVCB", typeSVCB}, {"HTTPS", typeHTTPS}, {"SPF", 99},
	{"IXFR", 251}, {"AXFR", 252}, {"ANY", 255}, {"URI", 256}, {"CAA", 257},
}

func typeNames() []string {
	out := make([]string, len(questionTypes))
	for i, t := range questionTypes {
		out[i] = t.name
	}
	return out
}

// parseType reads a name, or TYPE and a number (RFC 3597).
func parseType(text string) (uint16, bool) {
	for _, t := range questionTypes {
		if t.name == text {
			return t.number, true
		}
	}
	digits, ok := strings.CutPrefix(text, "TYPE")
	number, isNumber := decimal(digits, 65535)
	return uint16(number), ok && isNumber && number > 0
}
