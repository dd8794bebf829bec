package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"egate/internal/cli/table"
	"egate/internal/packet"
	"egate/internal/tables"
	"egate/internal/verdict"
)

// Explanation is `explain -o json`: one object for a packet written as text,
// one a line for the packets of a capture.
type Explanation struct {
	Number int    `json:"number,omitempty"` // in the capture, from 1
	Packet string `json:"packet"`           // as explain takes it
	tables.Trace
	Request *ExplainedRequest `json:"request,omitempty"`
	Notes   []string          `json:"notes,omitempty"` // what was assumed, and what is not seen
}

type explainOptions struct {
	capture    string
	number     int
	reply      bool
	replyError bool
	direction  *choice
	format     *choice
}

func (a *app) explainCommand() *cobra.Command {
	var o explainOptions
	c := &cobra.Command{
		Use:     "explain FILE ['PACKET' | --pcap CAPTURE]",
		Short:   "Show which rule decides about a packet, and why",
		GroupID: groupRead,
		Long: `explain judges a packet by a policy file as the kernel would, and shows the way: the
packet's class in each dimension that the rules ask for, how many rules are left after
each, and the rule, or the default, that decides. It needs no root.

A packet is written as PROTOCOL SOURCE -> DESTINATION and words that say more:

  in or out            its direction; out where nothing is said
  echo-request, ...    the name of an ICMP message, or type=N code=N
  flags=SA             TCP flags, letters of FSRPAUEC; a SYN where nothing is said
  fragment=later       a fragment (first or later)
  fragment-id=N        the identifier that the datagram's fragments share
  ttl=N                TTL or hop limit
  no-link              seen on a device without a link header, such as a tunnel
  problem=REASON       what could not be read, as status and events name it
  name=NAME[,NAME...]  what its destination was learned as from DNS answers; where the
                       rule verifies names, the connection's request says the first one
  reply, reply-error   it belongs to a connection that the other side opened

A * stands for what cannot be read, as in a truncated packet. Frames that are not IP
are named (arp, lldp) or written as "non-ip type=0x88b5".

With --pcap the packets come from a pcap or pcapng file ("-" for standard input): a line
each, or with --packet the whole way of one of them. A capture does not say which way its
packets went, nor who opened a connection: each is judged as --direction and --reply tell.
So capture one way, such as with "tcpdump -Q out". No names are known of its destinations.

Where a policy names no DNS servers, those that this host uses now stand for them.`,
		Example: `  egate explain policy.yaml 'tcp 10.0.0.5:40000 -> 93.184.216.34:443'
  egate explain policy.yaml 'tcp 10.0.0.5 -> 93.184.216.34:443 name=www.example.com'
  egate explain policy.yaml 'icmpv6 2001:db8::5 -> 2001:db8::1 echo-request'
  egate explain policy.yaml 'tcp 192.0.2.9:51000 -> 10.0.0.5:22 in'
  egate explain policy.yaml --reply 'tcp 10.0.0.5:22 -> 192.0.2.9:51000 flags=A'
  egate explain policy.yaml --pcap trace.pcap --packet 7`,
		Args: func(c *cobra.Command, args []string) error {
			if err := arguments(1, 2, "a policy FILE and one 'PACKET' in quotes")(c, args); err != nil {
				return err
			}
			switch {
			case o.capture == "" && len(args) < 2:
				return usagef("explain wants a 'PACKET' in quotes, or --pcap CAPTURE")
			case o.capture != "" && len(args) > 1:
				return usagef("explain takes a packet or --pcap, not both")
			case o.capture == "-" && args[0] == "-":
				return usagef("explain cannot read both the policy and the capture from standard input")
			case o.capture == "" && o.number != 0:
				return usagef("--packet belongs to --pcap")
			case o.capture == "" && c.Flags().Changed("direction"):
				return usagef("--direction belongs to --pcap; write in or out behind the packet")
			case o.number < 0:
				return usagef("--packet counts from 1, found %d", o.number)
			}
			return nil
		},
	}
	c.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		if strings.HasSuffix(err.Error(), " in ->") {
			return usagef("%w; write the packet in quotes", err)
		}
		return flagError(err)
	})
	c.Flags().StringVar(&o.capture, "pcap", "", "read packets from this pcap or pcapng `file`")
	c.Flags().IntVar(&o.number, "packet", 0, "of the capture, explain only packet `N`, in full")
	c.Flags().BoolVar(&o.reply, "reply", false, "the packet belongs to a connection that the other side opened")
	c.Flags().BoolVar(&o.replyError, "reply-error", false, "the packet is an ICMP error about such a connection")
	o.direction = addChoice(c, "direction", "", "which way the capture's packets went", "egress", "ingress")
	o.format = addOutput(c)
	c.RunE = func(_ *cobra.Command, args []string) error {
		s, err := a.readWithProgress(args[0])
		if err != nil {
			return err
		}
		if err := a.printProblems(s, "nothing can be explained by it"); err != nil {
			return err
		}
		if o.capture != "" {
			return a.explainCapture(s, &o)
		}
		return a.explainText(s, args[1], &o)
	}
	return c
}

