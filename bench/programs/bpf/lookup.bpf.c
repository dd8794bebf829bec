// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Makes of one frame with a DNS message another message at each run of a test
 * run (BPF_PROG_TEST_RUN with repeat), and gives it to a program under test. One
 * copy of it sends the questions, another one, which counts alike, the answers
 * to them.
 *
 * Hook: none, test runs of a frame with DNS over UDP over IPv4, whose checksum
 * nobody looks at. Minimum kernel: 6.1. Verdict: that of the program under test;
 * LOOKUP_MISSED if it was not reached.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

/* No verdict of TC's. */
#define LOOKUP_MISSED 0x5ca7

#define MOST_ADDRESSES 8
#define MESSAGE (ETH_HLEN + sizeof(struct iphdr) + sizeof(struct udphdr))
/* Behind the header of the message, 12 bytes, and the length of the name's first label. */
#define NAME (MESSAGE + 12 + 1)

/* The program under test. Written by Go. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} contender SEC(".maps");

/* The number of different names less one, which is a power of two less one. */
const volatile __u32 mask = 0;
/* Whether the frame is an answer. */
const volatile __u8 answers = 0;
/* Where in the frame the addresses of the answer are, 0 behind the last one. */
const volatile __u16 addresses[MOST_ADDRESSES] = {};
/* The first byte of all addresses. */
const volatile __u8 network = 0;

/* The next run's look-up. One test run at a time. */
__u32 next = 0;

/* A number as eight letters. */
static __always_inline void spell(__u8 *to, __u32 number)
{
	for (int i = 0; i < 8; i++)
		to[i] = 'a' + (number >> (28 - 4 * i) & 15);
}

static __always_inline int edit(struct __sk_buff *skb, __u32 number)
{
	__u8 *frame = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct udphdr *udp = (void *)(frame + ETH_HLEN + sizeof(struct iphdr));
	__u32 name = number & mask;
	/* each look-up from a port of its own, as resolvers do it */
	__be16 port_be = bpf_htons(0x8000 | (number & 0x7fff));

	if (frame + NAME + 8 > end)
		return -1;
	if (answers)
		udp->dest = port_be;
	else
		udp->source = port_be;
	*(__be16 *)(frame + MESSAGE) = bpf_htons(number);
	spell(frame + NAME, name);
#pragma unroll
	for (int i = 0; i < MOST_ADDRESSES; i++) {
		__u32 at = addresses[i];

		if (!at)
			break;
		if (frame + at + 4 > end)
			return -1;
		*(__be32 *)(frame + at) =
			bpf_htonl((__u32)network << 24 | ((name * MOST_ADDRESSES + i) & 0xffffff));
	}
	return 0;
}

SEC("tc")
int lookup(struct __sk_buff *skb)
{
	if (edit(skb, next++))
		return LOOKUP_MISSED;
	bpf_tail_call(skb, &contender, 0);
	return LOOKUP_MISSED;
}

char _license[] SEC("license") = "Dual BSD/GPL";
