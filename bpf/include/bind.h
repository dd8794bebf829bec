/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Which name a packet goes by. Before a connection has one, its packets have
 * all the names of their destination. The rule that lets the first one pass
 * binds the connection to a name of its own; from then on the connection goes by
 * that name alone, however long the destination keeps it. Where the rule
 * verifies names, the name in the connection's first request takes its place, and
 * the packet is matched again.
 */
#ifndef EGATE_BIND_H
#define EGATE_BIND_H

#include "classify.h"
#include "learn.h"
#include "request.h"
#include "stream.h"

/* Why a packet is matched again. */
enum match_again {
	MATCH_NAMED = 1, /* its request has another name, or none */
	MATCH_UNSEEN,    /* its connection began before anybody looked */
};

/* What named() asks of its caller. */
enum named {
	NAMED_CACHE,    /* later packets of the connection will get the same verdict */
	NAMED_NO_CACHE, /* they may not */
	NAMED_AGAIN,    /* the packet has another name now: match it again */
};

/* The name's class in this policy, by its text; 0 where that is forgotten. */
__noinline __u32 class_by_text(__u64 name)
{
	struct egate_name_totals *t = at(&name_totals, 0);
	struct room *r = at(&room, 0);
	struct egate_name *known;
	__u32 labels = 0, cursor = 0;

	if (!config.names.in_use)
		return 0;
	if (!t || !r || !name)
		return 0;
	known = bpf_map_lookup_elem(&names, &name);
	if (!known) {
		t->names_forgotten++;
		return 0;
	}
	__builtin_memcpy(r->name.wire, known->wire, EGATE_NAME_BYTES);
	r->name.bytes = known->length;
	r->cursor = 0;
	for (labels = 0; labels < EGATE_NAME_LABELS; labels++) {
		cursor = *(volatile __u32 *)&r->cursor & 0xff;
		if (!r->name.wire[cursor])
			break;
		r->name.starts[labels] = cursor;
		*(volatile __u32 *)&r->cursor = cursor + 1 + r->name.wire[cursor];
	}
	r->name.labels = labels;
	/* the map may have given the value to another name meanwhile */
	if (hash_name(1) || r->name.hash != name)
		return 0;
	return r->name.class;
}

static __always_inline struct egate_binding *binding_of(struct work *w, __u64 now_ns)
{
	struct egate_binding *b;
	__u64 life_ns;

	if (!w->has_flow || begins(&w->packet))
		return 0;
	b = bpf_map_lookup_elem(&bindings, &w->flow);
	if (!b)
		return 0;
	life_ns = w->packet.proto == IPPROTO_TCP ? FLOW_TCP_NS : FLOW_OTHER_NS;
	if (now_ns > b->seen_ns + life_ns)
		return 0;
	if (now_ns > b->seen_ns + SECOND_NS) /* spare the cache line otherwise */
		b->seen_ns = now_ns;
	w->names[0] = b->slot;
	w->binding = 1 + b->state;
	/* what was read is the connection's only if the map did not give the value to another meanwhile */
	if (bpf_map_lookup_elem(&bindings, &w->flow) != b) {
		w->binding = 0;
		return 0;
	}
	return b;
}

/* Lets the connection remember the class that was found for this policy. */
static __always_inline void keep_class(struct work *w, __u64 now_ns)
{
	struct egate_binding b = {
		.slot = w->names[0],
		.seen_ns = now_ns,
		.state = w->binding - 1,
	};

	/* fails only if the connection was forgotten meanwhile */
	bpf_map_update_elem(&bindings, &w->flow, &b, BPF_EXIST);
}

/* A connection that begins with the ports of a former one does not go by that one's name, on any CPU. */
static __always_inline void unbind(struct work *w, __u32 *epoch)
{
	if (w->has_flow && begins(&w->packet) && !bpf_map_delete_elem(&bindings, &w->flow))
		__sync_fetch_and_add(epoch, 1);
}

