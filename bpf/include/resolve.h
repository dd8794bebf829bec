/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * DNS with the policy's resolvers, on its way through: questions that leave are
 * held against the policy and remembered, answers to them are read, and what
 * they tell is opened before the application can use it.
 *
 * An answer counts only if the question left before: same server, ports, id,
 * name and type. Each question has one answer.
 */
#ifndef EGATE_RESOLVE_H
#define EGATE_RESOLVE_H

#include "count.h"
#include "dns.h"
#include "learn.h"
#include "stream.h"

#define DNS_PORT 53
#define DNS_NOERROR 0
#define DNS_NXDOMAIN 3
#define DNS_REFUSED 5
#define DNS_MESSAGES 32 /* that one segment may end; more make it unreadable */
#define TLS_DNS_PORT 853
#define HTTPS_PORT 443

static __always_inline __u32 resolver_flags(const struct egate_addr *a)
{
	__u32 *flags = bpf_map_lookup_elem(&resolvers, a);

	return flags ? *flags : 0;
}

static __always_inline int has_port(const struct packet *p)
{
	return p->have & EGATE_HAVE_TRANSPORT &&
	       (p->proto == IPPROTO_UDP || p->proto == IPPROTO_TCP);
}

/* Whether the packet is one of DNS with a resolver of the policy. */
static __always_inline int is_resolving(const struct packet *p, __u32 direction)
{
	if (!has_port(p) || !(p->have & EGATE_HAVE_DST))
		return 0;
	if (direction == EGATE_EGRESS)
		return p->selector == DNS_PORT && resolver_flags(&p->dst) & EGATE_RESOLVER_TRUSTED;
	return p->source_port == DNS_PORT && resolver_flags(&p->src) & EGATE_RESOLVER_TRUSTED;
}

/* Whether an egress packet is DNS with somebody else, as far as that can be told. One with a source route goes to nobody that is known. */
static __always_inline int is_elsewhere(const struct packet *p)
{
	__u32 flags = 0;

	if (!has_port(p) ||
	    (p->selector != DNS_PORT && p->selector != TLS_DNS_PORT && p->selector != HTTPS_PORT))
		return 0;
	if (p->selector == TLS_DNS_PORT)
		return 1;
	if (p->have & EGATE_HAVE_DST)
		flags = resolver_flags(&p->dst);
	return p->selector == DNS_PORT ? !(flags & EGATE_RESOLVER_TRUSTED)
				       : !!(flags & EGATE_RESOLVER_DOH);
}

static __always_inline void count_outcome(__u32 outcome)
{
	struct egate_name_totals *t = at(&name_totals, 0);

	if (t && outcome < EGATE_DNS_OUTCOMES)
		t->outcome[outcome]++;
}

/* Fills the key of the question that the message in the room asks or answers. */
static __always_inline struct egate_question_key *question_key(struct work *w, const struct room *r)
{
	struct egate_question_key *key = &w->question;

	__builtin_memset(key, 0, sizeof(*key));
	key->local = w->flow.local;
	key->server = w->flow.remote;
	key->port = w->flow.local_port;
	key->proto = w->flow.proto;
	key->id = r->id;
	return key;
}

/* Whether some questions must not leave, so that one that can't be read must not either. */
static __always_inline int restricts_questions(void)
{
	return config.names.listed_only || config.names.check_types || config.names.max_label < 63;
}

/* Reads the first bytes of the message in [base, end). 0, or -1 where they are not there. */
static __always_inline int read_header(struct room *r)
{
	__u32 base = r->base;

	if (r->end < base || r->end - base < DNS_HEADER_BYTES || r->end > EGATE_ROOM_BYTES)
		return -1;
	asm volatile("%0 &= 0x3fff" : "+r"(base));
	r->id = r->bytes[base] << 8 | r->bytes[base + 1];
	r->header_flags = r->bytes[base + 2] << 8 | r->bytes[base + 3];
	return 0;
}

#define DNS_RESPONSE 0x8000
#define DNS_TRUNCATED 0x0200
#define DNS_RCODE 0x000f

/*
 * Judges the question in [base, end) of the room, and remembers it if it may
 * leave. Returns the reason why not, or EGATE_REASON_RULE.
 */
