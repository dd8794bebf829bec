package e2e

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"

	"egate/internal/testutil"
)

// forgery is an answer that somebody sends who does not know all of a question,
// or who was not asked.
type forgery struct {
	about   string
	counted string // outcome by which it is counted; "": as no DNS of a resolver's
	// from and to are changed from what the honest answer has.
	forge func(m *dns.Msg, from, to *netip.AddrPort)
}

var forgeries = []forgery{
	{"another server", "", func(_ *dns.Msg, from, _ *netip.AddrPort) {
		*from = netip.AddrPortFrom(strangerOf(from.Addr()), 53)
	}},
	{"the other family's server", "unasked", func(_ *dns.Msg, from, to *netip.AddrPort) {
		other := serverAddrs[1].Addr()
		mine := clientAddrs[1].Addr()
		if from.Addr().Is6() {
			other, mine = serverAddrs[0].Addr(), clientAddrs[0].Addr()
		}
		*from, *to = netip.AddrPortFrom(other, 53), netip.AddrPortFrom(mine, to.Port())
	}},
	{"another port of the server", "", func(_ *dns.Msg, from, _ *netip.AddrPort) {
		*from = netip.AddrPortFrom(from.Addr(), 5353)
	}},
	{"another port of the client", "unasked", func(_ *dns.Msg, _, to *netip.AddrPort) {
		*to = netip.AddrPortFrom(to.Addr(), to.Port()^1)
	}},
	{"another id", "unasked", func(m *dns.Msg, _, _ *netip.AddrPort) { m.Id ^= 0x100 }},
	{"another name", "other-name", func(m *dns.Msg, _, _ *netip.AddrPort) {
		m.Question[0].Name = "a1.other.n.test."
		m.Answer[0].Header().Name = m.Question[0].Name
	}},
	{"another type", "other-name", func(m *dns.Msg, _, _ *netip.AddrPort) { m.Question[0].Qtype = dns.TypeTXT }},
	{"a record of another owner", "empty", func(m *dns.Msg, _, _ *netip.AddrPort) { m.Answer[0].Header().Name = "a1.other.n.test." }},
	{"the address in another section", "empty", func(m *dns.Msg, _, _ *netip.AddrPort) { m.Extra, m.Answer = m.Answer, nil }},
	{"an error that has records", "error", func(m *dns.Msg, _, _ *netip.AddrPort) { m.Rcode = dns.RcodeNameError }},
	{"a question instead of an answer", "not-answer", func(m *dns.Msg, _, _ *netip.AddrPort) { m.Response = false }},
}

// strangerOf is another address of the server's host, which no policy trusts.
func strangerOf(a netip.Addr) netip.Addr {
	if a.Is4() {
		return resolverAddrs[0].Addr()
	}
	return resolverAddrs[1].Addr()
}

