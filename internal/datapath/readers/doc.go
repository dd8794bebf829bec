// Package readers holds the readers of stage 4's programs to what they claim:
// those of DNS messages (bpf/include/dns.h) and of the first request of a
// connection (bpf/include/request.h), each alone in a program of its own. It is
// made of tests; nothing imports it.
package readers

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -no-global-types -type egate_policy_config readers ../../../bpf/readers.bpf.c -- -O2 -g -Wall -Werror -mcpu=v3 -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu
