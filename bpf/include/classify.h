/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * From a packet to the rules it meets: a class in each dimension, the classes'
 * rule vectors ANDed, the first deciding bit. The tables and the source of the
 * scheme are described in internal/tables; lookup.go there takes the same steps.
 *
 * Every look-up that the verifier makes us check can only fail if Go filled
 * the maps wrongly; such a packet then meets no rule and gets the default.
 */
#ifndef EGATE_CLASSIFY_H
#define EGATE_CLASSIFY_H

#include "maps.h"
#include "parse.h"

/* Hides from the compiler where a value comes from: it would make branches, which are mispredicted, of the arithmetic. */
#define OPAQUE(x) asm volatile("" : "+r"(x))

static __always_inline __u32 line_of(const volatile struct egate_index *x, __u32 word)
{
	__u32 n = word >> (x->shift & 31);

	if (n <= x->low)
		return x->base;
	n -= x->low;
	return x->base + (n < x->last ? n : x->last);
}

/* The 64 bits of an address from a bit on, below 128; what lies behind the last is 0. */
static __always_inline __u64 window_of(const struct egate_addr *a, __u32 at)
{
	if (at & 64)
		return a->lo << (at & 63);
	return a->hi << (at & 63) | (a->lo >> 1) >> (~at & 63);
}

/* The value of a word: that behind the last start which is not above it. */
static __always_inline __u32 step_of(const struct egate_line *l, __u32 word)
{
	__u64 n = 0;

#pragma unroll
	for (int i = 0; i < 7; i++) {
		__u64 less = (__u64)l->starts[i] - word - 1;

		OPAQUE(less);
		n += less >> 63;
	}
	OPAQUE(n);
	return l->values[n & 7];
}

/*
 * The class of 15 bits in a short line. Four starts of 15 bits are compared in
 * one subtraction, the top bit of each 16 keeping it from its neighbour
 * (Lamport, Multiple Byte Processing with Full-Word Instructions, 1975).
 */
static __always_inline __u32 short_of(const struct egate_line *l, __u64 bits)
{
	const __u64 ones = 0x0001000100010001ULL;
	const __u64 *starts = (const __u64 *)l;
	__u64 above = 0;
	__u64 behind = (bits + 1) * ones;

#pragma unroll
	for (int i = 0; i < 4; i++) {
		__u64 each = ((starts[i] | ones << 15) - behind) >> 15 & ones;

		/* kind and at are no start */
		above += i ? each : each & ~1ULL;
	}
	above = 15 - (above * ones >> 48);
	OPAQUE(above);
	return l->classes[above & 15];
}

static __always_inline __u32 wide_of(const struct egate_line *l, __u64 bits)
{
	__u64 n = 4;

#pragma unroll
	for (int i = 0; i < 4; i++) {
		__u64 start = l->wide_starts[i];
		/* the borrow of bits - start (Warren, Hacker's Delight, 2-12) */
		__u64 less = (~bits & start) | ((~bits | start) & (bits - start));

		OPAQUE(less);
		n -= less >> 63;
	}
	OPAQUE(n);
	n &= 7; /* 4 at most; the verifier knows 7 */
	return *(l->wide_values + n);
}

/*
 * The class of an address from the line at position on. A global function: the
 * verifier follows it once by itself, and the common case, a class in the first
 * line or the first below an index, goes without it.
 */
__noinline __u32 class_below(__u32 first, __u32 position, __u32 source)
{
	struct work *w = at(&work, 0);
	const struct egate_addr *a;
	__u64 window;
	__u32 value;

	if (!w)
		return 0;
	a = source ? &w->packet.src : &w->packet.dst;
	for (int depth = 0; depth < EGATE_MAX_DEPTH; depth++) {
		struct egate_line *l = at(&lines, first + position);

		if (!l)
			return 0;
		window = window_of(a, l->at);
		OPAQUE(window);
		if (l->kind == EGATE_LINE_INDEX) {
			position = line_of(&l->index, window >> 32);
			continue;
		}
		if (l->kind == EGATE_LINE_SHORT)
			return short_of(l, window >> 49);
		value = l->kind == EGATE_LINE_WIDE ? wide_of(l, window) : step_of(l, window >> 32);
		if (!(value & EGATE_NEXT))
			return value;
		position = value & ~EGATE_NEXT;
	}
	return 0;
}

