/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * From the text of a name to its class in the policy: hashed label by label
 * from the last on, with a look-up at each label, since the longest entry that
 * a name is at or below decides alone (see tables.NameTable).
 *
 * The hash is SipHash-1-3 (Aumasson and Bernstein, 2012) under the gate's
 * secret key; its twin, with the form of its input, is Hash in internal/domain.
 */
#ifndef EGATE_NAMES_H
#define EGATE_NAMES_H

#include "maps.h"

/* A counter that tells when what was cached of an address's names no longer holds. */
static __always_inline __u32 *name_epoch(const struct egate_addr *a)
{
	__u64 h = (a->hi ^ a->lo >> 7) * 0x9e3779b97f4a7c15ULL ^ a->lo * 0xbf58476d1ce4e5b9ULL;

	return at(&name_epochs, (h ^ h >> 31) & (EGATE_NAME_EPOCHS - 1));
}

struct sip {
	__u64 v0, v1, v2, v3;
};

static __always_inline __u64 rotate(__u64 x, int by)
{
	return x << by | x >> (64 - by);
}

static __always_inline void sip_round(struct sip *s)
{
	s->v0 += s->v1;
	s->v1 = rotate(s->v1, 13) ^ s->v0;
	s->v0 = rotate(s->v0, 32);
	s->v2 += s->v3;
	s->v3 = rotate(s->v3, 16) ^ s->v2;
	s->v0 += s->v3;
	s->v3 = rotate(s->v3, 21) ^ s->v0;
	s->v2 += s->v1;
	s->v1 = rotate(s->v1, 17) ^ s->v2;
	s->v2 = rotate(s->v2, 32);
}

/* Never 0, which stands for no name. */
static __always_inline __u64 sip_sum(struct sip s)
{
	__u64 sum;

	s.v2 ^= 0xff;
	sip_round(&s);
	sip_round(&s);
	sip_round(&s);
	sum = s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
	return sum ? sum : 1;
}

/* What hash_name works on; in the room, where the verifier does not follow values from round to round. */
struct hashing {
	struct sip sip;
	__u32 label;  /* the one in work, counted down */
	__u32 offset; /* in wire, of the word in work */
	__u32 left;   /* bytes of the label from there on, with its length byte */
	__u32 classify;
	__u32 found; /* class << 1 | may be asked for, of the longest entry so far */
};
_Static_assert(sizeof(struct hashing) <= sizeof(((struct room *)0)->hashing), "hashing fits");

static __always_inline void look_up_name(struct room *r, struct hashing *h, int whole)
{
	__u64 hash = sip_sum(h->sip);
	struct egate_domain *d;

	if (whole)
		r->name.hash = hash;
	if (!h->classify)
		return;
	d = bpf_map_lookup_elem(&domains, &hash);
	if (d && whole)
		h->found = d->exact << 1 | (d->ask_exact & 1);
	else if (d)
		h->found = d->below << 1 | (d->ask_below & 1);
}

/* Takes the next word in. 1: that was the last one. */
static __always_inline int hash_step(struct room *r, struct hashing *h)
{
	__u32 offset = h->offset;
	__u64 word;

	asm volatile("%0 &= 0xff" : "+r"(offset));
	word = *(__u64 *)(r->name.wire + offset);
	if (h->left < 8)
		word &= (1ULL << (h->left * 8 & 63)) - 1;
	h->sip.v3 ^= word;
	sip_round(&h->sip);
	h->sip.v0 ^= word;
	if (h->left > 8) {
		h->left -= 8;
		h->offset += 8;
		return 0;
	}
	if (h->label == 0) {
		look_up_name(r, h, 1);
		return 1;
	}
	/* no entry of the policy has more labels than deepest */
	if (r->name.labels - h->label <= config.names.deepest)
		look_up_name(r, h, 0);
	h->label--;
	h->offset = r->name.starts[h->label & 127];
	h->left = 1 + r->name.wire[h->offset & 0xff];
	return 0;
}

static long hash_steps(__u32 round, void *context)
{
	struct room *r = at(&room, 0);

	if (!r)
		return 1;
	for (int i = 0; i < 8; i++)
		if (hash_step(r, (struct hashing *)r->hashing))
			return 1;
	return 0;
}

/*
 * Hashes the room's name, and with classify finds its class, and whether it may
 * be asked for. 0, or -1 without a room.
 */
__noinline int hash_name(__u32 classify)
{
	struct room *r = at(&room, 0);
	struct hashing *h;

	if (!config.names.in_use)
		return -1;
	if (!r)
		return -1;
	h = (struct hashing *)r->hashing;
	h->sip.v0 = config.names.key[0] ^ 0x736f6d6570736575ULL;
	h->sip.v1 = config.names.key[1] ^ 0x646f72616e646f6dULL;
	h->sip.v2 = config.names.key[0] ^ 0x6c7967656e657261ULL;
	h->sip.v3 = config.names.key[1] ^ 0x7465646279746573ULL;
	h->classify = classify;
	h->found = 0;
	if (r->name.labels) {
		h->label = r->name.labels - 1;
		h->offset = r->name.starts[h->label & 127];
		h->left = 1 + r->name.wire[h->offset & 0xff];
		/* 255 bytes are at most 127 words: a label of one byte has one */
		bpf_loop(EGATE_NAME_LABELS / 8 + 1, hash_steps, 0, 0);
	} else {
		look_up_name(r, h, 1); /* the root */
	}
	r->name.class = h->found >> 1;
	r->name.ask = h->found & 1;
	return 0;
}

#endif
