// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * What egate is measured against, programs of the kind that people write: each
 * one does its one thing well and nothing else.
 *
 * Hook: TC egress on Ethernet. Minimum kernel: 6.1. Verdict: TC_ACT_UNSPEC (on
 * to the next program) or TC_ACT_SHOT.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

/* The price of being attached. */
SEC("tc")
int empty(struct __sk_buff *skb)
{
	return TC_ACT_UNSPEC;
}

static __always_inline struct iphdr *ipv4(struct __sk_buff *skb)
{
	struct iphdr *ip = (void *)(long)skb->data + ETH_HLEN;

	return (void *)(ip + 1) > (void *)(long)skb->data_end ? NULL : ip;
}

static __always_inline struct ipv6hdr *ipv6(struct __sk_buff *skb)
{
	struct ipv6hdr *ip = (void *)(long)skb->data + ETH_HLEN;

	return (void *)(ip + 1) > (void *)(long)skb->data_end ? NULL : ip;
}

/* The first program of many a lesson: no ping leaves. */
SEC("tc")
int icmp_drop(struct __sk_buff *skb)
{
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = ipv4(skb);

		return ip && ip->protocol == IPPROTO_ICMP ? TC_ACT_SHOT : TC_ACT_UNSPEC;
	}
	if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = ipv6(skb);

		return ip && ip->nexthdr == IPPROTO_ICMPV6 ? TC_ACT_SHOT : TC_ACT_UNSPEC;
	}
	return TC_ACT_UNSPEC;
}

/* Keys of tries, as bpf_lpm_trie_key_u8. */
struct key4 {
	__u32 bits;
	__u8 address[4];
};

struct key6 {
	__u32 bits;
	__u8 address[16];
};

/* Prefixes that must not be sent to. Key: length and address; the value says nothing. Written by Go, which knows the size. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, struct key4);
	__type(value, __u8);
} prefixes4 SEC(".maps");

/* The same of IPv6. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, struct key6);
	__type(value, __u8);
} prefixes6 SEC(".maps");

/* What eBPF egress filters do about a list of prefixes: one look-up in the kernel's trie. */
SEC("tc")
int trie(struct __sk_buff *skb)
{
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = ipv4(skb);
		struct key4 key = { .bits = 32 };

		if (!ip)
			return TC_ACT_UNSPEC;
		__builtin_memcpy(key.address, &ip->daddr, sizeof(key.address));
		return bpf_map_lookup_elem(&prefixes4, &key) ? TC_ACT_SHOT : TC_ACT_UNSPEC;
	}
	if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = ipv6(skb);
		struct key6 key = { .bits = 128 };

		if (!ip)
			return TC_ACT_UNSPEC;
		__builtin_memcpy(key.address, &ip->daddr, sizeof(key.address));
		return bpf_map_lookup_elem(&prefixes6, &key) ? TC_ACT_SHOT : TC_ACT_UNSPEC;
	}
	return TC_ACT_UNSPEC;
}

char _license[] SEC("license") = "Dual BSD/GPL";