static __always_inline __u32 address_class(const volatile struct egate_addr_table *t,
					   const struct egate_addr *a, __u32 source)
{
	__u32 value, position;
	struct egate_line *l;
	__u64 window;

	position = is_v4(a) ? line_of(&t->root4, a->lo) : line_of(&t->root6, a->hi >> 32);
	l = at(&lines, t->lines + position);
	if (!l)
		return 0;
	window = window_of(a, l->at);
	OPAQUE(window);
	if (l->kind == EGATE_LINE_INDEX) {
		position = line_of(&l->index, window >> 32);
		l = at(&lines, t->lines + position);
		if (!l)
			return 0;
		window = window_of(a, l->at);
		OPAQUE(window);
	}
	if (l->kind == EGATE_LINE_SHORT)
		return short_of(l, window >> 49);
	if (l->kind == EGATE_LINE_STEPS) {
		value = step_of(l, window >> 32);
		if (!(value & EGATE_NEXT))
			return value;
		position = value & ~EGATE_NEXT;
	}
	return class_below(t->lines, position, source);
}

static __always_inline __u32 quad(__u32 position)
{
	struct egate_quad *q = at(&pages, position / 4);

	return q ? q->v[position & 3] : 0;
}

static __always_inline __u32 selector_class(const volatile struct egate_selector_table *t,
					    const struct packet *p, __u16 selector)
{
	struct egate_proto *e = at(&protos, t->protos + p->proto);

	if (!e)
		return 0;
	if (e->row == EGATE_NO_ROW || !(p->have & EGATE_HAVE_TRANSPORT))
		return e->class;

	__u32 page = quad(t->rows + e->row * 256 + (selector >> 8));

	return quad(t->pages + page * 256 + (selector & 255));
}

/* The number of bits set (Warren, Hacker's Delight, 5-1). */
static __always_inline __u32 population(__u64 x)
{
	x -= x >> 1 & 0x5555555555555555ULL;
	x = (x & 0x3333333333333333ULL) + (x >> 2 & 0x3333333333333333ULL);
	x = (x + (x >> 4)) & 0x0f0f0f0f0f0f0f0fULL;
	return x * 0x0101010101010101ULL >> 56;
}

/*
 * The vectors of the destination's names ORed: their words' summary, or one
 * word. Only for several names; one name's vector is read like any other.
 */
__noinline __u64 or_name_summaries(void)
{
	struct work *w = at(&work, 0);
	__u64 all = 0;

	if (!config.names.in_use)
		return 0;
	if (!w)
		return 0;
	for (__u32 i = 0; i < EGATE_NAME_SLOTS && i < w->name_count; i++) {
		__u64 *summary = at(&vectors, w->name_rows[i]);

		if (summary)
			all |= *summary;
	}
	return all;
}

__noinline __u64 or_name_words(__u32 word)
{
	struct work *w = at(&work, 0);
	__u64 all = 0;

	if (!config.names.in_use)
		return 0;
	if (!w)
		return 0;
	for (__u32 i = 0; i < EGATE_NAME_SLOTS && i < w->name_count; i++) {
		__u64 *summary = at(&vectors, w->name_rows[i]);
		__u64 *bits;

		if (!summary || !(*summary >> (word & 63) & 1))
			continue;
		bits = at(&vectors,
			  w->name_rows[i] + 1 + population(*summary & ((1ULL << (word & 63)) - 1)));
		if (bits)
			all |= *bits;
	}
	return all;
}