__noinline int judge_question(struct __sk_buff *skb)
{
	struct egate_question_key *key;
	struct egate_question q = {};
	struct work *w = at(&work, 0);
	struct room *r = at(&room, 0);
	__u32 type;
	int end;

	if (!config.names.in_use)
		return EGATE_REASON_DNS_QUESTION;
	asm volatile("" : "+r"(skb));
	if (!w || !r)
		return EGATE_REASON_DNS_QUESTION;
	if (read_header(r) || r->header_flags & DNS_RESPONSE || (end = read_question()) < 0 ||
	    hash_name(1)) {
		count_outcome(EGATE_DNS_MALFORMED);
		return restricts_questions() ? EGATE_REASON_DNS_QUESTION : EGATE_REASON_RULE;
	}
	r->question_end = end;
	w->name = r->name.hash;
	w->name_in_room = 1;
	if (config.names.listed_only && !r->name.ask)
		return EGATE_REASON_DNS_UNLISTED;
	if (r->name.longest > config.names.max_label)
		return EGATE_REASON_DNS_LABEL;
	if (config.names.check_types) {
		type = r->asked_type > 255 ? 255 : r->asked_type;
		if (!(config.names.types[type >> 6 & 3] >> (type & 63) & 1))
			return EGATE_REASON_DNS_TYPE;
	}
	if (config.names.rate_interval_ns) {
		__u64 *arrival_ns = at(&question_time, 0);

		if (!arrival_ns ||
		    !take_token(arrival_ns, bpf_ktime_get_ns(), config.names.rate_interval_ns,
				config.names.rate_burst))
			return EGATE_REASON_DNS_RATE;
	}
	key = question_key(w, r);
	q.name = r->name.hash;
	q.type = r->asked_type;
	q.ifindex = skb->ifindex;
	q.asked_ns = bpf_ktime_get_coarse_ns();
	if (bpf_map_update_elem(&questions, key, &q, BPF_ANY)) {
		struct egate_name_totals *t = at(&name_totals, 0);

		if (t)
			t->failed++;
		return EGATE_REASON_RULE;
	}
	count_outcome(EGATE_DNS_ASKED);
	return EGATE_REASON_RULE;
}

/* Tells the daemon of an answer that was not read. */
static __always_inline void tell_unread(const struct work *w, __u64 name, __u16 type, __u8 outcome)
{
	struct egate_name_totals *t = at(&name_totals, 0);
	struct egate_name *known = bpf_map_lookup_elem(&names, &name);
	struct egate_unread *u;

	if (!t || !known)
		return;
	u = bpf_ringbuf_reserve(&unread, sizeof(*u), 0);
	if (!u) {
		t->unread_lost++;
		return;
	}
	__builtin_memset(u, 0, sizeof(*u));
	u->time_ns = bpf_ktime_get_ns();
	u->name = name;
	u->server = w->flow.remote;
	u->type = type;
	u->outcome = outcome;
	u->length = known->length;
	__builtin_memcpy(u->wire, known->wire, EGATE_NAME_BYTES);
	bpf_ringbuf_submit(u, 0);
	t->unread_sent++;
}

/* What becomes of an answer that can't be read: it passes only if the daemon knows what it tells. */
static __always_inline int answer_unread(const struct work *w, const struct room *r, __u32 outcome)
{
	__u64 name = r->asked;
	struct egate_name *known = bpf_map_lookup_elem(&names, &name);

	if (known && known->vouched_ns > bpf_ktime_get_coarse_ns()) {
		count_outcome(EGATE_DNS_VOUCHED);
		return EGATE_REASON_RULE;
	}
	count_outcome(outcome);
	tell_unread(w, name, r->asked_type, outcome);
	return EGATE_REASON_DNS_ANSWER;
}

/*
 * Reads the answer in [base, end) of the room, of which only the beginning is
 * there if unread is not 0 but the outcome to count. Returns the reason why it
 * must not pass, or EGATE_REASON_RULE.
 */
