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

/* The policy's constants. */
const volatile struct egate_policy_config config = {};

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

/* The names that the policy's patterns mention, by their hashes. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u64);
	__type(value, struct egate_domain);
} domains SEC(".maps");
/* What an address is to the dns section, enum egate_resolver. The daemon keeps it up to date. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct egate_addr);
	__type(value, __u32);
} resolvers SEC(".maps");

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
	__u8 pad;
	__u32 epoch;   /* of the destination's names, see names.h */
	__u32 tracked; /* when map flows was last told of the connection, by recently(); 0: never */
	__u32 replied; /* when it last said that the packets are replies; 0: never */
	__u64 named_until_ns; /* how long the destination's names hold */
};
struct egate_cache_page {
	struct egate_cached entries[EGATE_CACHE_PAGE_ENTRIES];
};
_Static_assert(sizeof(struct egate_cached) == 64, "egate_cached is a cache line");
/* EGATE_CACHE_PAGES pages for each direction that needs them; written and read by the program alone. */
ARRAY_MAP(BPF_MAP_TYPE_PERCPU_ARRAY, cache, struct egate_cache_page);

/* Counts, for a part of all addresses each, how often one was given a name: what was cached before no longer holds. */
ARRAY_MAP(BPF_MAP_TYPE_ARRAY, name_epochs, __u32);

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

/*
 * Names. Without a policy that lists names these hold next to nothing; Go sets
 * their sizes.
 */
#define LRU_MAP(map_name, key_type, value_type)                                                    \
	struct {                                                                                   \
		__uint(type, BPF_MAP_TYPE_LRU_HASH);                                               \
		__uint(max_entries, 1);                                                            \
		__type(key, key_type);                                                             \
		__type(value, value_type);                                                         \
	} map_name SEC(".maps")

LRU_MAP(learned, struct egate_addr, struct egate_learned);
LRU_MAP(names, __u64, struct egate_name);
LRU_MAP(questions, struct egate_question_key, struct egate_question);
LRU_MAP(bindings, struct egate_flow_key, struct egate_binding);
LRU_MAP(streams, struct egate_flow_key, struct egate_stream);
/* The unfinished messages of streams. */
struct egate_stream_room {
	__u8 bytes[EGATE_ROOM_BYTES];
};
LRU_MAP(stream_rooms, struct egate_flow_key, struct egate_stream_room);

ARRAY_MAP(BPF_MAP_TYPE_PERCPU_ARRAY, name_totals, struct egate_name_totals);
/* Theoretical arrival time of the next question (GCRA). */
ARRAY_MAP(BPF_MAP_TYPE_ARRAY, question_time, __u64);

/* What the kernel could not read; the daemon reads it. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 16);
} unread SEC(".maps");

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
	__u32 name_count; /* names of the destination; more than 1: their rows are ORed */
	__u32 name_rows[EGATE_NAME_SLOTS];
	struct egate_name_slot names[EGATE_NAME_SLOTS]; /* with class_of brought up to date */
	__u64 named_until_ns;                           /* how long they hold */
	__u64 name;        /* the one that the packet goes by, for its event; 0: none */
	__u8 name_in_room; /* and whether its text stands in the room */
	__u32 name_epoch;  /* what it was when they were read */
	__u8 binding;  /* 1 + enum egate_binding_state; 0: the packet's connection has no name */
	__u8 has_flow; /* flow is filled */
	__u8 silent;   /* a refused DNS segment is dropped, not rejected */
	__u8 again; /* enum match_again, if the packet is matched again: its continue rules are counted */
	__u8 refusal; /* 1 + response code with which a question is answered; 0: it is not */
	struct egate_question_key question; /* of the DNS message in work */
	struct egate_flow_key flow;         /* of the packet, where names are in use */
	__u64 summary;    /* words of the ANDed rows that were not looked at yet */
	__u64 word;       /* rules of the present word that were not looked at yet */
	__u32 base;       /* number of the present word */
	__u32 continued;  /* continue rules that were met */
	__u32 cursor;     /* in options, or in a chain of IPv6 extension headers */
	__u8 options[64]; /* of the IPv4 header, 40 bytes at most */
};
ARRAY_MAP(BPF_MAP_TYPE_PERCPU_ARRAY, work, struct work);

/* Room to build an answer in: see answer.h. */
struct egate_answer_room {
	__u8 bytes[512];
};
ARRAY_MAP(BPF_MAP_TYPE_PERCPU_ARRAY, answer_room, struct egate_answer_room);

/* The name that was read last: see names.h. */
struct name {
	__u64 hash;
	__u16 class;
	__u8 ask;         /* it may be asked for */
	__u8 labels;      /* without the root's */
	__u16 bytes;      /* of wire in use, with the root's label */
	__u16 longest;    /* bytes of its longest label */
	__u8 starts[128]; /* where in wire each label's length byte is */
	__u8 wire
		[EGATE_NAME_BYTES +
		 64]; /* lower case, uncompressed; zeros and what was there before stand behind it */
};

/* Values to be, too large for the stack. */
struct name_scratch {
	struct egate_learned learned;
	struct egate_name name;
};
ARRAY_MAP(BPF_MAP_TYPE_PERCPU_ARRAY, name_scratch, struct name_scratch);

/*
 * Where a message is read: all of it lies in bytes, and readers keep here what
 * they know, for the reasons that struct work has.
 */
struct room {
	__u32 length;       /* of what bytes holds */
	__u32 cursor;       /* in a name's text */
	__u32 base;         /* where in bytes the DNS message begins that is being read */
	__u32 end;          /* and where it ends */
	__u32 done;         /* bytes of a TCP stream that were read, see resolve.h */
	__u32 stream_first; /* sequence number of the room's first byte */
	__u32 keep;         /* where in bytes begins what is not done with */
	__u32 stream_next;  /* sequence number behind them */
	__u16 id;           /* of the DNS message */
	__u16 header_flags;
	__u32 question_end;   /* where in bytes its question ends */
	__u32 asked_type;     /* of the question that the message answers or asks */
	__u64 asked;          /* hash of its name */
	__u64 asked_class_of; /* as in egate_name_slot */
	__u64 reader[16];     /* of the reader at work */
	__u64 hashing[16];    /* of hash_name */
	struct name name;
	__u8 bytes[EGATE_ROOM_BYTES + 256]; /* some to spare for reads and copies of a fixed size */
};
ARRAY_MAP(BPF_MAP_TYPE_PERCPU_ARRAY, room, struct room);

static __always_inline void *at(void *map, __u32 position)
{
	return bpf_map_lookup_elem(map, &position);
}

#endif