// TestForgedAnswers: an answer that is not the server's to the very question
// that was asked opens nothing, and is counted by what was wrong with it.
func TestForgedAnswers(t *testing.T) {
	t.Parallel()
	w := newNameWorld(t)
	serveSink(t, w.server.Netns, servicePort)
	w.apply(policyFor("veth0", egress("reject", listedRule)) + dnsSection())
	number := 100
	_, vm := testutil.InVM()
	for i, f := range forgeries {
		servers := w.serverAddr()
		if vm { // where each look at the counters takes its time
			servers = servers[i%2 : i%2+1]
		}
		for _, server := range servers {
			t.Run(fmt.Sprintf("%s, %v", f.about, server), func(t *testing.T) {
				w := w.in(t)
				number++
				name := fmt.Sprintf("a%d.n.test", number)
				before := messages(w.status("host"))
				w.forged(t, f, server, name)
				if f.counted == "" {
					waitForCalm(t, w.client)
				} else {
					eventually(t, longWait, "the forgery is counted as "+f.counted, func() bool {
						return messages(w.status("host"))[f.counted] > before[f.counted]
					})
				}
				v4, v6 := numbered(number)
				w.reach(v4, refused)
				w.reach(v6, refused)
				after := messages(w.status("host"))
				if after["learned"] != before["learned"] {
					t.Errorf("learned from %d answers", after["learned"]-before["learned"])
				}
				for outcome, n := range after {
					want := before[outcome]
					if outcome == f.counted || outcome == "asked" {
						want++
					}
					if n != want {
						t.Errorf("%s counts %d, want %d", outcome, n, want)
					}
				}
			})
		}
	}

	t.Run("nobody asked", func(t *testing.T) {
		w := w.in(t)
		before := messages(w.status("host"))
		for i, server := range w.serverAddr() {
			m := answerFor(new(dns.Msg).SetQuestion("a90.n.test.", dns.TypeA), false)
			w.sendAs(t, m, netip.AddrPortFrom(server, 53), netip.AddrPortFrom(w.clientAddr()[i], 40000))
		}
		eventually(t, longWait, "two answers are counted as unasked", func() bool {
			return messages(w.status("host"))["unasked"] == before["unasked"]+2
		})
		v4, _ := numbered(90)
		w.reach(v4, refused)
	})

	t.Run("a second answer", func(t *testing.T) {
		w := w.in(t)
		w.names.setForge(nil)
		q := query{name: "a91.n.test"}
		c, err := dial(w.client.Netns, "udp", netip.AddrPortFrom(w.serverAddr()[0], 53), wait)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(testutil.Patience(longWait)))
		d := dns.Conn{Conn: c}
		question := new(dns.Msg).SetQuestion(dns.Fqdn(q.name), dns.TypeA)
		if err := d.WriteMsg(question); err != nil {
			t.Fatal(err)
		}
		if _, err := d.ReadMsg(); err != nil {
			t.Fatal(err)
		}
		first, _ := numbered(91)
		w.reach(first, passes)
		before := messages(w.status("host"))
		second := answerFor(question, false)
		other, _ := numbered(92)
		second.Answer[0].(*dns.A).A = other.AsSlice()
		w.sendAs(t, second, netip.AddrPortFrom(w.serverAddr()[0], 53), addrPortOf(c.LocalAddr()))
		eventually(t, longWait, "the second answer is counted as unasked", func() bool {
			return messages(w.status("host"))["unasked"] == before["unasked"]+1
		})
		w.reach(other, refused)
	})
	w.run("off")
}

// forged asks for a name and has it answered by the forgery alone.
func (w *nameWorld) forged(t *testing.T, f forgery, server netip.Addr, name string) {
	t.Helper()
	done := make(chan struct{}, 1)
	w.names.setForge(func(rw dns.ResponseWriter, question *dns.Msg) bool {
		m := answerFor(question, false)
		from, to := addrPortOf(rw.LocalAddr()), addrPortOf(rw.RemoteAddr())
		f.forge(m, &from, &to)
		w.sendAs(t, m, from, to)
		done <- struct{}{}
		return true
	})
	defer w.names.setForge(nil)
	c, err := dial(w.client.Netns, "udp", netip.AddrPortFrom(server, 53), wait)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := (&dns.Conn{Conn: c}).WriteMsg(new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.TypeA)); err != nil {
		t.Fatal(err)
	}
	select {
	case <-done:
	case <-time.After(testutil.Patience(longWait)):
		t.Fatal("the question has not arrived")
	}
}

// sendAs sends a message from any address and port of the server's host. Where
// the name server listens there already it shares the port.
func (w *nameWorld) sendAs(t *testing.T, m *dns.Msg, from, to netip.AddrPort) {
	t.Helper()
	wire, err := m.Pack()
	if err != nil {
		t.Error(err)
		return
	}
	w.server.Netns.Run(func() {
		l := net.ListenConfig{Control: shareAddress}
		var c net.PacketConn
		if c, err = l.ListenPacket(t.Context(), "udp", from.String()); err != nil {
			return
		}
		defer c.Close()
		_, err = c.WriteTo(wire, net.UDPAddrFromAddrPort(to))
	})
	if err != nil {
		t.Errorf("send from %v to %v: %v", from, to, err)
	}
}

func addrPortOf(a net.Addr) netip.AddrPort {
	p := netip.MustParseAddrPort(a.String())
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}
