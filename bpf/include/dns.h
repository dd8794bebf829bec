/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Reads DNS messages (RFC 1035) that lie in the room, between base and end: the
 * question, and in an answer the addresses that the asked name leads to.
 *
 * It refuses what no encoder writes, even where other readers are lenient: a
 * message that is read in two ways could open an address here that its receiver
 * finds nowhere in it. What it does not need it does not read: authority and
 * additional records, EDNS among them, and the data of other record types.
 */
#ifndef EGATE_DNS_H
#define EGATE_DNS_H

#include "maps.h"
#include "names.h"
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

/*
 * Opens an address to the asked name for ttl_s seconds. 1: it is open, 0: it is
 * one that no name opens, -1: the kernel refused. In learn.h.
 */
__noinline int learn(__u64 hi, __u64 lo, __u32 ttl_s);

#define DNS_HEADER_BYTES 12
#define DNS_FLAGS 2     /* offset in the header */
#define DNS_QUESTIONS 4 /* of the number of questions */
#define DNS_ANSWERS 6   /* and of answers */
#define DNS_OPCODE 0x7800
#define DNS_QUESTION_BYTES 4 /* behind the name: type, class */
#define DNS_RECORD_BYTES 10  /* behind the owner: type, class, TTL, length */
#define DNS_MAX_POINTERS 126
#define DNS_LABEL_BYTES 63

#define DNS_CLASS_IN 1
#define DNS_TYPE_A 1
#define DNS_TYPE_CNAME 5
#define DNS_TYPE_AAAA 28
#define DNS_TYPE_SVCB 64
#define DNS_TYPE_HTTPS 65

/* Keys of SvcParams, RFC 9460. */
#define SVC_IPV4HINT 4
#define SVC_IPV6HINT 6
#define SVC_INVALID 0xffff

/*
 * How far a message is read, in room->reader: in memory, where the verifier does
 * not follow values from round to round of a loop.
 */
struct dns_reader {
	__u64 name;  /* hash of the chain's present name, 0: not known yet */
	__u32 place; /* where it is written; if that is a pointer, where this leads */
	__u32 ttl_s; /* the shortest of the chain so far */
	__u32 next;  /* offset of the next record */
	__u32 left;  /* records in the answer section from there on */
	__u32 learned;
	__u32 state; /* enum dns_state */

	/* the SVCB record that is being read */
	__u32 param;      /* offset of its next parameter */
	__u32 params_end; /* and behind the last */
	__u32 key;        /* 1 + that of the parameter before, 0: none */
	__u32 service;    /* it is in ServiceMode: its hints count */
	__u32 hint4;      /* offset of the next address in ipv4hint */
	__u32 hint4_end;
	__u32 hint6;
	__u32 hint6_end;
	__u32 hint_ttl_s;

	/* the name that is being read */
	__u32 name_next;         /* offset of what is read next */
	__u32 label_left;        /* bytes of the present label from there on; 0: a new one begins */
	__u32 run;               /* offset where the present run of labels begins */
	__u32 name_end;          /* all of the run must lie before */
	__u32 pointers;          /* that were followed */
	__u32 first_pointer_end; /* offset behind the first, 0: there was none */
	__u32 behind;            /* offset behind the name, 0: it is not read to its end */
};
_Static_assert(sizeof(struct dns_reader) <= sizeof(((struct room *)0)->reader), "dns_reader fits");

enum dns_state {
	DNS_READING,
	DNS_READ,
	DNS_MALFORMED,
};

static __always_inline struct dns_reader *dns_reader(struct room *r)
{
	return (struct dns_reader *)r->reader;
}

/*
 * What the room holds at an offset below EGATE_ROOM_BYTES; what lies behind its
 * last byte belongs to no message. The mask stands right before the addition:
 * the verifier of Linux 6.1 forgets bounds of what the compiler puts aside.
 */
