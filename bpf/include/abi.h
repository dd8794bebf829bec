/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * All that crosses between the BPF programs and Go. Go's types are generated
 * from this file (internal/datapath, bpf2go); the names of actions and reasons
 * have a twin in internal/verdict that a test holds to the enums below.
 *
 * Numbers are in host byte order unless a name ends in _be. Times are
 * nanoseconds of CLOCK_MONOTONIC unless a name says otherwise.
 */
#ifndef EGATE_ABI_H
#define EGATE_ABI_H

#include <linux/types.h>

/* Layout of the maps that outlive a policy (state/ under a gate's pins). */
#define EGATE_ABI_VERSION 2

#define EGATE_MAX_VLAN_TAGS 2
#define EGATE_MAX_EXTENSION_HEADERS 8
#define EGATE_MAX_HEADER_BYTES 1024
#define EGATE_MAX_CONTINUE_RULES 64
#define EGATE_CACHE_PAGES 16        /* of a direction and CPU */
#define EGATE_CACHE_PAGE_ENTRIES 64 /* 4 KiB */
#define EGATE_MAX_WORDS 64          /* of a rule vector: 4,096 rules */
#define EGATE_MAX_DEPTH 44          /* of an address table, in lines */
#define EGATE_NO_RULE 0xffffffffU
#define EGATE_NO_ROW 0xffffU
#define EGATE_REASON_SLOTS 64      /* room for reasons to come */
#define EGATE_UNKNOWN_PROTOCOL 255 /* reserved by IANA: counts what could not be read */
#define EGATE_NAME_BYTES 256       /* of a name as DNS writes it: 255 and one to spare */
#define EGATE_NAME_LABELS 127      /* of 1 byte and its length, in 255 bytes */
#define EGATE_NAME_SLOTS 8         /* names of an address */
#define EGATE_ROOM_BYTES 16384     /* of a DNS message or ClientHello that is read whole */
#define EGATE_NAME_EPOCHS 1024

enum egate_direction {
	EGATE_EGRESS,
	EGATE_INGRESS,
	EGATE_DIRECTIONS,
};

enum egate_action {
	EGATE_ALLOW,
	EGATE_DROP,
	EGATE_REJECT,
	EGATE_CONTINUE,
	EGATE_ACTIONS,
};

enum egate_reason {
	EGATE_REASON_RULE,
	EGATE_REASON_DEFAULT,
	EGATE_REASON_REPLY,
	EGATE_REASON_REPLY_ERROR,
	EGATE_REASON_CONTROL_FRAME,
	EGATE_REASON_NEIGHBOUR_DISCOVERY,
	EGATE_REASON_DHCP,
	EGATE_REASON_NON_IP,
	EGATE_REASON_FRAGMENT,
	EGATE_REASON_FRAGMENT_UNKNOWN,
	EGATE_REASON_TRUNCATED,
	EGATE_REASON_BAD_IP_HEADER,
	EGATE_REASON_BAD_LENGTH,
	EGATE_REASON_VLAN_DEPTH,
	EGATE_REASON_EXTENSION_DEPTH,
	EGATE_REASON_SOURCE_ROUTE,
	EGATE_REASON_BAD_TRANSPORT,
	EGATE_REASON_OWN_ANSWER,
	EGATE_REASON_REJECT_LIMITED,
	EGATE_REASON_REJECT_UNANSWERABLE,
	EGATE_REASON_DNS,
	EGATE_REASON_DNS_ELSEWHERE,
	EGATE_REASON_DNS_UNLISTED,
	EGATE_REASON_DNS_TYPE,
	EGATE_REASON_DNS_LABEL,
	EGATE_REASON_DNS_RATE,
	EGATE_REASON_DNS_QUESTION,
	EGATE_REASON_DNS_ANSWER,
	EGATE_REASON_NAME_MISMATCH,
	EGATE_REASON_NAME_UNREADABLE,
	EGATE_REASON_ECH,
	EGATE_REASON_QUIC,
	EGATE_REASONS,
};