/* Copies the names of the destination that are alive. */
static __always_inline void names_of_address(struct work *w, __u64 now_ns)
{
	struct name_scratch *scratch = at(&name_scratch, 0);
	struct egate_learned *l;
	__u32 count = 0;

	l = bpf_map_lookup_elem(&learned, &w->packet.dst);
	if (!l || !scratch)
		return;
	/* A writer may be at work: each field is whole, and whatever they are together, they are of names of this address. */
	__builtin_memcpy(scratch->learned.slots, l->slots, sizeof(l->slots));
	if (!is_of(l, &w->packet.dst))
		return;
	for (int i = 0; i < EGATE_NAME_SLOTS; i++) {
		const struct egate_name_slot *s = &scratch->learned.slots[i];

		if (!s->name || s->expires_ns <= now_ns)
			continue;
		w->names[count & (EGATE_NAME_SLOTS - 1)] = *s;
		if (s->expires_ns < w->named_until_ns)
			w->named_until_ns = s->expires_ns;
		count++;
	}
	w->name_count = count;
}

/* Lets the destination remember the classes that were found for this policy. */
static __always_inline void keep_classes(struct work *w)
{
	struct egate_learned *l = bpf_map_lookup_elem(&learned, &w->packet.dst);

	if (!l || !lock(l))
		return;
	for (int i = 0; i < EGATE_NAME_SLOTS && is_of(l, &w->packet.dst); i++) {
#pragma unroll
		for (int j = 0; j < EGATE_NAME_SLOTS; j++)
			if (l->slots[j].name && l->slots[j].name == w->names[i].name)
				l->slots[j].class_of = w->names[i].class_of;
	}
	unlock(l);
}

/* Puts the rows of the packet's names where the match finds them. */
static __always_inline void name_rows(struct work *w)
{
	const volatile struct egate_chain *c = &config.chain[EGATE_EGRESS];
	__u32 base = c->vectors[EGATE_DIM_NAME];

	for (int i = 0; i < EGATE_NAME_SLOTS; i++) {
		__u32 class = w->names[i].class_of & 0xffff;

		w->name_rows[i] = base + class * c->strides[EGATE_DIM_NAME];
	}
	w->rows[EGATE_DIM_NAME] = w->name_count ? w->name_rows[0] : base;
}

/*
 * Finds the names of an egress packet and their rows. A global function, as
 * parse is.
 */
__noinline int names_of(struct __sk_buff *skb)
{
	struct work *w = at(&work, 0);
	__u64 now_ns = bpf_ktime_get_coarse_ns();
	__u32 *epoch;
	int stale = 0;

	if (!config.names.in_use)
		return -1;
	asm volatile("" : "+r"(skb));
	if (!w)
		return -1;
	w->name_count = 0;
	w->binding = 0;
	w->name = 0;
	w->name_in_room = 0;
	w->named_until_ns = now_ns + CACHED_NS;
	w->has_flow = flow_key(&w->packet, EGATE_EGRESS, &w->flow);
	if (w->packet.have & EGATE_HAVE_DST) {
		epoch = name_epoch(&w->packet.dst);
		if (epoch)
			unbind(w, epoch);
		w->name_epoch = epoch ? *(volatile __u32 *)epoch : 0;
		if (binding_of(w, now_ns))
			w->name_count = 1;
		else
			names_of_address(w, now_ns);
	}
	for (__u32 i = 0; i < EGATE_NAME_SLOTS && i < w->name_count; i++) {
		__u32 class;

		if (w->names[i].class_of >> 32 == config.generation)
			continue;
		class = class_by_text(w->names[i].name);
		w->names[i].class_of = class_of(class);
		stale = 1;
	}
	if (stale && w->binding)
		keep_class(w, now_ns);
	else if (stale)
		keep_classes(w);
	name_rows(w);
	return 0;
}

/* The first of the packet's names whose rules are the one that decided among. */
static __always_inline __u32 name_of_rule(const struct work *w)
{
	const volatile struct egate_chain *c = &config.chain[EGATE_EGRESS];
	__u32 rule = w->decision.rule, word = rule / 64 & 63;

	for (__u32 i = 0; i < EGATE_NAME_SLOTS && i < w->name_count; i++) {
		__u64 *summary = at(&vectors, w->name_rows[i]), *bits = summary;

		if (!summary)
			return 0;
		if (c->words > 1) {
			if (!(*summary >> word & 1))
				continue;
			bits = at(&vectors, w->name_rows[i] + 1 +
						    population(*summary & ((1ULL << word) - 1)));
			if (!bits)
				return 0;
		}
		if (*bits >> (rule & 63) & 1)
			return i;
	}
	return 0;
}

