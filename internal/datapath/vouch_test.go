package datapath

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/miekg/dns"

	"egate/internal/testutil"
)

// dnsServer answers outside, at outsideAddr.
type dnsServer struct {
	answers map[string][]dns.RR // by name and type, such as "a.example. A"
}

func (s *dnsServer) ServeDNS(out dns.ResponseWriter, q *dns.Msg) {
	m := new(dns.Msg)
	m.SetReply(q)
	m.Compress = true
	if len(q.Question) == 1 {
		m.Answer = s.answers[q.Question[0].Name+" "+dns.Type(q.Question[0].Qtype).String()]
	}
	// A test that misses its answer says so itself.
	_ = out.WriteMsg(m)
}

func (s *dnsServer) add(t testing.TB, records ...string) {
	t.Helper()
	for _, text := range records {
		r, err := dns.NewRR(text)
		if err != nil {
			t.Fatal(err)
		}
		key := r.Header().Name + " " + dns.Type(r.Header().Rrtype).String()
		s.answers[key] = append(s.answers[key], r)
	}
}

// serveDNS answers over UDP and TCP.
func (w *world) serveDNS() *dnsServer {
	w.t.Helper()
	s := &dnsServer{answers: map[string][]dns.RR{}}
	var err error
	udp, tcp := &dns.Server{Handler: s}, &dns.Server{Handler: s}
	w.outside.Run(func() {
		if udp.PacketConn, err = net.ListenPacket("udp4", outsideAddr+":53"); err == nil {
			tcp.Listener, err = net.Listen("tcp4", outsideAddr+":53")
		}
	})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, server := range []*dns.Server{udp, tcp} {
		started := make(chan struct{})
		server.NotifyStartedFunc = func() { close(started) }
		done := make(chan error, 1)
		go func() { done <- server.ActivateAndServe() }()
		<-started
		w.t.Cleanup(func() {
			if err := server.Shutdown(); err != nil {
				w.t.Errorf("stop DNS server: %v", err)
			}
			<-done
		})
	}
	return s
}

// lookUp asks from inside.
func (w *world) lookUp(network, name string, kind uint16, patience time.Duration) (*dns.Msg, error) {
	w.t.Helper()
	var c net.Conn
	var err error
	w.inside.Run(func() { c, err = net.DialTimeout(network, outsideAddr+":53", testutil.Patience(time.Second)) })
	if err != nil {
		w.t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(testutil.Patience(patience))); err != nil {
		w.t.Fatal(err)
	}
	m := new(dns.Msg)
	m.SetQuestion(name, kind)
	m.SetEdns0(4096, false)
	client := &dns.Client{Net: network, Timeout: testutil.Patience(patience), UDPSize: 8192}
	in, _, err := client.ExchangeWithConn(m, &dns.Conn{Conn: c, UDPSize: 8192})
	return in, err
}

// connects tells whether a TCP connection from inside comes about.
func (w *world) connects(to string) bool {
	w.t.Helper()
	var err error
	var c net.Conn
	w.inside.Run(func() { c, err = net.DialTimeout("tcp4", to, testutil.Patience(900*time.Millisecond)) }) // one SYN: the next comes after a second
	if err == nil {
		c.Close()
	}
	return err == nil
}

// listenTCP accepts outside at a port of outsideAddr, and closes what it accepts.
func (w *world) listenTCP(port int) {
	w.t.Helper()
	var l net.Listener
	var err error
	w.outside.Run(func() { l, err = net.Listen("tcp4", fmt.Sprintf("%s:%d", outsideAddr, port)) })
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
}

// TestNameEpochIsThatOfThePrograms: what a program counts up when it learns an
// address is what announce changes.
func TestNameEpochIsThatOfThePrograms(t *testing.T) {
	w := newWorld(t, HookAuto)
	s := w.serveDNS()
	w.apply(exampleNames)
	tables := w.tables()
	for i, a := range []string{"192.0.2.1", "198.51.100.77", "2001:db8::1", "2001:db8:1:2:3:4:5:6"} {
		name, kind := fmt.Sprintf("n%d.example.", i), "A"
		if netip.MustParseAddr(a).Is6() {
			kind = "AAAA"
		}
		s.add(t, fmt.Sprintf("%s 300 IN %s %s", name, kind, a))
		var before, after uint32
		if err := tables.epochs[0].Lookup(nameEpoch(addr(a)), &before); err != nil {
			t.Fatal(err)
		}
		if _, err := w.lookUp("udp4", name, dns.StringToType[kind], time.Second); err != nil {
			t.Fatalf("look %s up: %v", name, err)
		}
		if err := tables.epochs[0].Lookup(nameEpoch(addr(a)), &after); err != nil || after == before {
			t.Errorf("%s: epoch %d before, %d after, %v", a, before, after, err)
		}
		if err := tables.announce(addr(a)); err != nil {
			t.Fatal(err)
		}
		before = after
		if err := tables.epochs[0].Lookup(nameEpoch(addr(a)), &after); err != nil || after == before {
			t.Errorf("%s: epoch %d before it was announced, %d after, %v", a, before, after, err)
		}
	}
}

