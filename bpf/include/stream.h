/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The beginning of a TCP connection's bytes, or its next DNS message, in one
 * piece: what came in several segments is put together here. A segment that is
 * not the next one is not read; whoever drops it will see it again, since TCP
 * sends again what is lost.
 */
#ifndef EGATE_STREAM_H
#define EGATE_STREAM_H

#include "flow.h"
#include "maps.h"
#include "parse.h"

#define CHUNK_BYTES 256

enum stream_read {
	STREAM_READ,    /* the room holds what there is */
	STREAM_OLD,     /* nothing in the segment is new */
	STREAM_GAP,     /* something is missing before it */
	STREAM_UNKNOWN, /* the connection's beginning was not seen */
};

/* Bytes of TCP payload, and where they begin. */
static __always_inline __u32 payload_bytes(const struct packet *p, __u32 *offset)
{
	*offset = p->l4 + p->tcp_header_words * 4;
	return p->ip_end > *offset ? p->ip_end - *offset : 0;
}

static __always_inline int tcp_sequence(struct __sk_buff *skb, const struct packet *p,
					__u32 *sequence)
{
	__be32 sequence_be;

	if (copy(skb, p->l4 + 4, &sequence_be, sizeof(sequence_be)))
		return -1;
	*sequence = bpf_ntohl(sequence_be);
	return 0;
}

/* A connection's key in the maps of streams. */
static __always_inline void stream_key(struct work *w, __u32 direction)
{
	w->flow.pad[0] = direction;
}

/* The next byte in this direction will have this sequence number. */
static __always_inline void begin_stream(struct work *w, __u32 direction, __u32 next)
{
	struct egate_name_totals *t = at(&name_totals, 0);
	struct egate_stream s = { .next = next };

	stream_key(w, direction);
	if (bpf_map_update_elem(&streams, &w->flow, &s, BPF_ANY) && t)
		t->failed++;
	stream_key(w, 0);
}

static __always_inline void end_stream(struct work *w, __u32 direction)
{
	stream_key(w, direction);
	bpf_map_delete_elem(&streams, &w->flow);
	bpf_map_delete_elem(&stream_rooms, &w->flow);
	stream_key(w, 0);
}

struct copying {
	struct __sk_buff *skb;
	__u32 from;  /* offset in the skb */
	__u32 to;    /* in the room */
	__u32 bytes; /* in all */
	int failed;
};

static long copy_chunk(__u32 n, void *context)
{
	struct copying *c = context;
	struct room *r = at(&room, 0);
	__u32 done = n * CHUNK_BYTES, left, to;

	if (!r || done >= c->bytes)
		return 1;
	left = c->bytes - done;
	if (left > CHUNK_BYTES)
		left = CHUNK_BYTES;
	to = c->to + done;
	if (to >= EGATE_ROOM_BYTES)
		return 1;
	asm volatile("%0 &= 0x3fff" : "+r"(to));
	/* in a form that shows the verifier of 6.1 that it is not 0 */
	left = 1 + ((left - 1) & (CHUNK_BYTES - 1));
	if (bpf_skb_load_bytes(c->skb, c->from + done, r->bytes + to, left)) {
		c->failed = 1;
		return 1;
	}
	return 0;
}

/* Copies bytes of the skb behind what the room holds. 0, or -1 where the skb is shorter. */
static __always_inline int append(struct __sk_buff *skb, struct room *r, __u32 from, __u32 bytes)
{
	struct copying c = { .skb = skb, .from = from, .to = r->length, .bytes = bytes };

	if (!bytes)
		return 0;
	bpf_loop(EGATE_ROOM_BYTES / CHUNK_BYTES + 1, copy_chunk, &c, 0);
	if (c.failed)
		return -1;
	r->length += bytes;
	return 0;
}

struct restoring {
	struct egate_stream_room *from;
};

static long restore_chunk(__u32 n, void *context)
{
	struct restoring *c = context;
	struct room *r = at(&room, 0);
	struct egate_stream_room *from = c->from;
	__u32 at_byte = n * CHUNK_BYTES;

	if (!r || !from)
		return 1;
	asm volatile("%0 &= 0x3f00" : "+r"(at_byte));
	__builtin_memcpy(r->bytes + at_byte, from->bytes + at_byte, CHUNK_BYTES);
	return 0;
}