/* What stands before the IP header on an interface. */
enum egate_link {
	EGATE_LINK_ETHERNET,
	EGATE_LINK_NONE,
};

/* Which fields of a packet could be read. */
enum egate_have {
	EGATE_HAVE_SRC = 1,
	EGATE_HAVE_DST = 2,
	EGATE_HAVE_PROTO = 4,
	EGATE_HAVE_TRANSPORT = 8,
};

enum egate_fragment {
	EGATE_NOT_FRAGMENT,
	EGATE_FIRST_FRAGMENT,
	EGATE_LATER_FRAGMENT,
};

/* Dimensions of a packet that rules ask for; the order of tables.Dimension. */
enum egate_dimension {
	EGATE_DIM_DESTINATION,
	EGATE_DIM_SOURCE,
	EGATE_DIM_SERVICE,
	EGATE_DIM_SOURCE_PORT,
	EGATE_DIM_NAME,
	EGATE_DIMENSIONS,
};

/* What a rule says of the names of its packets; bits of egate_rule.flags. */
enum egate_rule_flag {
	EGATE_RULE_NAMED = 1, /* the rule asks for names */
	EGATE_RULE_VERIFY =
		2, /* the name in a TLS or HTTP request must be the rule's: tcp/443 and tcp/80 */
	EGATE_RULE_VERIFY_ALL = 4, /* that of every TCP port */
	EGATE_RULE_ECH_DROP = 8,   /* no encrypted ClientHello */
	EGATE_RULE_QUIC_DROP = 16, /* no udp/443 */
};

/* What an address is to the policy's dns section; values of map resolvers. */
enum egate_resolver {
	EGATE_RESOLVER_TRUSTED = 1, /* its answers open names */
	EGATE_RESOLVER_DOH = 2,     /* known to answer DNS over HTTPS */
};

/* What became of a DNS message; indexes egate_name_totals.outcome. */
enum egate_dns_outcome {
	EGATE_DNS_ASKED,        /* a question left and is remembered */
	EGATE_DNS_LEARNED,      /* an answer that opened or prolonged an address */
	EGATE_DNS_EMPTY,        /* an answer without an address */
	EGATE_DNS_ERROR,        /* an answer with another response code than NOERROR */
	EGATE_DNS_NOT_LISTED,   /* an answer about a name that no rule lists */
	EGATE_DNS_UNASKED,      /* an answer to no question that left */
	EGATE_DNS_OTHER_NAME,   /* an answer to the question's id, with another name or type */
	EGATE_DNS_MALFORMED,    /* counts or names contradict the message, or a loop */
	EGATE_DNS_TOO_LONG,     /* longer than the reader's room */
	EGATE_DNS_FRAGMENTED,   /* in several fragments */
	EGATE_DNS_OUT_OF_ORDER, /* a TCP segment that is not the next */
	EGATE_DNS_NOT_ANSWER,   /* not a response, or another operation than a query */
	EGATE_DNS_VOUCHED,      /* not read, but the daemon asked the same and learned */
	EGATE_DNS_OUTCOMES,
};

/* An address; IPv4 as ::ffff:a.b.c.d. */
struct egate_addr {
	__u64 hi;
	__u64 lo;
};

/* Spreads a 32-bit word over lines: see tables.Index. */
struct egate_index {
	__u32 shift;
	__u32 low;
	__u32 last;
	__u32 base; /* position of a line in its table */
};

/* Where the table of one address dimension begins. */
struct egate_addr_table {
	__u32 lines; /* position of its line 0 in map lines */
	struct egate_index root4;
	struct egate_index root6;
};

struct egate_selector_table {
	__u32 protos; /* position of protocol 0 in map protos */
	__u32 rows;   /* position of row 0 in map pages, in selectors */
	__u32 pages;  /* position of page 0 in map pages, in selectors */
};

