package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"

	"egate/bench/result"
)

// describeMachine says where the run takes place.
func describeMachine(ctx context.Context, egate string) (*result.Machine, error) {
	m := &result.Machine{Tools: map[string]string{}}
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return nil, fmt.Errorf("read kernel: %w", err)
	}
	m.Kernel = unix.ByteSliceToString(name.Release[:]) + " " + unix.ByteSliceToString(name.Machine[:])
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return nil, fmt.Errorf("read memory: %w", err)
	}
	m.MemoryMB = int(uint64(info.Totalram) * uint64(info.Unit) >> 20)
	var cpus unix.CPUSet
	if err := unix.SchedGetaffinity(0, &cpus); err != nil {
		return nil, fmt.Errorf("read processors: %w", err)
	}
	m.CPUs = cpus.Count()
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return nil, fmt.Errorf("read processors: %w", err)
	}
	m.CPU = processorName(string(text))
	for tool, args := range map[string][]string{
		"nft": {"nft", "--version"}, "iptables": {"iptables", "--version"}, "ipset": {"ipset", "--version"},
		"iperf3": {"iperf3", "--version"}, "dnsmasq": {"dnsmasq", "--version"}, "egate": {egate, "version"},
	} {
		// What is not installed has no version; the sheets say who was left out.
		if out, err := exec.CommandContext(ctx, args[0], args[1:]...).Output(); err == nil {
			first, _, _ := strings.Cut(string(out), "\n")
			m.Tools[tool] = strings.TrimSpace(first)
		}
	}
	return m, nil
}

// processorName reads the model out of /proc/cpuinfo, which not every
// architecture names.
func processorName(cpuinfo string) string {
	for line := range strings.Lines(cpuinfo) {
		key, value, _ := strings.Cut(line, ":")
		if strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unnamed"
}