func TestVouchOpensAddresses(t *testing.T) {
	w := newWorld(t, HookAuto)
	w.apply(exampleNames)
	w.listenTCP(7000)
	to := outsideAddr + ":7000"
	if w.connects(to) {
		t.Fatal("open before anything was learned")
	}
	tables := w.tables()
	key, err := tables.state.nameKey()
	if err != nil {
		t.Fatal(err)
	}
	u := func(name string) *Unread {
		wire := make([]byte, 256)
		n, err := dns.PackDomainName(dns.Fqdn(name), wire, 0, nil, false)
		if err != nil {
			t.Fatal(err)
		}
		return &Unread{Name: name, hash: key.Hash(name), wire: wire[:n]}
	}
	all := []AddressTTL{
		{netip.MustParseAddr(outsideAddr), time.Second}, {netip.MustParseAddr("2001:db8::1"), 99 * 24 * time.Hour},
		{netip.MustParseAddr("127.0.0.1"), time.Hour}, {netip.MustParseAddr("fe80::1"), time.Hour}, {netip.Addr{}, time.Hour},
	}
	opened, err := Vouch(w.gate, u("other.test"), all)
	if err != nil || opened != 2 {
		t.Errorf("opened %d, %v; want 2", opened, err)
	}
	if w.connects(to) {
		t.Error("open to a name that no rule lists")
	}
	before, err := monotonic()
	if err != nil {
		t.Fatal(err)
	}
	if opened, err = Vouch(w.gate, u("big.example"), all); err != nil || opened != 2 {
		t.Errorf("opened %d, %v; want 2", opened, err)
	}
	if !w.connects(to) {
		t.Error("closed to a name that a rule lists")
	}
	var l abiEgateLearned
	for a, life := range map[string]time.Duration{outsideAddr: minTTL, "2001:db8::1": maxTTL} {
		key := addr(a)
		if err := tables.state[learnedMap].Lookup(&key, &l); err != nil {
			t.Fatal(err)
		}
		if l.Addr != key || l.Slots[0].Name == 0 || l.Slots[1].Name == 0 || l.Slots[2].Name != 0 {
			t.Errorf("%s is open to %+v", a, l)
		}
		if ends := l.Slots[1].ExpiresNs; ends < before+uint64(life) || ends > before+uint64(life+testutil.Patience(5*time.Second)) {
			t.Errorf("%s lives %v, want %v", a, time.Duration(ends-before), life)
		}
	}
	// Addresses and texts are counted once each.
	if _, err := Vouch(w.gate, u("big.example"), all); err != nil {
		t.Fatal(err)
	}
	for what, want := range map[uint32]uint64{addedAddresses: 2, addedNames: 2} {
		var n uint64
		if err := tables.state[sweptMap].Lookup(what, &n); err != nil || n != want {
			t.Errorf("counted as added %d: %d, %v; want %d", what, n, err, want)
		}
	}
	// It is a name like any other.
	names, err := ReadNames(w.gate)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(names, func(n NameStatus) bool { return n.Name == "big.example" })
	if i < 0 || len(names[i].Addresses) != 2 || !slices.Equal(names[i].Rules, []string{"listed"}) {
		t.Errorf("names: %+v", names)
	}
}

func TestChooseSlot(t *testing.T) {
	const now = 100
	slots := func(list ...abiEgateNameSlot) (l abiEgateLearned) {
		for i := range l.Slots {
			l.Slots[i] = abiEgateNameSlot{Name: uint64(50 + i), ExpiresNs: uint64(200 + i)}
		}
		copy(l.Slots[:], list)
		return l
	}
	slot := func(name, expires uint64) abiEgateNameSlot { return abiEgateNameSlot{Name: name, ExpiresNs: expires} }
	for what, c := range map[string]struct {
		l    abiEgateLearned
		want int
	}{
		"its own":               {slots(slot(1, 300), slot(0, 0), slot(7, 99)), 2},
		"a free one":            {slots(slot(1, 300), slot(0, 0), slot(2, 99)), 1},
		"an expired one":        {slots(slot(1, 300), slot(3, 100)), 1},
		"that which ends first": {slots(slot(1, 300), slot(2, 150)), 1},
	} {
		if got := chooseSlot(&c.l, 7, now); got != c.want {
			t.Errorf("%s: %d, want %d", what, got, c.want)
		}
	}
}

