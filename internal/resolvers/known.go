package resolvers

import (
	"net/netip"
	"slices"
)

// Service is a public service that answers DNS over HTTPS.
type Service struct {
	Name      string
	Addresses []netip.Addr
}

// services are the well known ones with addresses of their own, by what their
// operators publish. No such list is complete: there are thousands of resolvers,
// new ones every day; some stand behind addresses of a content network that
// serves other sites too, and some give each customer an address (NextDNS over
// IPv6), so that forbidding them by address would forbid more, or not enough.
// Only a policy that allows no unknown address on port 443 shuts DNS over HTTPS
// out.
var services = []Service{
	{"AdGuard", list("94.140.14.14", "94.140.15.15", "94.140.14.15", "94.140.15.16", "94.140.14.140", "94.140.14.141",
		"2a10:50c0::ad1:ff", "2a10:50c0::ad2:ff", "2a10:50c0::bad1:ff", "2a10:50c0::bad2:ff", "2a10:50c0::1:ff", "2a10:50c0::2:ff")},
	{"Alibaba", list("223.5.5.5", "223.6.6.6", "2400:3200::1", "2400:3200:baba::1")},
	{"Applied Privacy", list("146.255.56.98")},
	{"CleanBrowsing", list("185.228.168.9", "185.228.169.9", "185.228.168.10", "185.228.169.11", "185.228.168.168", "185.228.169.168",
		"2a0d:2a00:1::", "2a0d:2a00:2::", "2a0d:2a00:1::1", "2a0d:2a00:2::1", "2a0d:2a00:1::2", "2a0d:2a00:2::2")},
	{"Cloudflare", list("1.1.1.1", "1.0.0.1", "1.1.1.2", "1.0.0.2", "1.1.1.3", "1.0.0.3",
		"2606:4700:4700::1111", "2606:4700:4700::1001", "2606:4700:4700::1112", "2606:4700:4700::1002", "2606:4700:4700::1113", "2606:4700:4700::1003",
		"2606:4700:4700::64", "2606:4700:4700::6400",
		"104.16.248.249", "104.16.249.249", "2606:4700::6810:f8f9", "2606:4700::6810:f9f9",
		"162.159.61.3", "172.64.41.3", "2803:f800:53::3", "2a06:98c1:52::3", // what Chrome uses
		"162.159.61.4", "172.64.41.4", "2803:f800:53::4", "2a06:98c1:52::4")}, // what Firefox uses
	{"Comcast", list("96.113.151.145")},
	{"Control D", list("76.76.2.0", "76.76.10.0", "76.76.2.1", "76.76.10.1", "76.76.2.2", "76.76.10.2", "76.76.2.3", "76.76.10.3",
		"76.76.2.4", "76.76.10.4", "76.76.2.5", "76.76.10.5", "76.76.2.11", "76.76.10.11", "76.76.2.22", "76.76.10.22",
		"2606:1a40::", "2606:1a40:1::", "2606:1a40::1", "2606:1a40:1::1", "2606:1a40::2", "2606:1a40:1::2", "2606:1a40::3", "2606:1a40:1::3",
		"2606:1a40::4", "2606:1a40:1::4", "2606:1a40::5", "2606:1a40:1::5", "2606:1a40::11", "2606:1a40:1::11", "2606:1a40::22", "2606:1a40:1::22")},
	{"Digitale Gesellschaft", list("185.95.218.42", "185.95.218.43", "2a05:fc84::42", "2a05:fc84::43")},
	{"DNS.SB", list("185.222.222.222", "45.11.45.11", "2a09::", "2a11::")},
	{"DNS4EU", list("86.54.11.1", "86.54.11.201", "86.54.11.11", "86.54.11.211", "86.54.11.12", "86.54.11.212", "86.54.11.13", "86.54.11.213",
		"86.54.11.100", "86.54.11.200",
		"2a13:1001::86:54:11:1", "2a13:1001::86:54:11:201", "2a13:1001::86:54:11:11", "2a13:1001::86:54:11:211", "2a13:1001::86:54:11:12",
		"2a13:1001::86:54:11:212", "2a13:1001::86:54:11:13", "2a13:1001::86:54:11:213", "2a13:1001::86:54:11:100", "2a13:1001::86:54:11:200")},
	{"DNSPod", list("1.12.12.12", "120.53.53.53")},
	{"Google", list("8.8.8.8", "8.8.4.4", "2001:4860:4860::8888", "2001:4860:4860::8844", "2001:4860:4860::64", "2001:4860:4860::6464")},
	{"Hurricane Electric", list("74.82.42.42", "2001:470:20::2")},
	{"Mullvad", list("194.242.2.2", "194.242.2.3", "194.242.2.4", "194.242.2.5", "194.242.2.6", "194.242.2.9",
		"2a07:e340::2", "2a07:e340::3", "2a07:e340::4", "2a07:e340::5", "2a07:e340::6", "2a07:e340::9")},
	{"NextDNS", list("45.90.28.0", "45.90.30.0", "2a07:a8c0::", "2a07:a8c1::")},
	{"OpenDNS", list("208.67.222.222", "208.67.220.220", "208.67.222.220", "208.67.220.222", "208.67.222.123", "208.67.220.123", "208.67.222.2", "208.67.220.2",
		"2620:119:35::35", "2620:119:53::53", "2620:119:35::123", "2620:119:53::123", "2620:0:ccc::2", "2620:0:ccd::2",
		"146.112.41.2", "146.112.41.3", "146.112.41.4", "146.112.41.5", "2620:119:fc::2", "2620:119:fc::3", "2620:119:fc::4", "2620:119:fc::5")},
	{"Quad9", list("9.9.9.9", "149.112.112.112", "149.112.112.9", "9.9.9.10", "149.112.112.10", "9.9.9.11", "149.112.112.11", "9.9.9.12", "149.112.112.12",
		"2620:fe::fe", "2620:fe::9", "2620:fe::fe:9", "2620:fe::10", "2620:fe::fe:10", "2620:fe::11", "2620:fe::fe:11", "2620:fe::12", "2620:fe::fe:12")},
	{"SWITCH", list("130.59.31.248", "130.59.31.251", "2001:620:0:ff::2")},
	{"TWNIC", list("101.101.101.101")},
	{"Yandex", list("77.88.8.8", "77.88.8.1", "77.88.8.88", "77.88.8.2", "77.88.8.7", "77.88.8.3",
		"2a02:6b8::feed:ff", "2a02:6b8:0:1::feed:ff", "2a02:6b8::feed:bad", "2a02:6b8:0:1::feed:bad", "2a02:6b8::feed:a11", "2a02:6b8:0:1::feed:a11")},
}

func list(texts ...string) []netip.Addr {
	out := make([]netip.Addr, len(texts))
	for i, text := range texts {
		out[i] = netip.MustParseAddr(text)
	}
	return out
}

// Services lists the public services that Known is made of, by name.
func Services() []Service { return slices.Clone(services) }

// Known gives the addresses of well known public services that answer DNS over
// HTTPS, sorted. It cannot cover them all: see docs/POLICY.md.
func Known() []netip.Addr {
	var out []netip.Addr
	for _, s := range services {
		out = append(out, s.Addresses...)
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}