__noinline int judge_answer(struct __sk_buff *skb, __u32 unread_outcome)
{
	struct egate_question_key *key;
	struct work *w = at(&work, 0);
	struct room *r = at(&room, 0);
	struct egate_question *q;
	int end, learned;
	__u64 asked;
	__u16 type;

	if (!config.names.in_use)
		return EGATE_REASON_DNS_ANSWER;
	asm volatile("" : "+r"(skb));
	if (!w || !r)
		return EGATE_REASON_DNS_ANSWER;
	if (read_header(r) || !(r->header_flags & DNS_RESPONSE) || r->header_flags & DNS_OPCODE) {
		count_outcome(EGATE_DNS_NOT_ANSWER);
		return EGATE_REASON_RULE;
	}
	key = question_key(w, r);
	q = bpf_map_lookup_elem(&questions, key);
	/* from elsewhere it may be of a host that is forwarded, and forged */
	if (!q || q->ifindex != skb->ifindex) {
		count_outcome(EGATE_DNS_UNASKED);
		return EGATE_REASON_RULE;
	}
	asked = q->name;
	type = q->type;
	if (r->header_flags & DNS_RCODE) { /* perhaps without a question, as FORMERR is */
		bpf_map_delete_elem(&questions, key);
		count_outcome(EGATE_DNS_ERROR);
		return EGATE_REASON_RULE;
	}
	end = read_question();
	if (end < 0 || hash_name(1)) {
		count_outcome(EGATE_DNS_MALFORMED);
		return EGATE_REASON_DNS_ANSWER;
	}
	if (r->name.hash != asked || r->asked_type != type) {
		count_outcome(EGATE_DNS_OTHER_NAME);
		return EGATE_REASON_RULE;
	}
	if (!r->name.class) {
		bpf_map_delete_elem(&questions, key);
		count_outcome(EGATE_DNS_NOT_LISTED);
		return EGATE_REASON_RULE;
	}
	w->name = asked;
	r->asked = asked;
	r->asked_class_of = class_of(r->name.class);
	remember_name(r);
	if (unread_outcome)
		return answer_unread(w, r, unread_outcome);

	learned = read_answers(end);
	if (learned < 0 && !(r->header_flags & DNS_TRUNCATED))
		return answer_unread(w, r, EGATE_DNS_MALFORMED);
	bpf_map_delete_elem(&questions, key);
	count_outcome(learned > 0 ? EGATE_DNS_LEARNED : EGATE_DNS_EMPTY);
	return EGATE_REASON_RULE;
}

/* Copies the payload of a UDP packet into the room, as far as there is room. 0, or -1; part tells that it is not all. */
static __always_inline int read_datagram(struct __sk_buff *skb, const struct packet *p,
					 struct room *r, int *part)
{
	__be16 length_be;
	__u32 bytes, there;

	if (copy(skb, p->l4 + 4, &length_be, sizeof(length_be)))
		return -1;
	bytes = bpf_ntohs(length_be) - 8; /* parse_transport saw to it that it is 8 or more */
	there = p->ip_end - p->l4 - 8;
	if (p->ip_end < p->l4 + 8)
		return -1;
	*part = 0;
	if (bytes > there) {
		bytes = there;
		*part = EGATE_DNS_FRAGMENTED;
	}
	if (p->fragment != EGATE_NOT_FRAGMENT || skb->gso_size)
		*part = EGATE_DNS_FRAGMENTED;
	if (bytes > EGATE_ROOM_BYTES) {
		bytes = EGATE_ROOM_BYTES;
		*part = EGATE_DNS_TOO_LONG;
	}
	r->base = 0;
	r->end = r->length = bytes;
	if (!bytes)
		return 0;
	/* in a form that shows the verifier of 6.1 that it is not 0 */
	bytes = 1 + ((bytes - 1) & (EGATE_ROOM_BYTES - 1));
	return bpf_skb_load_bytes(skb, p->l4 + 8, r->bytes, bytes);
}

/*
 * DNS over TCP: as judge_question and judge_answer for all messages that the
 * segment completes. Each has its length in front (RFC 7766, 8).
 */