/* Binds the packet's connection to a name. */
static __always_inline void bind(struct work *w, const struct egate_name_slot *name, __u8 state)
{
	struct egate_name_totals *t = at(&name_totals, 0);
	struct egate_binding b = {
		.slot = *name,
		.seen_ns = bpf_ktime_get_coarse_ns(),
		.state = state,
	};

	if (bpf_map_update_elem(&bindings, &w->flow, &b, BPF_ANY)) {
		if (t)
			t->failed++;
		return;
	}
	if (t && !w->binding)
		t->bindings_new++;
	w->binding = 1 + state;
}

/* A packet of a verifying rule that may be of a connection to verify, but hides it. */
static __always_inline int hides_request(const struct packet *p, __u32 flags)
{
	if (!(flags & (EGATE_RULE_VERIFY | EGATE_RULE_VERIFY_ALL)))
		return 0;
	if (!(p->have & EGATE_HAVE_PROTO))
		return 1;
	return p->proto == IPPROTO_TCP && !(p->have & EGATE_HAVE_TRANSPORT);
}

static __always_inline int verifies(const struct packet *p, __u32 flags)
{
	if (p->proto != IPPROTO_TCP || !(p->have & EGATE_HAVE_TRANSPORT))
		return 0;
	if (flags & EGATE_RULE_VERIFY_ALL)
		return 1;
	return flags & EGATE_RULE_VERIFY && (p->selector == 443 || p->selector == 80);
}

static __always_inline int refuse(struct decision *d, __u8 action, __u8 reason)
{
	d->action = action;
	d->reason = reason;
	return NAMED_NO_CACHE;
}

/* Has the packet matched again with this name alone, or with none. unseen: as what began before anybody looked. */
static __always_inline int match_as(struct work *w, const struct egate_name_slot *name, int unseen)
{
	w->again = unseen ? MATCH_UNSEEN : MATCH_NAMED;
	if (!unseen)
		w->name = name->name;
	w->names[0] = *name;
	w->name_count = 1;
	name_rows(w);
	return NAMED_AGAIN;
}

/* Reads the connection's first request, of which the packet is a part. Returns enum named. */
static __always_inline int verify(struct __sk_buff *skb, struct work *w, __u32 flags)
{
	struct decision *d = &w->decision;
	struct room *r = at(&room, 0);
	struct egate_name_slot name = { .class_of = class_of(0) };
	int state;

	if (!r)
		return refuse(d, EGATE_DROP, EGATE_REASON_NAME_UNREADABLE);
	/* the receiver may take the urgent byte out, and read another request */
	if (w->packet.tcp_flags & TCP_URG)
		return refuse(d, EGATE_REJECT, EGATE_REASON_NAME_UNREADABLE);
	switch (read_stream(skb, EGATE_EGRESS)) {
	case STREAM_READ:
		break;
	case STREAM_OLD:
		return NAMED_NO_CACHE;
	case STREAM_UNKNOWN:
		/* it began here, and what it said is forgotten: there were too many at once */
		if (w->binding)
			return refuse(d, EGATE_REJECT, EGATE_REASON_NAME_UNREADABLE);
		/* its beginning was not seen: it has no name, and meets the rules that ask for none */
		__builtin_memset(r->reader, 0, sizeof(r->reader));
		return match_as(w, &name, 1);
	default:
		return refuse(d, EGATE_DROP, EGATE_REASON_NAME_UNREADABLE);
	}
	r->name.bytes = 0;
	state = read_request();
	if (state == REQUEST_MORE && r->length < EGATE_ROOM_BYTES) {
		if (leave_stream(skb, EGATE_EGRESS, 0))
			return refuse(d, EGATE_REJECT, EGATE_REASON_NAME_UNREADABLE);
		return NAMED_NO_CACHE;
	}
	if (state != REQUEST_NAMED && state != REQUEST_NAMELESS)
		return refuse(d, EGATE_REJECT, EGATE_REASON_NAME_UNREADABLE);
	if (flags & EGATE_RULE_ECH_DROP && request_has_ech(r))
		return refuse(d, EGATE_REJECT, EGATE_REASON_ECH);
	if (state == REQUEST_NAMED) {
		if (hash_name(1))
			return refuse(d, EGATE_REJECT, EGATE_REASON_NAME_MISMATCH);
		name.name = r->name.hash;
		name.class_of = class_of(r->name.class);
		w->name_in_room = 1;
	}
	return match_as(w, &name, 0);
}

