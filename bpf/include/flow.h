/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Who opened a connection, so that under a default that is not allow the
 * replies to what the other side opened still pass; and the verdicts that
 * later fragments follow.
 *
 * TCP: only a SYN without ACK opens, and it always does; it is never itself a
 * reply. ICMP and ICMPv6: only an echo request opens, only an echo reply is a
 * reply. Other protocols: the first packet seen in either direction opens, so a
 * peer's answer to what this side opened does not turn that into a connection
 * of the peer's.
 */
#ifndef EGATE_FLOW_H
#define EGATE_FLOW_H

#include "cache.h"
#include "maps.h"
#include "parse.h"

#define FLOW_TCP_NS (5 * 24 * 3600 * SECOND_NS) /* as the kernel's connection tracking */
#define FLOW_OTHER_NS (180 * SECOND_NS)         /* likewise, for UDP streams */
#define FRAGMENT_NS (60 * SECOND_NS)            /* IPV6_FRAG_TIMEOUT, the longer one */

#define HAVE_ADDRESSES (EGATE_HAVE_SRC | EGATE_HAVE_DST)

/* 0 where the packet belongs to nothing that could be remembered. */
static __always_inline int flow_key(const struct packet *p, __u32 direction,
				    struct egate_flow_key *key)
{
	__u16 src_port = 0, dst_port = 0;

	if ((p->have & (HAVE_ADDRESSES | EGATE_HAVE_PROTO)) !=
		    (HAVE_ADDRESSES | EGATE_HAVE_PROTO) ||
	    p->fragment == EGATE_LATER_FRAGMENT)
		return 0;
	switch (p->proto) {
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		if (!(p->have & EGATE_HAVE_TRANSPORT))
			return 0;
		break;
	case IPPROTO_TCP:
	case IPPROTO_UDP:
	case IPPROTO_SCTP:
		if (!(p->have & EGATE_HAVE_TRANSPORT))
			return 0;
		src_port = p->source_port;
		dst_port = p->selector;
	}
	__builtin_memset(key, 0, sizeof(*key));
	key->proto = p->proto;
	if (direction == EGATE_EGRESS) {
		key->local = p->src;
		key->remote = p->dst;
		key->local_port = src_port;
		key->remote_port = dst_port;
	} else {
		key->local = p->dst;
		key->remote = p->src;
		key->local_port = dst_port;
		key->remote_port = src_port;
	}
	if (p->proto == IPPROTO_ICMP || p->proto == IPPROTO_ICMPV6)
		key->local_port = p->source_port; /* the identifier is the same both ways */
	return 1;
}

static __always_inline int is_echo(const struct packet *p, int request)
{
	__u8 type = p->selector >> 8;

	if (p->proto == IPPROTO_ICMP)
		return type == (request ? 8 : 0);
	return type == (request ? 128 : 129);
}

static __always_inline int is_icmp(const struct packet *p)
{
	return p->proto == IPPROTO_ICMP || p->proto == IPPROTO_ICMPV6;
}

static __always_inline int is_expired(const struct egate_flow *flow, __u8 proto, __u64 now_ns)
{
	__u64 life_ns = proto == IPPROTO_TCP ? FLOW_TCP_NS : FLOW_OTHER_NS;

	return now_ns > flow->seen_ns && now_ns - flow->seen_ns > life_ns;
}

/* Remembers who opened the connection of a packet that passes. entry is the packet's in the cache, or 0. */
static __always_inline void track(struct egate_totals *t, const struct packet *p, __u32 direction,
				  struct egate_cached *entry)
{
	struct egate_flow fresh = { .opener = direction };
	struct egate_flow_key key;
	struct egate_flow *known;
	int opens = 1;

	if (p->proto == IPPROTO_TCP) {
		if ((p->tcp_flags & (TCP_SYN | TCP_ACK)) != TCP_SYN)
			return;
	} else if (is_icmp(p)) {
		if (!is_echo(p, 1))
			return;
	} else {
		opens = 0;
	}

