package probe

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// wanted are the capabilities that apply takes. CAP_SYS_ADMIN stands for the
// others, as it does in the kernel.
var wanted = []struct {
	bit  uint
	name string
}{
	{unix.CAP_BPF, "CAP_BPF"},
	{unix.CAP_NET_ADMIN, "CAP_NET_ADMIN"},
	{unix.CAP_PERFMON, "CAP_PERFMON"},
}

func capabilities(status string) Check {
	c := Check{
		Name: "capabilities", Needed: true, State: OK, Since: "5.8",
		For: "apply, status, events, off, confirm; check and explain need none",
	}
	text, err := os.ReadFile(status)
	if err != nil {
		c.State, c.Detail = Unknown, oneLine(err)
		return c
	}
	have, err := effective(text)
	if err != nil {
		c.State, c.Detail = Unknown, oneLine(err)
		return c
	}
	var lacking []string
	for _, w := range wanted {
		admin := w.bit != unix.CAP_NET_ADMIN && have&(1<<unix.CAP_SYS_ADMIN) != 0
		if have&(1<<w.bit) == 0 && !admin {
			lacking = append(lacking, w.name)
		}
	}
	if len(lacking) > 0 {
		c.State, c.Detail = Missing, "this process lacks "+strings.Join(lacking, ", ")
		c.Do = "run egate as root"
	}
	return c
}

// effective reads the CapEff line of a /proc/PID/status text.
func effective(status []byte) (uint64, error) {
	lines := bufio.NewScanner(bytes.NewReader(status))
	for lines.Scan() {
		if hex, ok := strings.CutPrefix(lines.Text(), "CapEff:"); ok {
			return strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
		}
	}
	return 0, fmt.Errorf("read capabilities: no CapEff line")
}

// bpffs tells where a file system for pins is mounted.
func bpffs(mounts string) Check {
	c := Check{
		Name: "bpffs", Since: "4.4", For: "keeping a policy in force without a daemon",
	}
	file, err := os.Open(mounts)
	if err != nil {
		c.State, c.Detail = Unknown, oneLine(err)
		return c
	}
	defer file.Close()
	var places []string
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		if fields := strings.Fields(lines.Text()); len(fields) > 2 && fields[2] == "bpf" {
			places = append(places, fields[1])
		}
	}
	if err := lines.Err(); err != nil {
		c.State, c.Detail = Unknown, oneLine(err)
		return c
	}
	if len(places) == 0 {
		c.State, c.Detail, c.Do = Missing, "not mounted", "apply mounts it at /sys/fs/bpf by itself"
		return c
	}
	c.State, c.Detail = OK, "at "+strings.Join(places, ", ")
	return c
}
