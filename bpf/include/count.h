/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Exact counters, per CPU, and events, bounded by a rate per rule.
 */
#ifndef EGATE_COUNT_H
#define EGATE_COUNT_H

#include "flow.h"
#include "maps.h"
#include "parse.h"

/* The coarse clock lags by a tick at most; HZ is 100 or more. */
#define TICK_NS 10000000ULL

/* A GSO packet leaves the host as this many. */
static __always_inline __u32 segments_of(struct __sk_buff *skb)
{
	return skb->gso_segs ? skb->gso_segs : 1;
}

/*
 * Takes one token of a bucket that holds burst of them and gains one each
 * interval_ns. The whole state is the theoretical arrival time of the generic
 * cell rate algorithm (ITU-T I.371), so one compare-and-swap does it. 1: taken.
 */
static __always_inline int take_token(__u64 *arrival_ns, __u64 now_ns, __u64 interval_ns,
				      __u32 burst)
{
	__u64 tolerance_ns = interval_ns * (burst - 1);

#pragma unroll
	for (int tries = 0; tries < 4; tries++) {
		__u64 old = *(volatile __u64 *)arrival_ns;
		__u64 start = old > now_ns ? old : now_ns;

		if (start - now_ns > tolerance_ns)
			return 0;
		if (__sync_val_compare_and_swap(arrival_ns, old, start + interval_ns) == old)
			return 1;
	}
	return 0; /* four others took one in these nanoseconds: the bucket is in heavy use */
}

/* Whether take_token could succeed at a time not after now_ns. */
static __always_inline int may_take_token(const __u64 *arrival_ns, __u64 now_ns, __u64 interval_ns,
					  __u32 burst)
{
	__u64 old = *(const volatile __u64 *)arrival_ns;

	return old <= now_ns || old - now_ns <= interval_ns * (burst - 1);
}

static __always_inline void count_rule(struct __sk_buff *skb, const volatile struct egate_chain *c,
				       __u32 rule, __u32 action)
{
	struct egate_rule_counter *n =
		at(&rule_counters, c->rules + (rule == EGATE_NO_RULE ? c->rule_count : rule));

	if (!n || action >= EGATE_ACTIONS)
		return;
	n->packets[action] += segments_of(skb);
	n->bytes[action] += skb->len;
}

static __always_inline void count_iface(struct __sk_buff *skb, __u32 slot, __u32 direction,
					__u32 action)
{
	struct egate_iface_counter *n = at(&iface_counters, slot * 2 + direction);

	if (!n || action > EGATE_REJECT)
		return;
	n->packets[action] += segments_of(skb);
	n->bytes[action] += skb->len;
}

static __always_inline void count_totals(struct __sk_buff *skb, struct egate_totals *t,
					 const struct packet *p, const struct decision *d)
{
	__u32 packets = segments_of(skb);
	struct egate_reason_counter *r = &t->reason[d->reason & (EGATE_REASON_SLOTS - 1)];

	r->packets += packets;
	r->bytes += skb->len;
	if (!p->is_ip)
		return;

	__u8 proto = p->have & EGATE_HAVE_PROTO ? p->proto : EGATE_UNKNOWN_PROTOCOL;
	struct egate_proto_counter *n = &t->proto[proto];

	if (d->action == EGATE_ALLOW) {
		n->passed_packets += packets;
		n->passed_bytes += skb->len;
	} else {
		n->blocked_packets += packets;
		n->blocked_bytes += skb->len;
	}
}

/* The name that the packet's connection goes by, where the cache spared finding it out; 0: none. */
static __always_inline __u64 name_of_connection(struct work *w)
{
	struct egate_binding *b;

	if (!config.chain[EGATE_EGRESS].used[EGATE_DIM_NAME] ||
	    !flow_key(&w->packet, EGATE_EGRESS, &w->flow))
		return 0;
	b = bpf_map_lookup_elem(&bindings, &w->flow);
	return b ? b->slot.name : 0;
}

static __always_inline void fill_event(struct __sk_buff *skb, __u32 direction, __u64 now_ns,
				       struct egate_event *e, struct work *w)
{
	const struct packet *p = &w->packet;
	const struct decision *d = &w->decision;

	__builtin_memset(e, 0, sizeof(*e));
	e->time_ns = now_ns;
	e->src = p->src;
	e->dst = p->dst;
	e->ifindex = skb->ifindex;
	e->generation = config.generation;
	e->rule = d->rule;
	e->length = skb->len;
	e->segments = segments_of(skb);
	e->ether_type = p->ether_type;
	e->selector = p->selector;
	e->source_port = p->source_port;
	e->direction = direction;
	e->action = d->action;
	e->reason = d->reason;
	e->audit = config.audit;
	e->have = p->have;
	e->family = p->family;
	e->proto = p->proto;
	e->tcp_flags = p->tcp_flags;
	e->fragment = p->fragment;
	e->is_ip = p->is_ip;
	if (config.names.in_use) {
		e->name = w->name;
		if (!w->name && direction == EGATE_EGRESS && d->rule != EGATE_NO_RULE &&
		    d->reason == EGATE_REASON_RULE)
			e->name = name_of_connection(w);
	}
}

/* Reports a decision if the rate of its rule, or of the chain's default, lets it. */
static __always_inline void report(struct __sk_buff *skb, __u32 direction, struct egate_totals *t,
				   struct work *w)
{
	const volatile struct egate_chain *c = &config.chain[direction];
	const struct decision *d = &w->decision;
	struct room *r = 0;
	__u32 position = c->rules + (d->rule == EGATE_NO_RULE ? c->rule_count : d->rule);
	struct egate_rule *rule = at(&rules, position);
	struct egate_event *e;

	if (!rule || !rule->event_burst)
		return;
	/* what passes a default of drop or reject all the same must not use up the events of what does not */
	if (d->rule == EGATE_NO_RULE && d->action == EGATE_ALLOW &&
	    c->default_action != EGATE_ALLOW && rule->event_interval_ns)
		return;

	__u64 now_ns;

	if (rule->event_interval_ns) {
		__u64 *arrival_ns = at(&event_times, position);

		/* The exact clock costs as much as a look-up; under a flood the coarse one tells enough. */
		if (!arrival_ns || !may_take_token(arrival_ns, bpf_ktime_get_coarse_ns() + TICK_NS,
						   rule->event_interval_ns, rule->event_burst)) {
			t->events_suppressed++;
			return;
		}
		now_ns = bpf_ktime_get_ns();
		if (!take_token(arrival_ns, now_ns, rule->event_interval_ns, rule->event_burst)) {
			t->events_suppressed++;
			return;
		}
	} else {
		now_ns = bpf_ktime_get_ns();
	}
	if (config.names.in_use && w->name_in_room)
		r = at(&room, 0);
	if (r) {
		struct egate_named_event *named = bpf_ringbuf_reserve(&events, sizeof(*named), 0);

		if (!named) {
			t->events_lost++;
			return;
		}
		__builtin_memcpy(named->wire, r->name.wire, EGATE_NAME_BYTES);
		fill_event(skb, direction, now_ns, &named->event, w);
		named->event.name_length = r->name.bytes;
		bpf_ringbuf_submit(named, 0);
		t->events_sent++;
		return;
	}
	e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e) {
		t->events_lost++;
		return;
	}
	fill_event(skb, direction, now_ns, e, w);
	bpf_ringbuf_submit(e, 0);
	t->events_sent++;
}

#endif
