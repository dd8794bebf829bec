// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * A policy: judges every packet of the guarded interfaces.
 *
 * Hook: TC egress and ingress, tail-called by dispatch.bpf.c, which puts the
 * direction into cb[4]. Minimum kernel: 6.1. Verdict: TC_ACT_UNSPEC (on to the
 * next program), TC_ACT_SHOT, or a redirect of the answer to a rejected packet.
 *
 * In the order of the data:
 */
#include "include/abi.h"      /* what crosses to Go */
#include "include/packet.h"   /* what is known of a packet */
#include "include/maps.h"     /* the tables, the counters, the memory */
#include "include/parse.h"    /* the packet's headers */
#include "include/classify.h" /* the rules it meets */
#include "include/names.h"    /* the class of a name */
#include "include/cache.h"    /* what was found out about its flow before */
#include "include/flow.h"     /* what is remembered of earlier packets */
#include "include/learn.h"    /* the names of an address */
#include "include/stream.h"   /* TCP segments put together */
#include "include/dns.h"      /* DNS messages */
#include "include/request.h"  /* the first request of a connection */
#include "include/bind.h"     /* the name that a connection goes by */
#include "include/count.h"    /* counters and events */
#include "include/resolve.h"  /* questions and answers of DNS */
#include "include/answer.h"   /* the reply to a rejected packet */
#include <linux/pkt_cls.h>

struct match {
	const volatile struct egate_chain *chain;
	struct __sk_buff *skb;
	struct work *work;
};

/*
 * One round of the match: looks at the next rule of the present word, or fetches
 * the next word that is not empty. 1: a rule decided, or none is left.
 */
static __always_inline long match_round(struct match *m)
{
	const volatile struct egate_chain *c = m->chain;
	struct work *w = m->work;
	struct egate_rule *rule;
	__u32 index;

	if (!w->word) {
		if (!w->summary)
			return 1;
		w->base = lowest_bit(w->summary);
		w->summary &= w->summary - 1;
		w->word = and_words(c, w, w->base);
		return 0;
	}
	index = w->base * 64 + lowest_bit(w->word);
	w->word &= w->word - 1;
	rule = at(&rules, c->rules + index);
	if (!rule)
		return 1;
	if (rule->action == EGATE_CONTINUE) {
		if (!config.names.in_use || !w->again)
			count_rule(m->skb, c, index, EGATE_CONTINUE);
		w->continued = 1;
		return 0;
	}
	w->decision.rule = index;
	w->decision.action = rule->action;
	w->decision.reason = EGATE_REASON_RULE;
	return 1;
}

static long match_more(__u32 round, void *m)
{
	return match_round(m);
}

/* Finds the rule that decides; counts the continue rules on the way. 1 if there is one. */
static __always_inline int match(struct __sk_buff *skb, const volatile struct egate_chain *c,
				 struct work *w)
{
	struct match m = { .chain = c, .skb = skb, .work = w };

	w->decision.rule = EGATE_NO_RULE;
	w->continued = 0;
	if (!c->words)
		return 0;
	classify(c, &w->packet, w->rows);
	w->summary = c->words == 1 ? 1 : and_summaries(c, w);
	w->word = 0;
	/* most packets meet the rule that decides in the first word: without the price of a callback */
	if (!match_round(&m) && !match_round(&m))
		bpf_loop(EGATE_MAX_WORDS + EGATE_MAX_CONTINUE_RULES, match_more, &m, 0);
	return w->decision.rule != EGATE_NO_RULE;
}

/* IPv6 neighbour discovery (RFC 4861) and the listener reports that it needs behind switches which snoop them (RFC 2710, RFC 3810). */
static __always_inline int is_neighbour(const struct packet *p)
{
	__u8 type = p->selector >> 8;

	if (p->family != 6 || p->proto != IPPROTO_ICMPV6 || !(p->have & EGATE_HAVE_TRANSPORT) ||
	    p->fragment != EGATE_NOT_FRAGMENT)
		return 0;
	if (type >= 133 && type <= 137)
		return p->hop_limit == 255;
	if ((type >= 130 && type <= 132) || type == 143)
		return p->hop_limit == 1;
	return 0;
}

