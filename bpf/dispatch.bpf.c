// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * What stays attached while policies come and go.
 *
 * Hook: TC egress and ingress, as TCX link (Linux 6.6+) or clsact filter.
 * Minimum kernel: 6.1. Verdict: that of the policy in the slot "active"; with
 * no policy there, TC_ACT_UNSPEC, which is TCX_NEXT: on to the next program.
 */
#include "include/abi.h"
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

/*
 * The policy in force, in slot 0: egate_policy, or egate_guard in front of two
 * of them. Go writes it; that one write is the switch for every interface and
 * both directions at once.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} active SEC(".maps");

/* While a confirmation is pending: slot 0 the new policy, slot 1 the one before, if any. Written by Go before the switch. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u32);
} pending SEC(".maps");

/* CLOCK_BOOTTIME, so that sleeping counts. A constant of the program. */
const volatile __u64 deadline_boot_ns = 0;

/* The program that follows learns the direction from the last control word, the one least used by others. */
static __always_inline int dispatch(struct __sk_buff *skb, __u32 direction)
{
	skb->cb[4] = direction;
	bpf_tail_call(skb, &active, 0);
	return TC_ACT_UNSPEC;
}

SEC("tc")
int egate_egress(struct __sk_buff *skb)
{
	return dispatch(skb, EGATE_EGRESS);
}

SEC("tc")
int egate_ingress(struct __sk_buff *skb)
{
	return dispatch(skb, EGATE_INGRESS);
}

/* Stands in the active slot until `egate confirm`: past the deadline the policy before is in force again. */
SEC("tc")
int egate_guard(struct __sk_buff *skb)
{
	bpf_tail_call(skb, &pending, bpf_ktime_get_boot_ns() > deadline_boot_ns);
	return TC_ACT_UNSPEC;
}

char _license[] SEC("license") = "Dual BSD/GPL";