static __always_inline void classify(const volatile struct egate_chain *c, const struct packet *p,
				     __u32 *rows)
{
	__u32 class[EGATE_DIMENSIONS] = {};

	if (c->used[EGATE_DIM_DESTINATION] && p->have & EGATE_HAVE_DST)
		class[EGATE_DIM_DESTINATION] = address_class(&c->addr[0], &p->dst, 0);
	if (c->used[EGATE_DIM_SOURCE] && p->have & EGATE_HAVE_SRC)
		class[EGATE_DIM_SOURCE] = address_class(&c->addr[1], &p->src, 1);
	if (p->have & EGATE_HAVE_PROTO) {
		if (c->used[EGATE_DIM_SERVICE])
			class[EGATE_DIM_SERVICE] = selector_class(&c->sel[0], p, p->selector);
		if (c->used[EGATE_DIM_SOURCE_PORT])
			class[EGATE_DIM_SOURCE_PORT] =
				selector_class(&c->sel[1], p, p->source_port);
	}
#pragma unroll
	for (int d = 0; d < EGATE_DIM_NAME; d++)
		rows[d] = c->vectors[d] + class[d] * c->strides[d];
}

static __always_inline __u64 first_bits(__u32 n)
{
	return n >= 64 ? ~0ULL : (1ULL << n) - 1;
}

static __always_inline int uses_none(const volatile struct egate_chain *c)
{
	return !c->used[0] && !c->used[1] && !c->used[2] && !c->used[3] && !c->used[4];
}
_Static_assert(EGATE_DIMENSIONS == 5, "uses_none asks for each dimension");

/* Words in which the packet's rows may have a rule in common. */
static __always_inline __u64 and_summaries(const volatile struct egate_chain *c,
					   const struct work *w)
{
	const __u32 *rows = w->rows;
	__u64 left = ~0ULL;

	if (uses_none(c))
		return first_bits(c->words);
#pragma unroll
	for (int d = 0; d < EGATE_DIMENSIONS; d++) {
		__u64 *summary;

		if (!c->used[d])
			continue;
		if (d == EGATE_DIM_NAME && w->name_count > 1) {
			left &= or_name_summaries();
			continue;
		}
		summary = at(&vectors, rows[d]);
		if (!summary)
			return 0;
		left &= *summary;
	}
	return left;
}

/* Word i of the packet's vectors, ANDed over the dimensions in use; every one of them has it. */
static __always_inline __u64 and_words(const volatile struct egate_chain *c, const struct work *w,
				       __u32 i)
{
	const __u32 *rows = w->rows;
	__u64 left = ~0ULL;

	if (uses_none(c))
		return first_bits(c->rule_count - i * 64);
	if (c->words == 1)
		return and_summaries(c, w); /* which are the vectors */
#pragma unroll
	for (int d = 0; d < EGATE_DIMENSIONS; d++) {
		__u64 *word;

		if (!c->used[d])
			continue;
		if (d == EGATE_DIM_NAME && w->name_count > 1) {
			left &= or_name_words(i);
			continue;
		}
		word = at(&vectors, rows[d]);
		if (!word)
			return 0;
		word = at(&vectors, rows[d] + 1 + population(*word & ((1ULL << (i & 63)) - 1)));
		if (!word)
			return 0;
		left &= *word;
	}
	return left;
}

/*
 * Position of the lowest bit that is set in a word that is not 0, by de Bruijn
 * multiplication (Leiserson, Prokop and Randall, 1998): without a branch, so
 * that the verifier has one way to follow and not 64.
 */
#define DE_BRUIJN 0x03f79d71b4cb0a89ULL

static const __u8 de_bruijn_position[64] = {
	0,  1,  48, 2,  57, 49, 28, 3,  61, 58, 50, 42, 38, 29, 17, 4,  62, 55, 59, 36, 53, 51,
	43, 22, 45, 39, 33, 30, 24, 18, 12, 5,  63, 47, 56, 27, 60, 41, 37, 16, 54, 35, 52, 21,
	44, 32, 23, 11, 46, 26, 40, 15, 34, 20, 31, 10, 25, 14, 19, 9,  13, 8,  7,  6,
};

static __always_inline __u32 lowest_bit(__u64 word)
{
	return de_bruijn_position[((word & -word) * DE_BRUIJN) >> 58] & 63;
}

#endif
