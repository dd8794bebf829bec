package datapath

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestRealtimeKernelsAreRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "realtime")
	if err := refuseRealtime(file); err != nil {
		t.Errorf("without the file: %v", err)
	}
	for text, refused := range map[string]bool{"1\n": true, "0\n": false} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := refuseRealtime(file); errors.Is(err, ErrUnsupported) != refused || !refused && err != nil {
			t.Errorf("%q gives %v", text, err)
		}
	}
}
