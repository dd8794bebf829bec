package e2e

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/net/ipv4"

	"egate/internal/testutil"
)

// Questions under load are sent and answered so many at once.
const loadBatch = 64

// TestAnswerLoad: 20,000 answers a second are read without losing one, and
// memory stays bounded: there are more addresses than the gate remembers.
func TestAnswerLoad(t *testing.T) {
	t.Parallel()
	const rounds, enough = 3, 20_000 // a second
	perRound := 20_480
	_, vm := testutil.InVM()
	if vm {
		perRound = 1_024
	}
	w := newNameWorld(t)
	fresh := 0
	load := func() float64 {
		t.Helper()
		begin := time.Now()
		w.load(t, fresh, perRound)
		fresh += perRound
		return float64(perRound) / time.Since(begin).Seconds()
	}
	serveFast(t, w.server.Netns, netip.AddrPortFrom(resolverAddrs[0].Addr(), 53))
	alone := load() // what the machine and this test can do now
	w.apply(policyFor("veth0", egress("reject", listedRule)) + fmt.Sprintf("dns: {servers: [%v]}\n", resolverAddrs[0].Addr()))
	best := 0.0
	for range rounds {
		best = max(best, load())
	}
	t.Logf("%.0f answers a second at best, %.0f before there was a gate", best, alone)
	// Half of what there is on a machine that is busy with something else. What an
	// emulated machine can do says nothing.
	if !vm && best < min(enough, alone/2) {
		t.Errorf("%.0f answers a second at best, want %d (%.0f without a gate)", best, enough, alone)
	}

	s := w.status("host")
	total := uint64(rounds * perRound)
	if got := messages(s); got["asked"] != total || got["learned"] != total || len(got) != 2 {
		t.Errorf("DNS messages are counted as %v, want %d asked and learned", got, total)
	}
	if s.Names.Addresses.New != total || s.Names.Failed != 0 {
		t.Errorf("%d new addresses, %d failed; want %d and none", s.Names.Addresses.New, s.Names.Failed, total)
	}
	for _, table := range s.Names.Tables {
		if table.Known > table.Max {
			t.Errorf("table %s has %d entries of %d", table.Name, table.Known, table.Max)
		}
		if table.Name != "learned" && table.Name != "names" {
			continue
		}
		if table.Evicted == nil || table.Known+*table.Evicted != total || table.Known == 0 || !vm && *table.Evicted == 0 {
			t.Errorf("table %s has %d entries and has lost %v; want %d together", table.Name, table.Known, table.Evicted, total)
		}
	}
	// What came last is there.
	v4, _ := numbered(fresh - 1)
	serveSink(t, w.server.Netns, servicePort)
	w.reach(v4, passes)
	w.run("off")
}

// load asks for names of its own and waits for all of the answers, over a few
// sockets at once.
func (w *nameWorld) load(t *testing.T, first, count int) {
	t.Helper()
	const sockets = 4
	var wg sync.WaitGroup
	for i := range sockets {
		c, err := dial(w.client.Netns, "udp", netip.AddrPortFrom(resolverAddrs[0].Addr(), 53), wait)
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			defer c.Close()
			share := count / sockets
			if err := askMany(c.(*net.UDPConn), first+i*share, share); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func askMany(c *net.UDPConn, first, count int) error {
	p := ipv4.NewPacketConn(c)
	in := newBatch()
	for done := 0; done < count; {
		out := make([]ipv4.Message, min(loadBatch, count-done))
		for i := range out {
			n := first + done + i
			m := new(dns.Msg).SetQuestion(fmt.Sprintf("a%d.n.test.", n), dns.TypeA)
			m.Id = uint16(n)
			wire, err := m.Pack()
			if err != nil {
				return err
			}
			out[i].Buffers = [][]byte{wire}
		}
		for sent := 0; sent < len(out); {
			n, err := p.WriteBatch(out[sent:], 0)
			if err != nil {
				return fmt.Errorf("send questions: %w", err)
			}
			sent += n
		}
		for got := 0; got < len(out); {
			if err := c.SetReadDeadline(time.Now().Add(testutil.Patience(2 * time.Second))); err != nil {
				return err
			}
			n, err := p.ReadBatch(in, 0)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return fmt.Errorf("%d of %d answers are lost", len(out)-got, len(out))
			}
			if err != nil {
				return fmt.Errorf("receive answers: %w", err)
			}
			got += n
		}
		done += len(out)
	}
	return nil
}

func newBatch() []ipv4.Message {
	batch := make([]ipv4.Message, loadBatch)
	for i := range batch {
		batch[i].Buffers = [][]byte{make([]byte, 512)}
	}
	return batch
}

// serveFast answers questions for A with the address of the number that is the
// first label's, at less cost than a name server.
func serveFast(t *testing.T, in *testutil.Netns, at netip.AddrPort) {
	t.Helper()
	var c *net.UDPConn
	var err error
	in.Run(func() { c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(at)) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetReadBuffer(4 << 20); err != nil {
		t.Fatal(err)
	}
	go func() {
		p, batch := ipv4.NewPacketConn(c), newBatch()
		for {
			n, err := p.ReadBatch(batch, 0)
			if err != nil {
				return
			}
			replies := make([]ipv4.Message, 0, n)
			for _, m := range batch[:n] {
				if reply := fastAnswer(m.Buffers[0][:m.N]); reply != nil {
					replies = append(replies, ipv4.Message{Buffers: [][]byte{reply}, Addr: m.Addr})
				}
			}
			for sent := 0; sent < len(replies); {
				n, err := p.WriteBatch(replies[sent:], 0)
				if err != nil {
					return
				}
				sent += n
			}
		}
	}()
}

// fastAnswer makes an answer of a question that has nothing behind it.
func fastAnswer(question []byte) []byte {
	const header = 12
	if len(question) < header+2 {
		return nil
	}
	n, digits := 0, question[header+2:header+1+int(question[header])]
	for _, d := range digits {
		n = 10*n + int(d-'0')
	}
	v4, _ := numbered(n)
	reply := append(make([]byte, 0, len(question)+16), question...)
	reply[2], reply[3] = 0x81, 0x80
	binary.BigEndian.PutUint16(reply[6:], 1)
	reply = append(reply, 0xc0, header, 0, byte(dns.TypeA), 0, dns.ClassINET, 0, 0, 1, 44, 0, 4)
	return append(reply, v4.AsSlice()...)
}