static __always_inline int is_dhcp_client(const struct packet *p, __u32 direction)
{
	__u16 client = p->family == 6 ? 546 : 68;
	__u16 server = p->family == 6 ? 547 : 67;

	if (p->proto != IPPROTO_UDP || !(p->have & EGATE_HAVE_TRANSPORT) ||
	    p->fragment != EGATE_NOT_FRAGMENT)
		return 0;
	if (direction == EGATE_EGRESS)
		return p->source_port == client && p->selector == server;
	return p->source_port == server && p->selector == client;
}

/* What no rule decided. */
static __always_inline void fallback(struct __sk_buff *skb, const volatile struct egate_chain *c,
				     __u32 direction, const struct packet *p,
				     struct egate_cached *entry, struct decision *d)
{
	d->rule = EGATE_NO_RULE;
	d->action = EGATE_ALLOW;
	if (c->default_action != EGATE_ALLOW) {
		if (is_neighbour(p)) {
			d->reason = EGATE_REASON_NEIGHBOUR_DISCOVERY;
			return;
		}
		if (is_dhcp_client(p, direction)) {
			d->reason = EGATE_REASON_DHCP;
			return;
		}
		if (config.names.in_use && direction == EGATE_EGRESS &&
		    is_resolving(p, direction)) {
			d->reason = EGATE_REASON_DNS;
			return;
		}
		if (c->replies && is_reply(skb, p, direction, entry)) {
			d->reason = EGATE_REASON_REPLY;
			return;
		}
		if (c->replies && is_icmp(p) && is_reply_error(skb, direction)) {
			d->reason = EGATE_REASON_REPLY_ERROR;
			return;
		}
	}
	d->action = c->default_action;
	if (p->problem)
		d->reason = p->problem;
	else if (p->fragment == EGATE_LATER_FRAGMENT)
		d->reason = EGATE_REASON_FRAGMENT_UNKNOWN;
	else
		d->reason = EGATE_REASON_DEFAULT;
}

/* Matches an egress packet again, by the name that its request gave the connection. Returns enum named. */
__noinline int decide_again(struct __sk_buff *skb)
{
	const volatile struct egate_chain *c = &config.chain[EGATE_EGRESS];
	struct work *w = at(&work, 0);

	if (!config.names.in_use)
		return NAMED_NO_CACHE;
	if (!w)
		return NAMED_NO_CACHE;
	if (!match(skb, c, w))
		fallback(skb, c, EGATE_EGRESS, &w->packet, 0, &w->decision);
	return named_again(skb);
}

/* Takes from the packet's cache entry what a packet like it met. 0 if nothing is known. */
static __always_inline int remembers(const volatile struct egate_chain *c, struct work *w,
				     const struct egate_cached *entry)
{
	if (!entry || !cache_holds(c, entry, &w->packet))
		return 0;
	w->decision.rule = entry->rule;
	w->decision.action = entry->action;
	w->decision.reason = EGATE_REASON_RULE;
	return 1;
}

/*
 * Judges a packet by its rules, and by its connection's name where they ask for
 * one. Gives its entry in the cache, if it has one.
 */
static __always_inline struct egate_cached *decide_ip(struct __sk_buff *skb,
						      const volatile struct egate_chain *c,
						      __u32 direction, struct work *w)
{
	struct egate_cached *entry = cache_entry(c, &w->packet);
	struct decision *d = &w->decision;

	/* before the cache, whose entries need not tell ports */
	if (direction == EGATE_EGRESS && config.names.elsewhere != EGATE_ALLOW &&
	    is_elsewhere(&w->packet)) {
		d->rule = EGATE_NO_RULE;
		d->action = config.names.elsewhere;
		d->reason = EGATE_REASON_DNS_ELSEWHERE;
		return 0;
	}
	if (!remembers(c, w, entry)) {
		if (c->used[EGATE_DIM_NAME])
			names_of(skb);
		match(skb, c, w);
		if (w->continued)
			entry = 0; /* such rules are counted each time, so they must be met each time */
		if (c->used[EGATE_DIM_NAME] && d->rule != EGATE_NO_RULE &&
		    d->action == EGATE_ALLOW) {
			int outcome = named(skb);

			if (outcome == NAMED_AGAIN)
				outcome = decide_again(skb);
			if (outcome != NAMED_CACHE)
				return 0;
			if (w->continued)
				entry = 0;
		}
		if (entry)
			cache_put(c, entry, w);
	}
	if (d->rule == EGATE_NO_RULE)
		fallback(skb, c, direction, &w->packet, entry, d);
	return entry;
}