__noinline int judge_segment(struct __sk_buff *skb, __u32 direction)
{
	__u32 offset, sequence, bytes, done;
	struct work *w = at(&work, 0);
	struct room *r = at(&room, 0);
	int reason, unreadable;
	struct packet *p;

	if (!config.names.in_use)
		return EGATE_REASON_DNS_ANSWER;
	if (!w || !r)
		return EGATE_REASON_DNS_ANSWER;
	p = &w->packet;
	unreadable = direction == EGATE_EGRESS ? EGATE_REASON_DNS_QUESTION
					       : EGATE_REASON_DNS_ANSWER;
	if (p->fragment != EGATE_NOT_FRAGMENT)
		return unreadable;
	if (p->tcp_flags & TCP_SYN) {
		if (tcp_sequence(skb, p, &sequence) || payload_bytes(p, &offset)) {
			w->silent = 1; /* TCP Fast Open: sent again without data */
			return unreadable;
		}
		begin_stream(w, direction, sequence + 1);
		return EGATE_REASON_RULE;
	}
	if (!payload_bytes(p, &offset))
		return EGATE_REASON_RULE;
	if (p->tcp_flags & TCP_URG) /* as in verify() */
		return unreadable;
	switch (read_stream(skb, direction)) {
	case STREAM_READ:
		break;
	case STREAM_OLD:
		return EGATE_REASON_RULE;
	case STREAM_GAP:
		count_outcome(EGATE_DNS_OUT_OF_ORDER);
		w->silent = 1; /* sent again when its turn has come */
		return unreadable;
	default:
		return unreadable; /* also of a connection older than the policy: it is reset, and begins anew */
	}
	r->done = 0;
	for (int n = 0; n < DNS_MESSAGES; n++) {
		done = *(volatile __u32 *)&r->done;
		if (r->length < done || r->length - done < 2)
			break;
		asm volatile("%0 &= 0x3fff" : "+r"(done));
		bytes = r->bytes[done] << 8 | r->bytes[done + 1];
		r->base = done + 2;
		if (2 + bytes > EGATE_ROOM_BYTES) {
			if (direction == EGATE_EGRESS)
				return unreadable;
			r->end = r->length;
			/* the question stands at the beginning: 255 bytes of name, type and class */
			if (r->end < r->base + DNS_HEADER_BYTES + 259)
				break;
			reason = judge_answer(skb, EGATE_DNS_TOO_LONG);
			if (reason != EGATE_REASON_RULE)
				return reason;
			/* it passes, and so does the rest of it */
			end_stream(w, direction);
			begin_stream(w, direction, r->stream_first + done + 2 + bytes);
			return EGATE_REASON_RULE;
		}
		if (r->length - done < 2 + bytes)
			break;
		r->end = done + 2 + bytes;
		*(volatile __u32 *)&r->done = r->end;
		reason = direction == EGATE_EGRESS ? judge_question(skb) : judge_answer(skb, 0);
		if (reason != EGATE_REASON_RULE)
			return reason;
	}
	if (r->stream_next - r->stream_first != r->length)
		return unreadable; /* the room ends before the segment */
	done = *(volatile __u32 *)&r->done;
	if (r->length >= done + 2) {
		asm volatile("%0 &= 0x3fff" : "+r"(done));
		if (r->length - done >= 2U + (r->bytes[done] << 8 | r->bytes[done + 1]))
			return unreadable; /* more messages than are read at once */
	}
	return leave_stream(skb, direction, r->done) ? unreadable : EGATE_REASON_RULE;
}

/* Whether an egress packet may be a question to a resolver that can't be read, since its ports can't. */
static __always_inline int hides_question(const struct packet *p)
{
	if (!restricts_questions() || !(p->have & EGATE_HAVE_DST) ||
	    p->have & EGATE_HAVE_TRANSPORT || p->fragment == EGATE_LATER_FRAGMENT)
		return 0;
	if (p->have & EGATE_HAVE_PROTO && p->proto != IPPROTO_TCP && p->proto != IPPROTO_UDP)
		return 0;
	return !!(resolver_flags(&p->dst) & EGATE_RESOLVER_TRUSTED);
}

static __always_inline void refuse_hidden(struct decision *d)
{
	if (d->action != EGATE_ALLOW)
		return;
	d->rule = EGATE_NO_RULE;
	d->action = EGATE_DROP;
	d->reason = EGATE_REASON_DNS_QUESTION;
}

/*
 * Judges a packet of DNS with a resolver of the policy that would otherwise
 * pass. Sets the decision where it must not.
 */
static __always_inline int resolve(struct __sk_buff *skb, __u32 direction)
{
	struct work *w = at(&work, 0);
	struct room *r = at(&room, 0);
	struct packet *p;
	int reason = EGATE_REASON_RULE, part = 0;

	if (!w || !r)
		return -1;
	p = &w->packet;
	if (!flow_key(p, direction, &w->flow))
		return 0;
	w->silent = 0;
	if (p->proto == IPPROTO_TCP)
		reason = judge_segment(skb, direction);
	else if (read_datagram(skb, p, r, &part))
		reason = direction == EGATE_EGRESS ? EGATE_REASON_DNS_QUESTION
						   : EGATE_REASON_DNS_ANSWER;
	else if (direction == EGATE_EGRESS)
		reason = part && restricts_questions() ? EGATE_REASON_DNS_QUESTION
						       : judge_question(skb);
	else
		reason = judge_answer(skb, part);
	if (reason == EGATE_REASON_RULE || w->decision.action != EGATE_ALLOW)
		return 0;

	w->decision.rule = EGATE_NO_RULE;
	w->decision.reason = reason;
	w->decision.action = EGATE_DROP;
	if (direction == EGATE_INGRESS || reason == EGATE_REASON_DNS_RATE)
		return 0;
	if (p->proto == IPPROTO_TCP) {
		w->decision.action = w->silent ? EGATE_DROP : EGATE_REJECT;
	} else if (reason != EGATE_REASON_DNS_QUESTION) {
		w->decision.action = EGATE_REJECT;
		/* a type that may not be asked for is answered as if there were none */
		w->refusal = 1 + (reason == EGATE_REASON_DNS_TYPE ? DNS_NOERROR
				  : config.names.nxdomain         ? DNS_NXDOMAIN
								  : DNS_REFUSED);
	}
	return 0;
}

#endif
