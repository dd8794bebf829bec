package cli

import (
	"egate/internal/datapath"
	"egate/internal/events"
	"egate/internal/tables"
)

// kernel is stages 4 and 5 as the commands use them; tests put fakes in their
// place.
type kernel struct {
	Apply      func(*tables.Set, datapath.ApplyOptions) (*datapath.Applied, error)
	Confirm    func(gate string) error
	Off        func(gate string) error
	Gates      func() ([]string, error)
	ReadStatus func(gate string) (*datapath.Status, error)
	ReadNames  func(gate string) ([]datapath.NameStatus, error)
	OpenEvents func(gate string) (eventReader, error)
	Served     func(gate string) (bool, error) // by a daemon
}

// eventReader is an events.Reader.
type eventReader interface {
	Read() (events.Event, error)
	Close() error
}

var realKernel = kernel{
	Apply:      datapath.Apply,
	Confirm:    datapath.Confirm,
	Off:        datapath.Off,
	Gates:      datapath.Gates,
	ReadStatus: datapath.ReadStatus,
	ReadNames:  datapath.ReadNames,
	Served:     datapath.Served,
	OpenEvents: func(gate string) (eventReader, error) {
		r, err := events.Open(gate)
		if err != nil {
			return nil, err // a nil *events.Reader would not be a nil eventReader
		}
		return r, nil
	},
}