	fresh.seen_ns = bpf_ktime_get_coarse_ns();
	if (opens && entry) {
		entry->replied = 0; /* now it is this side's connection */
	} else if (entry) {
		if (was_recently(entry->tracked, fresh.seen_ns))
			return;
	}
	if (!flow_key(p, direction, &key))
		return;
	known = bpf_map_lookup_elem(&flows, &key);
	if (known && !opens && !is_expired(known, p->proto, fresh.seen_ns)) {
		if (fresh.seen_ns - known->seen_ns > SECOND_NS) /* spare the cache line otherwise */
			known->seen_ns = fresh.seen_ns;
		if (entry)
			entry->tracked = recently(fresh.seen_ns);
		return;
	}
	if (bpf_map_update_elem(&flows, &key, &fresh, BPF_ANY))
		t->flows_failed++;
	else if (entry && !opens)
		entry->tracked = recently(fresh.seen_ns);
}

/* Tells whether the other side opened the connection with this key. */
static __always_inline int opened_by_other(const struct egate_flow_key *key, __u32 direction)
{
	struct egate_flow *known = bpf_map_lookup_elem(&flows, key);
	__u64 now_ns;

	if (!known || known->opener == direction)
		return 0;
	now_ns = bpf_ktime_get_coarse_ns();
	if (is_expired(known, key->proto, now_ns))
		return 0;
	if (now_ns - known->seen_ns > SECOND_NS)
		known->seen_ns = now_ns;
	return 1;
}

/*
 * Tells the reset that answers a SYN to a closed port: it acknowledges and has
 * the sequence number 0 (RFC 9293, 3.10.7.1).
 */
static __always_inline int refuses_connection(struct __sk_buff *skb, const struct packet *p)
{
	__be32 sequence_be;

	return p->proto == IPPROTO_TCP &&
	       (p->tcp_flags & (TCP_RST | TCP_ACK)) == (TCP_RST | TCP_ACK) &&
	       !copy(skb, p->l4 + 4, &sequence_be, sizeof(sequence_be)) && !sequence_be;
}

/* entry is the packet's in the cache, or 0. */
static __always_inline int is_reply(struct __sk_buff *skb, const struct packet *p, __u32 direction,
				    struct egate_cached *entry)
{
	struct egate_flow_key key;

