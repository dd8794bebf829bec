package datapath

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
)

// flowBatch is how many connections are copied with one call.
const flowBatch = 4096

// copyFlows adds the connections of one table to another: all of them where
// that is fresh, so that nothing else writes it, and otherwise those that it
// does not know. A smaller table keeps the ones that come last: the order of
// an LRU hash is not to be had.
func copyFlows(from, to *ebpf.Map, fresh bool) error {
	keys := make([]abiEgateFlowKey, flowBatch)
	values := make([]abiEgateFlow, flowBatch)
	var cursor ebpf.MapBatchCursor
	for {
		n, err := from.BatchLookup(&cursor, keys, values, nil)
		last := errors.Is(err, ebpf.ErrKeyNotExist)
		if err != nil && !last {
			return fmt.Errorf("read connections: %w", err)
		}
		if fresh && n > 0 {
			if _, err := to.BatchUpdate(keys[:n], values[:n], nil); err != nil {
				return fmt.Errorf("write connections: %w", err)
			}
		}
		for i := 0; i < n && !fresh; i++ {
			if err := addFlow(to, &keys[i], &values[i]); err != nil {
				return err
			}
		}
		if last {
			return nil
		}
	}
}

// addFlow remembers a connection unless it is known. A full table makes room
// by itself.
func addFlow(m *ebpf.Map, key *abiEgateFlowKey, value *abiEgateFlow) error {
	if err := m.Update(key, value, ebpf.UpdateNoExist); err != nil && !errors.Is(err, ebpf.ErrKeyExist) {
		return fmt.Errorf("write connection: %w", err)
	}
	return nil
}