#define ROOM_AT(r, offset, type)                                                                   \
	({                                                                                         \
		__u32 room_offset = (offset);                                                      \
		asm volatile("%0 &= 0x3fff" : "+r"(room_offset));                                  \
		*(type *)((r)->bytes + room_offset);                                               \
	})
_Static_assert(EGATE_ROOM_BYTES == 0x4000, "ROOM_AT masks offsets");

static __always_inline __u16 room_u16(struct room *r, __u32 offset)
{
	return bpf_ntohs(ROOM_AT(r, offset, __be16));
}

static __always_inline __u64 room_u64(struct room *r, __u32 offset)
{
	return bpf_be64_to_cpu(ROOM_AT(r, offset, __be64));
}

/* Lower case of 8 characters at once. The length of a label, below 64, is no letter. */
static __always_inline __u64 lower(__u64 x)
{
	const __u64 ones = 0x0101010101010101ULL;
	__u64 low7 = x & 0x7f * ones;
	__u64 from_a = low7 + (0x80 - 'A') * ones;       /* bit 7: at least 'A' */
	__u64 behind_z = low7 + (0x80 - 'Z' - 1) * ones; /* bit 7: above 'Z' */

	return x | ((from_a & ~behind_z & ~x & 0x80 * ones) >> 2);
}

/* Takes the next pointer, label or word of a label. 1: that was the last of the name, or it is malformed. */
static __always_inline int name_step(struct room *r, struct dns_reader *d)
{
	__u32 offset = d->name_next, rest = d->label_left, to = r->name.bytes;

	if (!rest) {
		__u32 length;

		if (offset >= d->name_end)
			return 1;
		length = ROOM_AT(r, offset, __u8);
		if (length > DNS_LABEL_BYTES) {
			__u32 target = r->base + (room_u16(r, offset) & 0x3fff);

			if (length < 0xc0 || offset + 2 > d->name_end ||
			    target < r->base + DNS_HEADER_BYTES || d->pointers >= DNS_MAX_POINTERS)
				return 1;
			d->pointers++;
			if (!d->first_pointer_end)
				d->first_pointer_end = offset + 2;
			/* which refuses a target that is not before the run, too */
			d->name_end = d->run;
			d->run = d->name_next = target;
			return 0;
		}
		if (!length) {
			asm volatile("%0 &= 0xff" : "+r"(to));
			r->name.wire[to] = 0;
			r->name.bytes = to + 1;
			d->behind = d->first_pointer_end ? d->first_pointer_end : offset + 1;
			return 1;
		}
		/* with the root's label */
		if (offset + 1 + length > d->name_end || to + 1 + length + 1 > 255)
			return 1;
		r->name.starts[r->name.labels & 127] = to;
		r->name.labels++;
		if (length > r->name.longest)
			r->name.longest = length;
		rest = 1 + length;
	}
	asm volatile("%0 &= 0xff" : "+r"(to));
	*(__u64 *)(r->name.wire + to) = lower(ROOM_AT(r, offset, __u64));
	if (rest > 8) {
		d->label_left = rest - 8;
		d->name_next = offset + 8;
		r->name.bytes = to + 8;
	} else {
		d->label_left = 0;
		d->name_next = offset + rest;
		r->name.bytes = to + rest;
	}
	return 0;
}

#define DNS_NAME_STEPS 8 /* of a round */

static long name_steps(__u32 round, void *context)
{
	struct room *r = at(&room, 0);

	if (!r)
		return 1;
	for (int i = 0; i < DNS_NAME_STEPS; i++)
		if (name_step(r, dns_reader(r)))
			return 1;
	return 0;
}

/*
 * Reads the name at offset into room->name, in lower case and without
 * compression; does not hash it. A pointer must lead to before the run of labels
 * that it ends, and the labels it leads to must end before that run: no name
 * can lead into itself. -1: malformed; else the offset behind the name.
 */