/* What a policy says of DNS and names. */
struct egate_names_config {
	__u64 key[2];   /* of the hash of names, see names.h */
	__u64 types[4]; /* bit t: questions of type t may be asked; types above 255 share bit 255 */
	__u64 rate_interval_ns; /* of questions; 0: no bound */
	__u32 rate_burst;
	__u8 in_use;      /* answers are read */
	__u8 listed_only; /* questions for names that no rule lists are refused */
	__u8 nxdomain;    /* they are answered so, not with REFUSED */
	__u8 check_types; /* types counts */
	__u8 max_label;   /* bytes; 63: any */
	__u8 elsewhere;   /* enum egate_action: of DNS to who is not trusted */
	__u8 deepest;     /* labels of the longest name in map domains */
	__u8 pad[5];
};
_Static_assert(sizeof(struct egate_names_config) == 72, "egate_names_config has no hidden padding");

/* One direction of a policy. A constant of the program: what it switches off, the verifier removes. */
struct egate_chain {
	__u8 default_action; /* enum egate_action */
	__u8 replies; /* packets of connections that the other side opened pass the default */
	__u8 track;   /* remember who opened a connection */
	__u8 rejects; /* something in this direction may be rejected */
	__u8 used[EGATE_DIMENSIONS];
	__u8 pad[3];
	__u32 words;                     /* of a vector; 0: no rules */
	__u32 vectors[EGATE_DIMENSIONS]; /* position of row 0 in map vectors */
	__u32 strides[EGATE_DIMENSIONS]; /* words of a row */
	__u32 rules;      /* position of rule 0 in maps rules, rule_counters, event_times */
	__u32 cache;      /* position of page 0 in map cache */
	__u32 rule_count; /* the default's entry stands behind the last rule's */
	struct egate_addr_table addr[2];    /* destination, source */
	struct egate_selector_table sel[2]; /* service, source port */
};

/* A whole policy's constants. */
struct egate_policy_config {
	__u64 answer_secret; /* marks the answers to rejected packets, see answer.h */
	__u32 generation;
	__u8 audit; /* decide and count, but let everything pass */
	__u8 pad[3];
	struct egate_names_config names;
	struct egate_chain chain[EGATE_DIRECTIONS];
};
_Static_assert(sizeof(struct egate_chain) == 164, "egate_chain has no hidden padding");
_Static_assert(sizeof(struct egate_policy_config) == 416,
	       "egate_policy_config has no hidden padding");

enum egate_line_kind {
	EGATE_LINE_STEPS,
	EGATE_LINE_SHORT,
	EGATE_LINE_INDEX,
	EGATE_LINE_WIDE,
};

/* Marks a value that is the position of the line for the next window, not a class. */
#define EGATE_NEXT 0x80000000U

/* A cache line of an address table: see tables.Line. */
struct egate_line {
	__u8 kind;  /* enum egate_line_kind */
	__u8 at;    /* the bit of an address at which the line's window begins, from the highest */
	__u16 half; /* the first of 15 short starts, the others lie behind it */
	union {
		__u32 starts[7];
		__u32 wide_values[7]; /* 5 of them in use */
		struct egate_index index;
	};
	union {
		__u32 values[8];
		__u16 classes[16];
		__u64 wide_starts[4];
	};
};
_Static_assert(sizeof(struct egate_line) == 64, "egate_line is a cache line");

/* Four selector classes, or four page numbers: packed, since array maps round values up to 8 bytes. */
struct egate_quad {
	__u16 v[4];
};

/* A protocol's entry: see tables.ProtoEntry. */
struct egate_proto {
	__u16 class;
	__u16 row;
};

/* What a rule, or a chain's default, does beyond matching. */
struct egate_rule {
	__u8 action; /* enum egate_action */
	__u8 flags;  /* enum egate_rule_flag */
	__u8 pad[2];
	__u32 event_burst;       /* 0: no events */
	__u64 event_interval_ns; /* 0: every packet */
};