func (a *app) explainText(s *source, text string, o *explainOptions) error {
	key, extras, err := packet.ParseText(text)
	var mistake *packet.TextError
	if errors.As(err, &mistake) {
		return usagef("%w\n  %s\n  %s^", err, table.Clean(text), strings.Repeat(" ", max(mistake.Column-1, 0)))
	}
	if err != nil {
		return err
	}
	state := tables.State{Reply: o.reply || extras.Reply, ReplyError: o.replyError || extras.ReplyError, Names: extras.Names}
	return a.explain(s, &key, state, 0, o.format.value)
}

// explain prints the whole way of one packet.
func (a *app) explain(s *source, key *packet.Key, state tables.State, number int, format string) error {
	e, err := a.explanation(s, key, state)
	if err != nil {
		return err
	}
	if e.Number = number; format == "json" {
		return a.printJSON(e)
	}
	width := a.width()
	text := fmt.Sprintf("%-12s  %s\n", "packet", table.Clean(e.Packet)) + e.Text()
	if e.Request != nil {
		text += fmt.Sprintf("%-12s  %s\n", "request", requestText(e.Request))
	}
	for _, note := range e.Notes {
		text += fmt.Sprintf("%-12s  %s\n", "note", note)
	}
	for line := range strings.Lines(text) {
		// The column of labels keeps its blanks; only the text behind it is broken.
		const labels = 14
		line = strings.TrimRight(line, "\n")
		cut := min(labels, len(line))
		fmt.Fprintln(a.stdout, table.Wrap(line[:cut], line[cut:], width))
	}
	return a.stdout.err
}

func (a *app) explainCapture(s *source, o *explainOptions) error {
	f, err := a.openCapture(o.capture)
	if err != nil {
		return err
	}
	defer f.Close()
	direction := verdict.Egress
	if o.direction.value == verdict.Ingress.String() {
		direction = verdict.Ingress
	}
	state := tables.State{Reply: o.reply, ReplyError: o.replyError}
	t := captureTable()
	seen, counts := 0, map[verdict.Action]int{}
	err = packet.ReadCapture(f, func(n int, frame []byte, link packet.LinkLayer, length int) error {
		seen = n
		if o.number != 0 && n != o.number {
			return nil
		}
		// A capture holds whole super-packets where it was taken before they were cut up.
		key := packet.Decode(frame, packet.FrameInfo{Direction: direction, Link: link, Length: length})
		if o.number != 0 {
			if err := a.explain(s, &key, state, n, o.format.value); err != nil {
				return err
			}
			return errFound
		}
		e, err := a.explanation(s, &key, state)
		if err != nil {
			return err
		}
		e.Number = n
		counts[e.Result.Action]++
		if o.format.value == "json" {
			return a.printJSONLine(e)
		}
		rule := defaultRule
		if e.Rule != nil {
			rule = e.Rule.Label
		}
		t.Add(fmt.Sprint(n), e.Verdict, rule, e.Reason, e.Packet)
		return nil
	})
	if errors.Is(err, errFound) {
		return nil
	}
	if o.format.value != "json" && t.Len() > 0 {
		// What was read before an error is worth showing.
		if err := t.Write(a.stdout, a.width()); err != nil {
			return err
		}
		fmt.Fprintf(a.stdout, "\n%s: %d allowed, %d dropped, %d rejected\n", table.Plural(t.Len(), "packet"),
			counts[verdict.Allow], counts[verdict.Drop], counts[verdict.Reject])
		if direction == verdict.Egress && s.set.Chains[direction].Used[tables.Name] {
			fmt.Fprintln(a.stdout, "no names of their destinations are known here, so no rule with domains matched")
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", o.capture, err)
	}
	if o.number > seen {
		return fmt.Errorf("%s: it has %s, none with number %d", o.capture, table.Plural(seen, "packet"), o.number)
	}
	return nil
}

// explanation judges a packet, and finds the rule of the file that a merged one
// stands for. It leaves the number out.
func (a *app) explanation(s *source, key *packet.Key, state tables.State) (Explanation, error) {
	e := Explanation{Packet: key.String()}
	var err error
	if e.Notes, err = a.tell(s, key, &state); err != nil {
		return e, err
	}
	if len(state.Names) > 0 {
		e.Packet += " name=" + strings.Join(state.Names, ",")
	}
	e.Trace = s.set.Trace(key, state)
	e.Locate(&s.set.Chains[key.Direction], s.policy.Chains[key.Direction].Rules, key, state.Names)
	e.Request = s.request(key, state, &e.Trace)
	e.Notes = append(e.Notes, aboutNames(s, key, state, &e.Trace)...)
	return e, nil
}

// openCapture opens a file, "-" for standard input.
func (a *app) openCapture(path string) (io.ReadCloser, error) {
	if path == "-" {
		return io.NopCloser(a.stdin), nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, readError(path, err)
	}
	return f, nil
}

// errFound ends the reading of a capture at the packet that was asked for.
var errFound = errors.New("found")

func captureTable() *table.Table {
	return table.New(
		table.Column{Head: "NO", Right: true},
		table.Column{Head: "VERDICT"},
		table.Column{Head: "RULE", Min: 8},
		table.Column{Head: "REASON", Min: 7},
		table.Column{Head: "PACKET", Min: 16},
	)
}
