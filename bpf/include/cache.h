/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What was found out about the last packets, so that those of a flow are
 * neither classified nor looked up among the connections one by one: what a
 * packet of a flow costs does not depend on the size of the policy.
 *
 * What match() finds is a function of the packet's fields alone. An entry holds
 * them, whole, and the rule, or that there is none. Those that the chain asks
 * for are compared; all of them where connections matter to it, and the entry
 * then also stands for a moment for what map flows says. The map is the
 * policy's own, so a switch begins with an empty one. It is per CPU: no entry is read while another CPU
 * writes it. Why it is not kept with the socket: ARCHITECTURE.md.
 */
#ifndef EGATE_CACHE_H
#define EGATE_CACHE_H

#include "maps.h"
#include "names.h"
#include "parse.h"

#define SECOND_NS 1000000000ULL

/*
 * For so long an entry of the cache stands for what map flows says of a
 * connection. It is short against any lifetime, and a connection in use is still
 * looked up often enough to stay clear of the LRU's end.
 */
#define CACHED_NS (SECOND_NS / 10)

/* A time in 32 bits, in units of about a millisecond, and never 0. Times 52 days apart look alike. */
static __always_inline __u32 recently(__u64 now_ns)
{
	return now_ns >> 20 | 1;
}

static __always_inline int was_recently(__u32 then, __u64 now_ns)
{
	return then && (__u32)(now_ns >> 20) - (then & ~1U) < CACHED_NS >> 20;
}

#define HAVE_ALL (EGATE_HAVE_SRC | EGATE_HAVE_DST | EGATE_HAVE_PROTO | EGATE_HAVE_TRANSPORT)

static __always_inline int replies_matter(const volatile struct egate_chain *c)
{
	return c->replies && c->default_action != EGATE_ALLOW;
}

/* Whether packets of different connections are never the same to the chain. */
static __always_inline int tells_flows(const volatile struct egate_chain *c)
{
	return c->track || replies_matter(c) || c->used[EGATE_DIM_NAME];
}

/* Whether an entry's value in a dimension must be the packet's. */
static __always_inline int cache_asks(const volatile struct egate_chain *c, int dimension)
{
	return c->used[dimension] || tells_flows(c);
}

/* The entry that the packet would have, or that of another; 0 for a packet that could not be read whole. */
static __always_inline struct egate_cached *cache_entry(const volatile struct egate_chain *c,
							const struct packet *p)
{
	struct egate_cache_page *page;
	__u64 h = 0;

	if ((!c->words && !tells_flows(c)) || p->have != HAVE_ALL ||
	    p->fragment != EGATE_NOT_FRAGMENT)
		return 0;
	if (cache_asks(c, EGATE_DIM_DESTINATION))
		h = p->dst.hi * 0x9e3779b97f4a7c15ULL ^ p->dst.lo;
	if (cache_asks(c, EGATE_DIM_SOURCE))
		h = (h ^ h >> 29) * 0x94d049bb133111ebULL +
		    (p->src.hi * 0x9e3779b97f4a7c15ULL ^ p->src.lo);
	if (cache_asks(c, EGATE_DIM_SERVICE) || cache_asks(c, EGATE_DIM_SOURCE_PORT))
		h ^= (__u64)p->proto << 56;
	if (cache_asks(c, EGATE_DIM_SERVICE))
		h ^= (__u64)p->selector << 40;
	if (cache_asks(c, EGATE_DIM_SOURCE_PORT))
		h ^= (__u64)p->source_port << 24;
	h = (h ^ h >> 32) * 0xbf58476d1ce4e5b9ULL;

	page = at(&cache, c->cache + (h >> 48 & (EGATE_CACHE_PAGES - 1)));
	return page ? &page->entries[h >> 52 & (EGATE_CACHE_PAGE_ENTRIES - 1)] : 0;
}

/* Whether the packet begins a connection, so that what a former one with its addresses and ports did is void. */
static __always_inline int begins(const struct packet *p)
{
	return p->proto == IPPROTO_TCP && (p->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

/* 1 if the entry is of a packet that the chain does not tell from this one. */
static __always_inline int cache_holds(const volatile struct egate_chain *c,
				       const struct egate_cached *e, const struct packet *p)
{
	if (!e->used)
		return 0;
	if (cache_asks(c, EGATE_DIM_DESTINATION) &&
	    (e->dst.lo != p->dst.lo || e->dst.hi != p->dst.hi))
		return 0;
	if (cache_asks(c, EGATE_DIM_SOURCE) && (e->src.lo != p->src.lo || e->src.hi != p->src.hi))
		return 0;
	if ((cache_asks(c, EGATE_DIM_SERVICE) || cache_asks(c, EGATE_DIM_SOURCE_PORT)) &&
	    e->proto != p->proto)
		return 0;
	if (cache_asks(c, EGATE_DIM_SERVICE) && e->selector != p->selector)
		return 0;
	if (cache_asks(c, EGATE_DIM_SOURCE_PORT) && e->source_port != p->source_port)
		return 0;
	if (c->used[EGATE_DIM_NAME]) {
		__u32 *epoch = name_epoch(&p->dst);

		if (begins(p)) /* see unbind() */
			return 0;
		if (!epoch || *epoch != e->epoch || bpf_ktime_get_coarse_ns() > e->named_until_ns)
			return 0;
	}
	return 1;
}

static __always_inline void cache_put(const volatile struct egate_chain *c, struct egate_cached *e,
				      const struct work *w)
{
	const struct packet *p = &w->packet;
	const struct decision *d = &w->decision;

	e->used = 1;
	e->dst = p->dst;
	e->src = p->src;
	e->proto = p->proto;
	e->selector = p->selector;
	e->source_port = p->source_port;
	e->rule = d->rule;
	e->action = d->action;
	e->tracked = 0;
	e->replied = 0;
	if (c->used[EGATE_DIM_NAME]) {
		e->epoch = w->name_epoch;
		e->named_until_ns = w->named_until_ns;
	}
}

#endif