/* An interface that the policy guards, by ifindex. */
struct egate_iface {
	__u16 slot;    /* 1 + its number in map iface_counters; 0: not guarded */
	__u8 link;     /* enum egate_link */
	__u8 dns_only; /* packets pass unjudged, but DNS is read: a resolver is reached by it */
};

/* Per CPU: packets (GSO segments count one by one) and bytes, by enum egate_action. */
struct egate_rule_counter {
	__u64 packets[EGATE_ACTIONS];
	__u64 bytes[EGATE_ACTIONS];
};

/* Per CPU, of one interface and direction, by enum egate_action without continue. */
struct egate_iface_counter {
	__u64 packets[3];
	__u64 bytes[3];
};

/* Per CPU. passed + blocked is all that was seen; in audit mode blocked tells what would have been. */
struct egate_proto_counter {
	__u64 passed_packets;
	__u64 passed_bytes;
	__u64 blocked_packets;
	__u64 blocked_bytes;
};

struct egate_reason_counter {
	__u64 packets;
	__u64 bytes;
};

/* Per CPU, of one direction. */
struct egate_totals {
	struct egate_proto_counter proto[256];
	struct egate_reason_counter reason[EGATE_REASON_SLOTS];
	__u64 answers_sent;   /* to rejected packets */
	__u64 answers_failed; /* the kernel refused to build or send one; the packet was dropped */
	__u64 events_sent;
	__u64 events_lost;       /* the ring buffer was full */
	__u64 events_suppressed; /* over the rule's event rate */
	__u64 flows_failed;      /* a connection could not be remembered */
};

/* Who opened a connection. The map is an LRU hash. */
struct egate_flow_key {
	struct egate_addr local;
	struct egate_addr remote;
	__u16 local_port; /* ICMP echo: the identifier */
	__u16 remote_port;
	__u8 proto;
	__u8 pad[3];
};

struct egate_flow {
	__u64 seen_ns; /* of the last packet, about a second exact */
	__u8 opener;   /* enum egate_direction of the packet that opened it */
	__u8 pad[7];
};

/* A name's entry in the policy, by the hash of the name. */
struct egate_domain {
	__u16 exact;    /* class of the name itself */
	__u16 below;    /* class of the names below it that have no longer entry */
	__u8 ask_exact; /* 1: an allow rule lists it, it may be asked for */
	__u8 ask_below;
	__u8 pad[2];
};

/*
 * One of the names of an address, or the name of a connection. Its class holds
 * in the policy of that generation; another one looks the name up again.
 */
struct egate_name_slot {
	__u64 name;     /* hash, key of map names; 0: free */
	__u64 class_of; /* generation << 32 | class */
	__u64 expires_ns;
};

/*
 * The names that an address was learned under. The map is an LRU hash by
 * address. An LRU map gives a value's memory to another key at any time, so the
 * address stands in the value too: who has read or written it looks whether it
 * still is that of the key.
 */
struct egate_learned {
	struct egate_addr addr;
	__u32 lock; /* 1: a program writes; Go never takes it */
	__u32 pad;
	struct egate_name_slot slots[EGATE_NAME_SLOTS];
};

/* A name in lower case, as DNS writes it without compression, up to the root's empty label. The map is an LRU hash by its hash. */
struct egate_name {
	__u64 seen_ns;    /* when it was last learned or verified */
	__u64 vouched_ns; /* until then an answer that can't be read passes: the daemon has read it */
	__u8 length;      /* with the root's label */
	__u8 pad[7];
	__u8 wire[EGATE_NAME_BYTES];
};

/* A question that left. The map is an LRU hash. */
struct egate_question_key {
	struct egate_addr local;
	struct egate_addr server;
	__u16 port; /* the local one */
	__u16 id;
	__u8 proto;
	__u8 pad[3];
};