	if (p->proto == IPPROTO_TCP && (p->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN)
		return 0;
	if (is_icmp(p) && !is_echo(p, 0))
		return 0;
	/* an echo request and a reply have entries of their own: the one would not undo the other's */
	if (is_icmp(p))
		entry = 0;
	if (entry && was_recently(entry->replied, bpf_ktime_get_coarse_ns()) &&
	    !(p->proto == IPPROTO_TCP && p->tcp_flags & TCP_RST))
		return 1;
	if (!flow_key(p, direction, &key) || !opened_by_other(&key, direction))
		return 0;
	/* never was a connection: SYNs to closed ports must not crowd out those that are */
	if (refuses_connection(skb, p)) {
		bpf_map_delete_elem(&flows, &key);
		if (entry)
			entry->replied = 0;
	} else if (entry) {
		entry->replied = recently(bpf_ktime_get_coarse_ns());
	}
	return 1;
}

/* Tells whether an ICMP error reaches to offset. */
static __always_inline int quotes(const struct packet *p, __u32 offset)
{
	return offset <= p->ip_end && offset - p->l3 <= EGATE_MAX_HEADER_BYTES;
}

/*
 * Tells whether an ICMP error is about a connection that the other side
 * opened, and goes to who sent the packet it quotes. On egress that is a packet
 * of theirs, on ingress one of ours.
 * Quoted packets with IPv6 extension headers or fragments are not recognised.
 */
__noinline int is_reply_error(struct __sk_buff *skb, __u32 direction)
{
	struct work *w = at(&work, 0);
	struct egate_flow_key key = {};
	struct egate_addr src, dst;
	const struct packet *p;
	__u32 inner, transport;
	__be16 ports_be[4] = {};
	__u16 src_port = 0, dst_port = 0;
	__u8 type;

	if (!w)
		return 0;
	p = &w->packet;
	inner = p->l4 + 8;
	type = p->selector >> 8;
	if (!(p->have & EGATE_HAVE_TRANSPORT))
		return 0;
	if (p->proto == IPPROTO_ICMP) {
		__u8 head[20];

		if (type != 3 && type != 4 && type != 5 && type != 11 && type != 12)
			return 0;
		if (!quotes(p, inner + sizeof(head)) || copy(skb, inner, head, sizeof(head)))
			return 0;
		if (head[0] >> 4 != 4 || (head[0] & 15) < 5 || ((head[6] & 0x1f) | head[7]))
			return 0;
		src = v4_mapped(*(__be32 *)(head + 12));
		dst = v4_mapped(*(__be32 *)(head + 16));
		key.proto = head[9];
		transport = inner + (head[0] & 15) * 4;
		if (!quotes(p, transport))
			return 0;
	} else if (p->proto == IPPROTO_ICMPV6) {
		struct {
			__u8 first, rest[5], next, hop_limit;
			__be64 src_be[2], dst_be[2];
		} head;

		if (type < 1 || type > 4)
			return 0;
		if (!quotes(p, inner + sizeof(head)) || copy(skb, inner, &head, sizeof(head)))
			return 0;
		src = v6_addr(head.src_be);
		dst = v6_addr(head.dst_be);
		if (head.first >> 4 != 6 || is_extension(head.next) || is_v4(&src) || is_v4(&dst))
			return 0;
		key.proto = head.next;
		transport = inner + sizeof(head);
	} else {
		return 0;
	}
	/* an error goes to who sent the packet: to anybody else it would be a way out */
	if (!(p->have & EGATE_HAVE_DST) || src.hi != p->dst.hi || src.lo != p->dst.lo)
		return 0;

	switch (key.proto) {
	case IPPROTO_TCP:
	case IPPROTO_UDP:
	case IPPROTO_SCTP:
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		if (!quotes(p, transport + sizeof(ports_be)) ||
		    copy(skb, transport, ports_be, sizeof(ports_be)))
			return 0;
		src_port = bpf_ntohs(ports_be[0]);
		dst_port = bpf_ntohs(ports_be[1]);
	}
	if (direction == EGATE_EGRESS) {
		key.local = dst;
		key.remote = src;
		key.local_port = dst_port;
		key.remote_port = src_port;
	} else {
		key.local = src;
		key.remote = dst;
		key.local_port = src_port;
		key.remote_port = dst_port;
	}
	if (key.proto == IPPROTO_ICMP || key.proto == IPPROTO_ICMPV6) {
		type = src_port >> 8;
		if (key.proto == IPPROTO_ICMP ? type != 8 && type != 0 : type != 128 && type != 129)
			return 0;
		key.local_port = bpf_ntohs(ports_be[2]);
		key.remote_port = 0;
	}
	return opened_by_other(&key, direction);
}

/* 0 where the datagram can't be told. */
static __always_inline int fragment_key(const struct packet *p, __u32 direction,
					struct egate_fragment_key *key)
{
	if ((p->have & HAVE_ADDRESSES) != HAVE_ADDRESSES)
		return 0;
	__builtin_memset(key, 0, sizeof(*key));
	key->src = p->src;
	key->dst = p->dst;
	key->id = p->fragment_id;
	key->direction = direction;
	key->family = p->family;
	return 1;
}

static __noinline void remember_fragment(const struct packet *p, __u32 direction, __u32 generation,
					 const struct decision *d)
{
	struct egate_fragment_verdict v = {
		.seen_ns = bpf_ktime_get_coarse_ns(),
		.generation = generation,
		.rule = d->rule,
		.action = d->action,
	};
	struct egate_fragment_key key;

	/* if this fails, later fragments are judged as of unknown datagrams, and counted so */
	if (fragment_key(p, direction, &key))
		bpf_map_update_elem(&fragments, &key, &v, BPF_ANY);
}

/* 1, with the decision set, if the first fragment was judged. */
static __noinline int follow_fragment(const struct packet *p, __u32 direction, __u32 generation,
				      struct decision *d)
{
	struct egate_fragment_verdict *v;
	struct egate_fragment_key key;

	if (!fragment_key(p, direction, &key))
		return 0;
	v = bpf_map_lookup_elem(&fragments, &key);
	if (!v || bpf_ktime_get_coarse_ns() - v->seen_ns > FRAGMENT_NS)
		return 0;
	d->action = v->action;
	d->reason = EGATE_REASON_FRAGMENT;
	d->rule = v->generation == generation ? v->rule : EGATE_NO_RULE;
	return 1;
}

#endif
