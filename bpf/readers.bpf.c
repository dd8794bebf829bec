// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The readers of dns.h and request.h by themselves, for their tests; no part of
 * a policy. Run by BPF_PROG_TEST_RUN, attached to nothing.
 */
#include "include/abi.h"
#include "include/maps.h"
#include "include/dns.h"
#include "include/request.h"
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

/* --- dns.h --- */

#define FRAME_HEADER_BYTES 34 /* Ethernet and IPv4, without which the kernel runs nothing */
#define MAX_LEARNED 4096

struct learned_address {
	__u64 hi;
	__u64 lo;
	__u32 ttl_s;
	__u32 pad;
};

/* What the DNS reader makes of a message. */
struct dns_reading {
	__s32 question; /* what read_question returned */
	__s32 answers;  /* what read_answers returned */
	__u16 asked_type;
	__u16 name_bytes;
	__u16 longest;
	__u8 labels;
	__u8 pad;
	__u64 hash;
	__u8 starts[128];
	__u8 wire[EGATE_NAME_BYTES];
	__u32 learned_count;
	__u32 pad2;
	struct learned_address learned[MAX_LEARNED];
};
ARRAY_MAP(BPF_MAP_TYPE_ARRAY, dns_reading, struct dns_reading);

/* Messages that no test frame holds: those are of one page at most. */
struct long_message {
	__u8 bytes[EGATE_ROOM_BYTES];
};
ARRAY_MAP(BPF_MAP_TYPE_ARRAY, long_message, struct long_message);

__noinline int learn(__u64 hi, __u64 lo, __u32 ttl_s)
{
	struct dns_reading *reading = at(&dns_reading, 0);
	__u32 n;

	if (!reading)
		return -1;
	n = reading->learned_count++;
	if (n >= MAX_LEARNED)
		return -1;
	reading->learned[n].hi = hi;
	reading->learned[n].lo = lo;
	reading->learned[n].ttl_s = ttl_s;
	return 1;
}

/*
 * Puts into the room, behind cb[0] bytes that belong to no message, what follows
 * the frame's headers, or if cb[1] is not 0 as many bytes of long_message. 0, or
 * -1, also for no bytes.
 */
static __always_inline int fill_room(struct __sk_buff *skb, struct room *r)
{
	__u32 base = skb->cb[0], bytes = skb->cb[1];

	if (base > 255)
		return -1;
	asm volatile("%0 &= 0xff" : "+r"(base));
	if (bytes) {
		struct long_message *m = at(&long_message, 0);

		if (!m || bytes > EGATE_ROOM_BYTES - base)
			return -1;
		bytes--;
		asm volatile("%0 &= 0x3fff" : "+r"(bytes));
		bytes++;
		bpf_probe_read_kernel(r->bytes + base, bytes, m->bytes);
	} else {
		/* less one: that it is not 0 the verifier believes only so */
		bytes = skb->len - FRAME_HEADER_BYTES - 1;
		if (bytes >= 4096)
			return -1;
		asm volatile("%0 &= 0xfff" : "+r"(bytes));
		bytes++;
		if (bpf_skb_load_bytes(skb, FRAME_HEADER_BYTES, r->bytes + base, bytes))
			return -1;
	}
	r->base = base;
	r->length = r->end = base + bytes;
	return 0;
}

static __always_inline void note_name(struct dns_reading *reading, const struct name *name)
{
	reading->labels = name->labels;
	reading->name_bytes = name->bytes;
	reading->longest = name->longest;
	reading->hash = name->hash;
	__builtin_memcpy(reading->starts, name->starts, sizeof(reading->starts));
	__builtin_memcpy(reading->wire, name->wire, sizeof(reading->wire));
}

SEC("tc")
int egate_read_dns(struct __sk_buff *skb)
{
	struct room *r = at(&room, 0);
	struct dns_reading *reading = at(&dns_reading, 0);

	if (!r || !reading || fill_room(skb, r))
		return -1;
	reading->learned_count = 0;
	reading->question = read_question();
	if (reading->question < 0)
		return 0;
	hash_name(0);
	reading->asked_type = r->asked_type;
	note_name(reading, &r->name);
	r->asked = r->name.hash;
	reading->answers = read_answers(reading->question);
	return 0;
}

/* Reads the message, without its last byte, as a name with dots. */
SEC("tc")
int egate_read_dotted(struct __sk_buff *skb)
{
	struct room *r = at(&room, 0);
	struct dns_reading *reading = at(&dns_reading, 0);

	if (!r || !reading || fill_room(skb, r))
		return -1;
	reading->learned_count = 0;
	reading->question = read_dotted(r->base, r->length - r->base - 1);
	if (reading->question < 0)
		return 0;
	hash_name(0);
	note_name(reading, &r->name);
	return 0;
}

/* --- request.h --- */

/* The name that egate_read_request found; Go cannot tell which CPU's room has it. */
ARRAY_MAP(BPF_MAP_TYPE_ARRAY, requested, struct name);

/*
 * Reads the first cb[0] bytes of the room, which Go has filled: a test frame
 * holds less than a room. Returns enum request, and 256 if it met an
 * encrypted_client_hello.
 */
SEC("tc")
int egate_read_request(struct __sk_buff *skb)
{
	struct name *name = at(&requested, 0);
	struct room *r = at(&room, 0);
	int found;

	if (!r || !name)
		return -1;
	r->length = skb->cb[0];
	found = read_request();
	if (found == REQUEST_NAMED)
		__builtin_memcpy(name, &r->name, sizeof(*name));
	return found | request_has_ech(r) << 8;
}

char _license[] SEC("license") = "Dual BSD/GPL";