struct egate_question {
	__u64 name; /* hash */
	__u64 asked_ns;
	__u32 ifindex; /* of the interface it left by: the answer comes in there */
	__u16 type;
	__u8 pad[2];
};

enum egate_binding_state {
	EGATE_BOUND,    /* the connection goes by its name */
	EGATE_PENDING,  /* its request was not seen yet */
	EGATE_VERIFIED, /* its request has this name */
};

/* The name that a connection goes by. The map is an LRU hash by egate_flow_key. */
struct egate_binding {
	struct egate_name_slot slot; /* expires_ns is not used */
	__u64 seen_ns;
	__u8 state; /* enum egate_binding_state */
	__u8 pad[7];
};

/* How far one direction of a TCP connection was read. The map is an LRU hash by egate_flow_key, whose pad[0] is the direction. */
struct egate_stream {
	__u32 next;  /* sequence number of the byte behind the last one read */
	__u32 bytes; /* of an unfinished message, in map stream_rooms */
};

/* Per CPU: what became of DNS and of names. */
struct egate_name_totals {
	__u64 outcome[EGATE_DNS_OUTCOMES];
	__u64 addresses_new;       /* learned */
	__u64 addresses_prolonged; /* learned again */
	__u64 addresses_special;   /* loopback, link-local, multicast: never opened by a name */
	__u64 names_new;
	__u64 names_displaced; /* an address had too many names, and lost one */
	__u64 names_forgotten; /* a name's text was gone when a new policy wanted to see it */
	__u64 bindings_new;    /* connections that go by a name */
	__u64 failed;          /* the kernel refused to remember something */
	__u64 unread_sent;     /* to the daemon */
	__u64 unread_lost;
};

/* What the kernel could not read, for the daemon. */
struct egate_unread {
	__u64 time_ns;
	__u64 name; /* hash */
	struct egate_addr server;
	__u16 type;
	__u8 outcome; /* enum egate_dns_outcome */
	__u8 length;
	__u8 pad[4];
	__u8 wire[EGATE_NAME_BYTES];
};

/* The verdict that the later fragments of a datagram follow. */
struct egate_fragment_key {
	struct egate_addr src;
	struct egate_addr dst;
	__u32 id;
	__u8 direction;
	__u8 family;
	__u8 pad[2];
};

struct egate_fragment_verdict {
	__u64 seen_ns;
	__u32 generation; /* of the policy that decided: rule has a meaning only in it */
	__u32 rule;
	__u8 action;
	__u8 pad[7];
};

/* One decision, as it goes through the ring buffer. */
struct egate_event {
	__u64 time_ns;
	struct egate_addr src;
	struct egate_addr dst;
	__u32 ifindex;
	__u32 generation;
	__u32 rule; /* index in its direction, or EGATE_NO_RULE */
	__u32 length;
	__u16 segments;
	__u16 ether_type;
	__u16 selector; /* destination port; ICMP: type << 8 | code */
	__u16 source_port;
	__u8 direction;
	__u8 action;
	__u8 reason;
	__u8 audit;
	__u8 have; /* enum egate_have */
	__u8 family;
	__u8 proto;
	__u8 tcp_flags;
	__u8 fragment;
	__u8 is_ip;
	__u8 name_length; /* of wire, which stands behind the event if it is not 0 */
	__u8 pad[5];
	__u64 name; /* hash of the name that the packet goes by, 0: none */
};

/* An event about a name that map names need not have. */
struct egate_named_event {
	struct egate_event event;
	__u8 wire[EGATE_NAME_BYTES];
};
_Static_assert(sizeof(struct egate_event) == 88, "egate_event has no hidden padding");
_Static_assert(sizeof(struct egate_flow_key) == 40, "egate_flow_key has no hidden padding");
_Static_assert(sizeof(struct egate_fragment_key) == 40, "egate_fragment_key has no hidden padding");

#endif