/*
 * What becomes of an egress packet that a rule lets pass, beyond the rule's
 * action: see enum named. Sets the decision where the packet is not to pass.
 */
__noinline int named(struct __sk_buff *skb)
{
	const volatile struct egate_chain *c = &config.chain[EGATE_EGRESS];
	struct work *w = at(&work, 0);
	struct egate_name_slot *name;
	struct egate_rule *rule;
	struct packet *p;
	__u32 flags, offset, sequence;
	int outcome;

	if (!config.names.in_use)
		return NAMED_NO_CACHE;
	if (!w)
		return NAMED_NO_CACHE;
	p = &w->packet;
	rule = at(&rules, c->rules + w->decision.rule);
	if (!rule || !(rule->flags & EGATE_RULE_NAMED))
		return NAMED_CACHE;
	flags = rule->flags;
	name = &w->names[name_of_rule(w) & (EGATE_NAME_SLOTS - 1)];
	w->name = name->name;
	if (flags & EGATE_RULE_QUIC_DROP && p->proto == IPPROTO_UDP &&
	    p->have & EGATE_HAVE_TRANSPORT && p->selector == 443)
		return refuse(&w->decision, EGATE_REJECT, EGATE_REASON_QUIC);
	if (hides_request(p, flags))
		return refuse(&w->decision, EGATE_DROP, EGATE_REASON_NAME_UNREADABLE);
	if (!w->has_flow)
		return NAMED_CACHE;
	if (!verifies(p, flags)) {
		if (!w->binding)
			bind(w, name, EGATE_BOUND);
		return NAMED_CACHE;
	}
	/* bound without: by a policy before this one, which did not ask for it */
	if (w->binding == 1 + EGATE_VERIFIED || w->binding == 1 + EGATE_BOUND)
		return NAMED_CACHE;
	/* what later fragments carry would not be read */
	if (p->fragment != EGATE_NOT_FRAGMENT)
		return refuse(&w->decision, EGATE_DROP, EGATE_REASON_NAME_UNREADABLE);
	if (begins(p)) {
		/* TCP Fast Open: the client sends its request again without */
		if (payload_bytes(p, &offset))
			return refuse(&w->decision, EGATE_DROP, EGATE_REASON_NAME_UNREADABLE);
		if (tcp_sequence(skb, p, &sequence))
			return refuse(&w->decision, EGATE_DROP, EGATE_REASON_NAME_UNREADABLE);
		begin_stream(w, EGATE_EGRESS, sequence + 1);
	}
	if (!w->binding && begins(p))
		bind(w, name, EGATE_PENDING);
	if (!payload_bytes(p, &offset))
		return NAMED_NO_CACHE;
	outcome = verify(skb, w, flags);
	/* it passes all the same, and its next packet is not to be counted again */
	if (config.audit && w->decision.action != EGATE_ALLOW)
		bind(w, name, EGATE_BOUND);
	return outcome;
}

/*
 * The packet was matched again by the name in its request. If that lets it
 * pass, the connection goes by this name from now on.
 */
__noinline int named_again(struct __sk_buff *skb)
{
	const volatile struct egate_chain *c = &config.chain[EGATE_EGRESS];
	struct work *w = at(&work, 0);
	struct room *r = at(&room, 0);
	struct egate_rule *rule = 0;

	if (!config.names.in_use)
		return NAMED_NO_CACHE;
	asm volatile("" : "+r"(skb));
	if (!w || !r)
		return NAMED_NO_CACHE;
	if (w->decision.action != EGATE_ALLOW)
		return refuse(&w->decision, EGATE_REJECT,
			      w->again == MATCH_UNSEEN ? EGATE_REASON_NAME_UNREADABLE
						       : EGATE_REASON_NAME_MISMATCH);
	if (w->decision.rule != EGATE_NO_RULE)
		rule = at(&rules, c->rules + w->decision.rule);
	if (rule && rule->flags & EGATE_RULE_ECH_DROP && request_has_ech(r))
		return refuse(&w->decision, EGATE_REJECT, EGATE_REASON_ECH);
	if (w->again == MATCH_NAMED && r->name.class && w->name)
		remember_name(r);
	bind(w, &w->names[0], EGATE_VERIFIED);
	end_stream(w, EGATE_EGRESS);
	return NAMED_CACHE;
}

#endif