__noinline int read_name(__u32 offset)
{
	struct room *r = at(&room, 0);
	struct dns_reader *d;

	if (!config.names.in_use || !r)
		return -1;
	d = dns_reader(r);
	d->run = d->name_next = offset;
	d->name_end = r->end;
	d->label_left = d->pointers = d->first_pointer_end = d->behind = 0;
	r->name.labels = r->name.bytes = r->name.longest = 0;
	/* 254 bytes have no more words than labels of one byte would */
	bpf_loop((EGATE_NAME_LABELS + DNS_MAX_POINTERS) / DNS_NAME_STEPS + 1, name_steps, 0, 0);
	return d->behind ? d->behind : -1;
}

/* A name written with dots. In room->hashing, since room->reader is that of who reads the message around it. */
struct dotted {
	__u32 offset;
	__u32 bytes;   /* without a dot at its end */
	__u32 is_name; /* it was read to its end */
};
_Static_assert(sizeof(struct dotted) <= sizeof(((struct room *)0)->hashing), "dotted fits");

/* Takes character i; behind the last, the end. 1: that was the end, or it is no name. */
static __always_inline int dotted_step(struct room *r, struct dotted *n, __u32 i)
{
	__u8 c = ROOM_AT(r, n->offset + i, __u8);
	__u32 start = r->name.bytes, length; /* of the present label, in wire */

	asm volatile("%0 &= 0xff" : "+r"(i));
	if (i == n->bytes || c == '.') {
		length = i - start;
		if (!length || length > DNS_LABEL_BYTES)
			return 1;
		asm volatile("%0 &= 0xff" : "+r"(start));
		r->name.wire[start] = length;
		r->name.starts[r->name.labels & 127] = start;
		r->name.labels++;
		if (length > r->name.longest)
			r->name.longest = length;
		r->name.bytes = i + 1;
		if (i < n->bytes)
			return 0;
		r->name.wire[i + 1] = 0;
		r->name.bytes = i + 2;
		n->is_name = 1;
		return 1;
	}
	if (c <= ' ' || c >= 0x7f)
		return 1;
	if (c >= 'A' && c <= 'Z')
		c |= 0x20;
	/* the first label's length stands before it, and the others' on the places of the dots */
	r->name.wire[i + 1] = c;
	return 0;
}

#define DOTTED_STEPS 16 /* of a round */

static long dotted_steps(__u32 round, void *context)
{
	struct room *r = at(&room, 0);

	if (!r)
		return 1;
	for (int i = 0; i < DOTTED_STEPS; i++)
		if (dotted_step(r, (struct dotted *)r->hashing, round * DOTTED_STEPS + i))
			return 1;
	return 0;
}

/*
 * Reads a name written with dots, as TLS and HTTP have it, into room->name as
 * read_name does; leaves room->reader alone. The name may end with a dot. 0, or
 * -1: an empty label, one too long, a name too long, white space or what is not
 * ASCII.
 */
__noinline int read_dotted(__u32 offset, __u32 bytes)
{
	struct room *r = at(&room, 0);
	struct dotted *n;

	if (!config.names.in_use || !r || !bytes || bytes > EGATE_ROOM_BYTES ||
	    offset > EGATE_ROOM_BYTES - bytes)
		return -1;
	if (ROOM_AT(r, offset + bytes - 1, __u8) == '.')
		bytes--;
	/* with the first label's length and the root's */
	if (!bytes || bytes + 2 > 255)
		return -1;
	r->name.labels = r->name.bytes = r->name.longest = 0;
	n = (struct dotted *)r->hashing;
	n->offset = offset;
	n->bytes = bytes;
	n->is_name = 0;
	bpf_loop(256 / DOTTED_STEPS, dotted_steps, 0, 0);
	return n->is_name ? 0 : -1;
}

/*
 * Reads the question of a message of operation QUERY that has exactly one; a
 * response or not, with which code, is the caller's business. Sets asked_type,
 * and the name, not hashed. -1: malformed; else the offset behind the question.
 */