static __always_inline void decide(struct __sk_buff *skb, const volatile struct egate_chain *c,
				   __u32 direction, struct egate_totals *t, struct work *w)
{
	const struct packet *p = &w->packet;
	struct decision *d = &w->decision;
	struct egate_cached *entry;

	if (!p->is_ip) {
		int passes = p->control && c->default_action != EGATE_ALLOW;

		d->rule = EGATE_NO_RULE;
		d->action = passes ? EGATE_ALLOW : c->default_action;
		d->reason = passes ? EGATE_REASON_CONTROL_FRAME : EGATE_REASON_NON_IP;
		return;
	}
	if (p->fragment == EGATE_LATER_FRAGMENT &&
	    follow_fragment(p, direction, config.generation, d))
		return;
	entry = decide_ip(skb, c, direction, w);
	if (p->fragment == EGATE_FIRST_FRAGMENT)
		remember_fragment(p, direction, config.generation, d);
	if (c->track && (d->action == EGATE_ALLOW || config.audit))
		track(t, p, direction, entry);
}

/* 1 if the packet is to be answered. */
static __always_inline int answers_packet(struct __sk_buff *skb, const struct packet *p,
					  struct decision *d)
{
	if (d->action != EGATE_REJECT || d->reason == EGATE_REASON_FRAGMENT)
		return 0;
	if (!is_answerable(skb, p))
		d->reason = EGATE_REASON_REJECT_UNANSWERABLE;
	else if (config.audit || may_answer())
		return 1;
	else
		d->reason = EGATE_REASON_REJECT_LIMITED;
	return 0;
}

static __always_inline int judge(struct __sk_buff *skb, __u32 direction)
{
	const volatile struct egate_chain *c = &config.chain[direction];
	struct egate_iface *iface = at(&ifaces, skb->ifindex);
	struct egate_totals *t = at(&totals, direction);
	struct work *w = at(&work, 0);
	struct packet *p;
	struct decision *d;
	int answers = 0, verdict;

	if (!iface || (!iface->slot && !iface->dns_only) || !t || !w)
		return TC_ACT_UNSPEC;
	if (is_own_answer(skb, config.answer_secret)) {
		t->reason[EGATE_REASON_OWN_ANSWER].packets += 1;
		t->reason[EGATE_REASON_OWN_ANSWER].bytes += skb->len;
		return TC_ACT_UNSPEC;
	}

	p = &w->packet;
	d = &w->decision;
	if (parse(skb, iface->link))
		return TC_ACT_UNSPEC;
	if (config.names.in_use) {
		w->name = 0;
		w->name_in_room = 0;
		w->refusal = 0;
		w->again = 0;
	}
	if (iface->dns_only) {
		d->rule = EGATE_NO_RULE;
		d->action = EGATE_ALLOW;
		d->reason = EGATE_REASON_DNS;
	} else {
		decide(skb, c, direction, t, w);
	}
	if (config.names.in_use && (d->action == EGATE_ALLOW || config.audit)) {
		if (is_resolving(p, direction))
			resolve(skb, direction);
		else if (direction == EGATE_EGRESS && hides_question(p))
			refuse_hidden(d);
	}
	if (iface->dns_only && d->action == EGATE_ALLOW)
		return TC_ACT_UNSPEC;
	if (c->rejects)
		answers = answers_packet(skb, p, d);

	count_rule(skb, c, d->rule, d->action);
	if (iface->slot)
		count_iface(skb, iface->slot - 1, direction, d->action);
	count_totals(skb, t, p, d);
	report(skb, direction, t, w);

	if (config.audit || d->action == EGATE_ALLOW)
		return TC_ACT_UNSPEC;
	if (!answers)
		return TC_ACT_SHOT;
	verdict = send_answer(skb, p, direction, config.answer_secret,
			      config.names.in_use ? w->refusal : 0);
	if (verdict < 0) {
		t->answers_failed++;
		return TC_ACT_SHOT;
	}
	t->answers_sent++;
	return verdict;
}

SEC("tc")
int egate_policy(struct __sk_buff *skb)
{
	if (skb->cb[4] == EGATE_EGRESS)
		return judge(skb, EGATE_EGRESS);
	return judge(skb, EGATE_INGRESS);
}

char _license[] SEC("license") = "Dual BSD/GPL";
