package traffic

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"

	"egate/bench/world"
)

// Throughput is iperf3 between the ends of a world.
type Throughput struct {
	world  *world.World
	server *exec.Cmd
}

// NewThroughput starts the server in the peer. The caller closes it.
func NewThroughput(ctx context.Context, w *world.World) (*Throughput, error) {
	t := &Throughput{world: w, server: exec.CommandContext(ctx, "iperf3", "--server", "--forceflush")}
	output, err := t.server.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start iperf3: %w", err)
	}
	if err := w.Peer.Start(t.server); err != nil {
		return nil, fmt.Errorf("start iperf3: %w", err)
	}
	if err := untilListening(output); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return t, nil
}

// untilListening waits for the line by which the server says that it does, and
// has the rest thrown away, so that the server never waits for a reader.
func untilListening(output io.Reader) error {
	buf := make([]byte, 4096)
	var said strings.Builder
	for !strings.Contains(said.String(), "listening") {
		n, err := output.Read(buf)
		said.Write(buf[:n])
		if err != nil {
			return fmt.Errorf("start iperf3: %w: it said %q", err, said.String())
		}
	}
	go func() {
		// It ends with the server.
		_, _ = io.Copy(io.Discard, output)
	}()
	return nil
}

// Run sends over one TCP connection and returns what arrived, in Mbit/s.
func (t *Throughput) Run(ctx context.Context, lasting time.Duration) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, lasting+20*time.Second)
	defer cancel()
	text, err := t.world.Sender.Command(ctx, "iperf3", "--client", world.Peer4.Addr().String(),
		// Without a bound the sender overruns a veth pair's queue by tens of
		// thousands of segments, and what comes back to be sent again is the figure.
		"--window", "256K", "--time", fmt.Sprint(max(1, int(lasting.Seconds()))), "--json")
	if err != nil {
		return 0, fmt.Errorf("%w: %s", err, text)
	}
	var report struct {
		End struct {
			Received struct {
				BitsPerSecond float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		} `json:"end"`
	}
	if err := json.Unmarshal([]byte(text), &report); err != nil {
		return 0, fmt.Errorf("read iperf3's report: %w", err)
	}
	if report.End.Received.BitsPerSecond <= 0 {
		return 0, errors.New("read iperf3's report: nothing arrived")
	}
	return report.End.Received.BitsPerSecond / 1e6, nil
}

// Close stops the server.
func (t *Throughput) Close() error {
	err := t.server.Process.Kill()
	var exit *exec.ExitError
	if waited := t.server.Wait(); waited != nil && !errors.As(waited, &exit) {
		err = errors.Join(err, waited)
	}
	return err
}