__noinline int read_question(void)
{
	struct room *r = at(&room, 0);
	__u32 base;
	int behind;

	if (!config.names.in_use || !r)
		return -1;
	base = r->base;
	/* behind half a header there is no name */
	if (room_u16(r, base + DNS_FLAGS) & DNS_OPCODE || room_u16(r, base + DNS_QUESTIONS) != 1)
		return -1;
	behind = read_name(base + DNS_HEADER_BYTES);
	if (behind < 0 || behind + DNS_QUESTION_BYTES > r->end)
		return -1;
	r->asked_type = room_u16(r, behind);
	return behind + DNS_QUESTION_BYTES;
}

static __always_inline int dns_malformed(struct dns_reader *d)
{
	d->state = DNS_MALFORMED;
	return 1;
}

/* Whether the name in room->name is the chain's present one; reads over it. */
static __always_inline int is_present_name(struct room *r, struct dns_reader *d)
{
	__u64 owner;

	hash_name(0);
	owner = r->name.hash;
	if (!d->name) {
		/* it was read before and is well-formed */
		read_name(d->place);
		hash_name(0);
		d->name = r->name.hash;
	}
	return owner == d->name;
}

static __always_inline void dns_learn(struct dns_reader *d, __u64 hi, __u64 lo, __u32 ttl_s)
{
	if (learn(hi, lo, ttl_s) == 1)
		d->learned++;
}

/* Opens the next address of an SVCB record's hints, if there is one. */
static __always_inline int learn_hint(struct room *r, struct dns_reader *d)
{
	__u32 offset = d->hint4;

	if (offset < d->hint4_end) {
		d->hint4 = offset + 4;
		dns_learn(d, 0, 0xffff00000000ULL | room_u64(r, offset) >> 32, d->hint_ttl_s);
		return 1;
	}
	offset = d->hint6;
	if (offset < d->hint6_end) {
		d->hint6 = offset + 16;
		dns_learn(d, room_u64(r, offset), room_u64(r, offset + 8), d->hint_ttl_s);
		return 1;
	}
	return 0;
}

/* Reads the next parameter of an SVCB record; the hints are learned when all are known to be well-formed. */
static __always_inline int read_param(struct room *r, struct dns_reader *d)
{
	__u32 offset = d->param, key, length;

	key = room_u16(r, offset);
	length = room_u16(r, offset + 2);
	offset += 4;
	/* half of a key and length ends behind the record, too */
	if (key < d->key || key == SVC_INVALID || offset + length > d->params_end)
		return dns_malformed(d);
	if (key == SVC_IPV4HINT) {
		if (!length || length % 4)
			return dns_malformed(d);
		d->hint4 = offset;
		d->hint4_end = d->service ? offset + length : 0;
	}
	if (key == SVC_IPV6HINT) {
		if (!length || length % 16)
			return dns_malformed(d);
		d->hint6 = offset;
		d->hint6_end = d->service ? offset + length : 0;
	}
	d->key = key + 1;
	d->param = offset + length;
	return 0;
}

/* Begins an SVCB record of the chain's present name; the steps that follow read its parameters. */
static __always_inline int begin_service(struct room *r, struct dns_reader *d, __u32 data,
					 __u32 ttl_s)
{
	int params = read_name(data + 2);

	if (params < 0 || params > d->next)
		return dns_malformed(d);
	d->service = room_u16(r, data) != 0;
	d->param = params;
	d->params_end = d->next;
	d->key = 0;
	d->hint_ttl_s = ttl_s;
	return 0;
}