/*
 * Reads a segment with payload of the connection in w->flow into the room,
 * behind what came before it. Returns enum stream_read, or -1.
 */
__noinline int read_stream(struct __sk_buff *skb, __u32 direction)
{
	struct work *w = at(&work, 0);
	struct room *r = at(&room, 0);
	__u32 offset, bytes, sequence, skip, next, waiting;
	struct restoring restoring = {};
	struct egate_stream *s;

	if (!config.names.in_use)
		return -1;
	if (!w || !r)
		return -1;
	bytes = payload_bytes(&w->packet, &offset);
	if (tcp_sequence(skb, &w->packet, &sequence))
		return -1;
	stream_key(w, direction);
	s = bpf_map_lookup_elem(&streams, &w->flow);
	if (!s) {
		stream_key(w, 0);
		return STREAM_UNKNOWN;
	}
	next = s->next;
	waiting = s->bytes;
	/* as in binding_of() */
	if (bpf_map_lookup_elem(&streams, &w->flow) != s || waiting > EGATE_ROOM_BYTES) {
		stream_key(w, 0);
		return STREAM_UNKNOWN;
	}
	skip = next - sequence;
	if ((__s32)skip < 0) {
		stream_key(w, 0);
		return STREAM_GAP;
	}
	if (skip >= bytes) {
		stream_key(w, 0);
		return STREAM_OLD;
	}
	r->length = 0;
	r->stream_first = next - waiting;
	if (waiting) {
		restoring.from = bpf_map_lookup_elem(&stream_rooms, &w->flow);
		if (!restoring.from) {
			stream_key(w, 0);
			return STREAM_UNKNOWN; /* too many at once */
		}
		bpf_loop((waiting + CHUNK_BYTES - 1) / CHUNK_BYTES, restore_chunk, &restoring, 0);
		/* what was read is the connection's only if the map did not give the value to another meanwhile */
		if (bpf_map_lookup_elem(&stream_rooms, &w->flow) != restoring.from) {
			stream_key(w, 0);
			return STREAM_UNKNOWN;
		}
		r->length = waiting;
	}
	stream_key(w, 0);
	bytes -= skip;
	r->stream_next = next + bytes;
	if (bytes > EGATE_ROOM_BYTES - r->length)
		bytes = EGATE_ROOM_BYTES - r->length;
	return append(skb, r, offset + skip, bytes) ? -1 : STREAM_READ;
}

static long shift_chunk(__u32 n, void *context)
{
	struct room *r = at(&room, 0);
	__u32 keep, to = n * CHUNK_BYTES;

	if (!r)
		return 1;
	keep = r->keep;
	if (to >= r->length || to + keep >= EGATE_ROOM_BYTES)
		return 1;
	for (int i = 0; i < CHUNK_BYTES / 8; i++) {
		__u32 source = to + keep, target = to;

		asm volatile("%0 &= 0x3fff" : "+r"(source));
		asm volatile("%0 &= 0x3fff" : "+r"(target));
		*(volatile __u64 *)(r->bytes + target + i * 8) =
			*(volatile __u64 *)(r->bytes + source + i * 8);
	}
	return 0;
}

/*
 * Ends the reading of a segment: all before the room's byte keep is done with,
 * and what is behind it waits for more. 0, or -1 where it cannot wait.
 */
__noinline int leave_stream(struct __sk_buff *skb, __u32 direction, __u32 keep)
{
	struct work *w = at(&work, 0);
	struct room *r = at(&room, 0);
	struct egate_stream s = {};
	int failed = 0;

	if (!config.names.in_use)
		return -1;
	asm volatile("" : "+r"(skb)); /* or clang leaves the context out, which 6.1 wants */
	if (!w || !r || keep > r->length)
		return -1;
	stream_key(w, direction);
	s.next = r->stream_next;
	s.bytes = r->length - keep;
	if (keep && s.bytes) {
		r->keep = keep;
		bpf_loop(EGATE_ROOM_BYTES / CHUNK_BYTES, shift_chunk, 0, 0);
	}
	if (s.bytes)
		failed = bpf_map_update_elem(&stream_rooms, &w->flow, r->bytes, BPF_ANY);
	else
		bpf_map_delete_elem(&stream_rooms, &w->flow);
	if (!failed)
		failed = bpf_map_update_elem(&streams, &w->flow, &s, BPF_ANY);
	stream_key(w, 0);
	return failed ? -1 : 0;
}

#endif
