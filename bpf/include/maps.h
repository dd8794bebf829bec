/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The maps of the policy program. Those of a policy are made for it, filled
 * before it is switched to, never written by Go afterwards, and freed with it;
 * Go sets their sizes. Those of the state outlive policies.
 */
#ifndef EGATE_MAPS_H
#define EGATE_MAPS_H

#include "abi.h"
#include "packet.h"
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define ARRAY_MAP(map_type, map_name, value_type)                                                  \
	struct {                                                                                   \
		__uint(type, map_type);                                                            \
		__uint(max_entries, 1);                                                            \
		__type(key, __u32);                                                                \
		__type(value, value_type);                                                         \
	} map_name SEC(".maps")

/* --- of a policy: written by Go before the switch, read by the program --- */

/*
 * Lines of the address tables of all dimensions and directions. Mappable, since
 * such a map begins on a page, so that a line never straddles cache lines, and
 * Go fills it by one copy.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct egate_line);
} lines SEC(".maps");
/* 256 entries for each selector table in use. */
ARRAY_MAP(BPF_MAP_TYPE_ARRAY, protos, struct egate_proto);
/* Rows and pages of the selector tables. */
ARRAY_MAP(BPF_MAP_TYPE_ARRAY, pages, struct egate_quad);
/* Rule vectors of all dimensions and directions; mappable as lines are. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} vectors SEC(".maps");
/* Rules of both directions, each direction's default behind its last rule. */
ARRAY_MAP(BPF_MAP_TYPE_ARRAY, rules, struct egate_rule);
/* Guarded interfaces, by ifindex. An interface that is not in it passes unjudged. */
ARRAY_MAP(BPF_MAP_TYPE_ARRAY, ifaces, struct egate_iface);

/* --- of a policy: written by the program, read by Go; folded into the gate's sums when the policy goes --- */

ARRAY_MAP(BPF_MAP_TYPE_PERCPU_ARRAY, rule_counters, struct egate_rule_counter);
/* Two entries an interface: 2 * slot + direction. */
ARRAY_MAP(BPF_MAP_TYPE_PERCPU_ARRAY, iface_counters, struct egate_iface_counter);
/* Theoretical arrival time of each rule's next event (GCRA). */
ARRAY_MAP(BPF_MAP_TYPE_ARRAY, event_times, __u64);

/* What was found out about the last packets: see cache.h. A cache line each. */
struct egate_cached {
	struct egate_addr dst;
	struct egate_addr src;
	__u32 rule; /* index in its chain, or EGATE_NO_RULE */
	__u16 selector;
	__u16 source_port;
	__u8 proto;
	__u8 action;
	__u8 used; /* 0: the entry is empty */
	__u8 pad[5];
	__u64 tracked_ns; /* when map flows was last told of the connection; 0: never */
	__u64 replied_ns; /* when it last said that the packets are replies; 0: never */
};
struct egate_cache_page {
	struct egate_cached entries[EGATE_CACHE_PAGE_ENTRIES];
};
_Static_assert(sizeof(struct egate_cached) == 64, "egate_cached is a cache line");
/* EGATE_CACHE_PAGES pages for each direction that needs them; written and read by the program alone. */
ARRAY_MAP(BPF_MAP_TYPE_PERCPU_ARRAY, cache, struct egate_cache_page);

/* --- of the state: pinned, shared by successive policies --- */

/* One entry a direction. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, EGATE_DIRECTIONS);
	__type(key, __u32);
	__type(value, struct egate_totals);
} totals SEC(".maps");

/* Connections and who opened them; size: `flows: {max: ...}` of the policy. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct egate_flow_key);
	__type(value, struct egate_flow);
} flows SEC(".maps");

/* Datagrams whose first fragment was judged; as many as the kernel would reassemble at once. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct egate_fragment_key);
	__type(value, struct egate_fragment_verdict);
} fragments SEC(".maps");

/* Theoretical arrival time of the next answer to a rejected packet (GCRA). */
ARRAY_MAP(BPF_MAP_TYPE_ARRAY, answer_time, __u64);

/* Decisions as they happen; one reader at a time. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} events SEC(".maps");

/*
 * --- scratch: written and read within one run of the program; runs on one CPU
 * do not overlap, for both hooks run with softirqs off ---
 */

/*
 * All that one run knows of its packet. In a map and not on the stack, because
 * the verifier follows every value on the stack and would follow every way a
 * packet can be read through the whole program.
 */
struct work {
	struct packet packet;
	struct decision decision;
	__u32 rows[EGATE_DIMENSIONS]; /* positions of the packet's rows in map vectors */
	__u64 summary;                /* words of the ANDed rows that were not looked at yet */
	__u64 word;                   /* rules of the present word that were not looked at yet */
	__u32 base;                   /* number of the present word */
	__u32 continued;              /* continue rules that were met */
	__u32 cursor;                 /* in options, or in a chain of IPv6 extension headers */
	__u8 options[64];             /* of the IPv4 header, 40 bytes at most */
};
ARRAY_MAP(BPF_MAP_TYPE_PERCPU_ARRAY, work, struct work);

/* Room to build an answer in: see answer.h. */
struct egate_answer_room {
	__u8 bytes[256];
};
ARRAY_MAP(BPF_MAP_TYPE_PERCPU_ARRAY, answer_room, struct egate_answer_room);

static __always_inline void *at(void *map, __u32 position)
{
	return bpf_map_lookup_elem(map, &position);
}

#endif