/* Reads the next record. */
static __always_inline int read_record(struct room *r, struct dns_reader *d)
{
	__u32 offset = d->next, end = r->end, data, length, type, ttl_s;
	int compared = 0;
	__u64 fields;

	if (!d->left) {
		d->state = DNS_READ;
		return 1;
	}
	d->left--;

	if (offset + 2 <= end && room_u16(r, offset) == (0xc000 | (d->place - r->base))) {
		/* the owner as nearly all servers write it */
		offset += 2;
		compared = 1;
	} else {
		int behind = read_name(offset);

		if (behind < 0)
			return dns_malformed(d);
		offset = behind;
	}
	fields = room_u64(r, offset);
	length = room_u16(r, offset + 8);
	data = offset + DNS_RECORD_BYTES;
	/* half of these fields ends behind the message, too */
	if (data + length > end)
		return dns_malformed(d);
	d->next = data + length;
	type = fields >> 48;
	if ((fields >> 32 & 0xffff) != DNS_CLASS_IN)
		return 0;
	switch (type) {
	case DNS_TYPE_A:
		if (length != 4)
			return dns_malformed(d);
		break;
	case DNS_TYPE_AAAA:
		if (length != 16)
			return dns_malformed(d);
		break;
	case DNS_TYPE_CNAME:
		break;
	case DNS_TYPE_SVCB:
	case DNS_TYPE_HTTPS:
		if (r->asked_type != DNS_TYPE_SVCB && r->asked_type != DNS_TYPE_HTTPS)
			return 0;
		break;
	default:
		return 0;
	}
	if (!compared && !is_present_name(r, d))
		return 0;

	ttl_s = fields;
	if (ttl_s >> 31)
		ttl_s = 0; /* RFC 2181, 8 */
	if (ttl_s > d->ttl_s)
		ttl_s = d->ttl_s;
	switch (type) {
	case DNS_TYPE_A:
		dns_learn(d, 0, 0xffff00000000ULL | room_u64(r, data) >> 32, ttl_s);
		return 0;
	case DNS_TYPE_AAAA:
		dns_learn(d, room_u64(r, data), room_u64(r, data + 8), ttl_s);
		return 0;
	case DNS_TYPE_CNAME:
		if (read_name(data) != d->next)
			return dns_malformed(d);
		d->ttl_s = ttl_s;
		d->name = 0;
		/* those who point to the name point past a pointer at its beginning */
		if (ROOM_AT(r, data, __u8) >= 0xc0)
			d->place = r->base + (room_u16(r, data) & 0x3fff);
		else
			d->place = data;
		return 0;
	}
	return begin_service(r, d, data, ttl_s);
}

/* A record, a parameter of one, or a hint. 1: the answers are read, or malformed. */
static __always_inline int read_step(struct room *r, struct dns_reader *d)
{
	if (d->param < d->params_end)
		return read_param(r, d);
	if (learn_hint(r, d))
		return 0;
	return read_record(r, d);
}

static long read_steps(__u32 round, void *context)
{
	struct room *r = at(&room, 0);

	if (!r)
		return 1;
	return read_step(r, dns_reader(r));
}

/*
 * Walks the answers from offset on, that behind the question which was read
 * last: a chain that begins with the asked name, whose hash the caller has put
 * into room->asked, and that each CNAME of its present name leads on; learns the
 * addresses of the names on it. None lives longer than the chain up to it. The
 * number of addresses that were learned, or -1: malformed, and what stood before
 * it was learned.
 */
__noinline int read_answers(__u32 offset)
{
	struct room *r = at(&room, 0);
	struct dns_reader *d;

	if (!config.names.in_use || !r)
		return -1;
	d = dns_reader(r);
	d->state = DNS_READING;
	d->left = room_u16(r, r->base + DNS_ANSWERS);
	d->next = offset;
	d->ttl_s = 0x7fffffff;
	d->place = r->base + DNS_HEADER_BYTES;
	d->name = r->asked;
	d->learned = 0;
	d->param = d->params_end = d->hint4_end = d->hint6_end = 0;
	/* each step takes 4 bytes or more, but the last */
	bpf_loop(EGATE_ROOM_BYTES / 4 + 1, read_steps, 0, 0);
	return d->state == DNS_READ ? d->learned : -1;
}

#endif
