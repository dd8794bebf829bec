// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Gives a program under test another destination at each run of a test run
 * (BPF_PROG_TEST_RUN with repeat), which by itself shows it the same frame again
 * and again: with that, whatever the program looks up stays in the caches, and
 * nothing is learned of packets as a network has them.
 *
 * Hook: none, test runs of a plain UDP frame over Ethernet, or of a TCP frame,
 * whose ports are at the same place. Minimum kernel: 6.1.
 * Verdict: that of the program under test; SCATTER_MISSED if it was not reached.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>
#include <bpf/bpf_helpers.h>

/* No verdict of TC's. */
#define SCATTER_MISSED 0x5ca7

/* An IPv4 address is in the first word. */
struct destination {
	__be32 address[4];
	__be16 port;
	__u16 unused;
};

_Static_assert(sizeof(struct destination) == 20, "written by Go");

/* Where the frame goes, run by run. Written by Go: a power of two of them, in random order. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct destination);
} destinations SEC(".maps");

/* The program under test. Written by Go. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} contender SEC(".maps");

/* The number of destinations less one. */
const volatile __u32 mask = 0;
/* Whether the frame and the destinations are IPv6. */
const volatile __u8 v6 = 0;
/* Whether each packet is the first one of its connection: its source port, or else the end of its source address, is another one than before. IPv4 only. */
const volatile __u8 fresh = 0;

/* The next run's destination. One test run at a time. */
__u32 next = 0;

static __always_inline int scatter4(struct __sk_buff *skb, const struct destination *to, __u32 run)
{
	struct iphdr *ip = (void *)(long)skb->data + ETH_HLEN;
	struct udphdr *udp = (void *)(ip + 1);

	if ((void *)(udp + 1) > (void *)(long)skb->data_end)
		return -1;
	ip->daddr = to->address[0];
	udp->dest = to->port;
	if (fresh) {
		udp->source = run;
		((__u16 *)&ip->saddr)[1] = run >> 16;
	}
	return 0;
}

static __always_inline int scatter6(struct __sk_buff *skb, const struct destination *to)
{
	struct ipv6hdr *ip = (void *)(long)skb->data + ETH_HLEN;
	struct udphdr *udp = (void *)(ip + 1);

	if ((void *)(udp + 1) > (void *)(long)skb->data_end)
		return -1;
	for (int i = 0; i < 4; i++)
		ip->daddr.in6_u.u6_addr32[i] = to->address[i];
	udp->dest = to->port;
	return 0;
}

SEC("tc")
int scatter(struct __sk_buff *skb)
{
	__u32 run = next++, at = run & mask;
	struct destination *to = bpf_map_lookup_elem(&destinations, &at);

	if (!to || (v6 ? scatter6(skb, to) : scatter4(skb, to, run)))
		return SCATTER_MISSED;
	bpf_tail_call(skb, &contender, 0);
	return SCATTER_MISSED;
}

char _license[] SEC("license") = "Dual BSD/GPL";
