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

/* The last interval of [lo, hi] that starts at or before key; the one at lo does. */
static __always_inline __u32 search(__u64 key, __u32 lo, __u32 hi)
{
	for (int step = 0; step < EGATE_SEARCH_STEPS && lo < hi; step++) {
		__u32 mid = lo + (hi - lo + 1) / 2;
		struct egate_interval *iv = at(&intervals, mid);

		if (!iv)
			break;
		if (iv->start <= key)
			lo = mid;
		else
			hi = mid - 1;
	}
	return lo;
}

static __always_inline __u32 address_class(const volatile struct egate_addr_table *t,
					   const struct egate_addr *a)
{
	__u64 key;
	__u32 cell;

	if (is_v4(a)) {
		key = (__u32)a->lo;
		cell = t->cells4 + (__u32)(key >> t->shift4);
	} else {
		key = a->hi;
		cell = t->cells6 + (__u32)(key >> t->shift6);
	}

	__u32 *first = at(&cells, cell);
	__u32 *last = at(&cells, cell + 1);

	if (!first || !last)
		return 0;

	struct egate_interval *iv = at(&intervals, search(key, *first, *last));

	if (iv && iv->sub)
		iv = at(&intervals, search(a->lo, iv->value, iv->value + iv->sub - 1));
	return iv ? iv->value : 0;
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

static __always_inline void classify(const volatile struct egate_chain *c, const struct packet *p,
				     __u32 *rows)
{
	__u32 class[EGATE_DIMENSIONS] = {};

	if (c->used[EGATE_DIM_DESTINATION] && p->have & EGATE_HAVE_DST)
		class[EGATE_DIM_DESTINATION] = address_class(&c->addr[0], &p->dst);
	if (c->used[EGATE_DIM_SOURCE] && p->have & EGATE_HAVE_SRC)
		class[EGATE_DIM_SOURCE] = address_class(&c->addr[1], &p->src);
	if (p->have & EGATE_HAVE_PROTO) {
		if (c->used[EGATE_DIM_SERVICE])
			class[EGATE_DIM_SERVICE] = selector_class(&c->sel[0], p, p->selector);
		if (c->used[EGATE_DIM_SOURCE_PORT])
			class[EGATE_DIM_SOURCE_PORT] =
				selector_class(&c->sel[1], p, p->source_port);
	}
#pragma unroll
	for (int d = 0; d < EGATE_DIMENSIONS; d++)
		rows[d] = c->vectors[d] + class[d] * (c->words + 1);
}

/* Word i of the packet's rows, ANDed over the dimensions in use; word 0 is the summary. */
static __always_inline __u64 and_rows(const volatile struct egate_chain *c, const __u32 *rows,
				      __u32 i)
{
	__u64 *word = at(&vectors, c->all + i);
	__u64 left;

	if (!word)
		return 0;
	left = *word;
#pragma unroll
	for (int d = 0; d < EGATE_DIMENSIONS; d++) {
		if (!c->used[d])
			continue;
		word = at(&vectors, rows[d] + i);
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