func TestIsSpecial(t *testing.T) {
	for text, want := range map[string]bool{
		"0.0.0.0": true, "127.1.2.3": true, "169.254.1.1": true, "224.0.0.1": true, "240.0.0.1": true, "255.255.255.255": true,
		"::": true, "::1": true, "::192.0.2.1": true, "fe80::1": true, "febf::1": true, "ff02::1": true, "::ffff:127.0.0.1": true,
		"192.0.2.1": false, "10.0.0.1": false, "223.255.255.255": false, "2001:db8::1": false, "fd00::1": false, "fec0::1": false,
		"::ffff:192.0.2.1": false,
	} {
		if got := isSpecial(netip.MustParseAddr(text)); got != want {
			t.Errorf("%s is special: %v, want %v", text, got, want)
		}
	}
}

// manyRecords are more than the programs' room holds.
func manyRecords(name string, with string) []string {
	records := []string{fmt.Sprintf("%s 300 IN A %s", name, with)}
	for i := range 1200 {
		records = append(records, fmt.Sprintf("%s 300 IN A 192.0.%d.%d", name, i/250, i%250+1))
	}
	return records
}

// TestUnreadAnswers: what can't be read is dropped and told; a connection of
// which that is said passes.
func TestUnreadAnswers(t *testing.T) {
	w := newWorld(t, HookAuto)
	s := w.serveDNS()
	s.add(t, manyRecords("big.example.", outsideAddr)...)
	w.apply(exampleNames)
	r, err := OpenUnread(w.gate)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.lookUp("tcp4", "big.example.", dns.TypeA, 300*time.Millisecond); err == nil {
		t.Error("an answer that can't be read passes")
	}
	u, err := r.Read()
	if err != nil || u.Name != "big.example" || u.Server.String() != outsideAddr || u.Type != dns.TypeA || u.Outcome != "too-long" {
		t.Errorf("told of %+v, %v", u, err)
	}

	var c net.Conn
	w.inside.Run(func() { c, err = net.Dial("tcp4", outsideAddr+":53") })
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	local, remote := netip.MustParseAddrPort(c.LocalAddr().String()), netip.MustParseAddrPort(c.RemoteAddr().String())
	if err := PassUnread(w.gate, local, remote); err != nil {
		t.Fatal(err)
	}
	m := new(dns.Msg)
	m.SetQuestion("big.example.", dns.TypeA)
	in, _, err := (&dns.Client{Net: "tcp", Timeout: testutil.Patience(2 * time.Second)}).ExchangeWithConn(m, &dns.Conn{Conn: c})
	if err != nil || len(in.Answer) != 1201 {
		t.Fatalf("on a connection that passes unread: %v", err)
	}
	if w.connects(outsideAddr + ":7000") {
		t.Error("what passed unread opened something")
	}
	if _, err := Vouch(w.gate, &u, nil); err != nil {
		t.Fatal(err)
	}
	if in, err := w.lookUp("tcp4", "big.example.", dns.TypeA, time.Second); err != nil || len(in.Answer) != 1201 {
		t.Errorf("the name is vouched for, and its answer does not pass: %v", err)
	}

	done := make(chan error, 1)
	go func() {
		for {
			// What was sent again may be told again.
			if _, err := r.Read(); err != nil {
				done <- err
				return
			}
		}
	}()
	w.off()
	select {
	case err := <-done:
		if !errors.Is(err, io.EOF) {
			t.Errorf("read after off: %v, want the end", err)
		}
	case <-time.After(testutil.Patience(5 * time.Second)):
		t.Error("read after off does not return")
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

// TestUnreadAnswersGetOld: who asked gave up long ago.
func TestUnreadAnswersGetOld(t *testing.T) {
	now, err := monotonic()
	if err != nil {
		t.Fatal(err)
	}
	u := abiEgateUnread{TimeNs: now, Name: 7, Server: addr("192.0.2.53"), Type: 28, Outcome: 8, Length: 3}
	copy(u.Wire[:], "\x01a\x00")
	raw := func() []byte {
		out, err := binary.Append(nil, binary.NativeEndian, &u)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	got, ok := decodeUnread(raw())
	if !ok || got.Name != "a" || got.Server.String() != "192.0.2.53" || got.Type != 28 || got.Outcome != "too-long" || got.hash != 7 || len(got.wire) != 3 {
		t.Errorf("decoded %+v, %v", got, ok)
	}
	if older(got.timeNs, unreadLife, now+uint64(unreadLife)) || !older(got.timeNs, unreadLife, now+uint64(unreadLife)+1) {
		t.Error("it lives another time than a minute")
	}
	for what, change := range map[string]func(){
		"an unknown outcome":    func() { u.Outcome = 200 },
		"a name without an end": func() { u.Outcome, u.Length = 8, 2 },
	} {
		change()
		if _, ok := decodeUnread(raw()); ok {
			t.Errorf("%s is decoded", what)
		}
	}
	if _, ok := decodeUnread(raw()[:20]); ok {
		t.Error("a part of a record is decoded")
	}
}

func TestFollowServers(t *testing.T) {
	servers := []netip.Addr{netip.MustParseAddr(outsideAddr)}
	old := hostServers
	hostServers = func() ([]netip.Addr, error) { return servers, nil }
	t.Cleanup(func() { hostServers = old })
	w := newWorld(t, HookAuto)
	follow := func(added, removed string) {
		t.Helper()
		var a, r []netip.Addr
		var err error
		w.inside.Run(func() { a, r, err = FollowServers(w.gate) })
		if err != nil || fmt.Sprint(a) != added || fmt.Sprint(r) != removed {
			t.Errorf("added %v, removed %v, %v; want %s, %s", a, r, err, added, removed)
		}
	}
	w.apply(exampleNames) // which says which servers
	servers = []netip.Addr{netip.MustParseAddr("192.0.2.53")}
	follow("[]", "[]")

	servers = []netip.Addr{netip.MustParseAddr(outsideAddr)}
	w.apply("interfaces: [eth0]\negress:\n  default: drop\n  rules:\n    - {action: allow, to: {domains: [a.example]}}\n")
	follow("[]", "[]")
	servers = []netip.Addr{netip.MustParseAddr("127.0.0.53"), netip.MustParseAddr("192.0.2.53")}
	follow("[127.0.0.53 192.0.2.53]", "["+outsideAddr+"]")
	if got := w.status().Names.Servers; !slices.Equal(got, servers) {
		t.Errorf("status says %v", got)
	}
	var adopted []Adopted
	var err error
	w.inside.Run(func() { adopted, err = Adopt(w.gate) })
	if err != nil || !slices.Equal(adopted, []Adopted{{"lo", true}}) {
		t.Errorf("adopted %v, %v; want lo for DNS", adopted, err)
	}
	w.adopts()
	if s := w.enforcing("with a server on loopback"); !slices.Contains(interfaceNames(s), "lo") {
		t.Errorf("status lists %q", interfaceNames(s))
	}
	servers = nil
	follow("[]", "[]")
	servers = []netip.Addr{netip.MustParseAddr("192.0.2.53")}
	follow("[]", "[127.0.0.53]")
	// The next apply needs lo no longer.
	if _, err := w.tryApply(testSet(t, "interfaces: [eth0]\negress:\n  default: drop\n  rules:\n    - {action: allow, to: {domains: [a.example]}}\n"), w.options()); err != nil {
		t.Fatal(err)
	}
	if s := w.enforcing("without it"); slices.Contains(interfaceNames(s), "lo") {
		t.Errorf("status lists %q", interfaceNames(s))
	}
}

func TestServe(t *testing.T) {
	w := newWorld(t, HookAuto)
	serve := func() (s *Service, err error) {
		w.inside.Run(func() { s, err = Serve(w.gate) })
		return s, err
	}
	_, err := serve()
	wantError(t, "no gate", err, ErrNoGate)
	w.apply(onlyPorts(1000))
	s, err := serve()
	if err != nil {
		t.Fatal(err)
	}
	_, err = serve()
	wantError(t, "a second one", err, ErrBusy)
	_, err = Serve(w.gate)
	wantError(t, "from another namespace", err, ErrNetns)
	w.apply(onlyPorts(2000)) // writers have a lock of their own
	if current, err := s.IsCurrent(); !current || err != nil {
		t.Errorf("is current: %v, %v", current, err)
	}
	w.off()
	if current, err := s.IsCurrent(); current || err != nil {
		t.Errorf("is current after off: %v, %v", current, err)
	}
	w.apply(onlyPorts(1000))
	if current, err := s.IsCurrent(); current || err != nil {
		t.Errorf("is current when another was made: %v, %v", current, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	s, err = serve()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
