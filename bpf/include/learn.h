/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Which names an address has. An answer writes them, before the application
 * sees it; the first packet of a connection reads them.
 *
 * A name's class belongs to one policy. It is kept beside the policy's
 * generation, and a policy that meets another's looks the name's text up and
 * classifies it itself. So names outlive policies, and nobody else need care.
 */
#ifndef EGATE_LEARN_H
#define EGATE_LEARN_H

#include "flow.h"
#include "maps.h"
#include "names.h"

#define TTL_MIN_S 60    /* a name is looked up some time before it is used */
#define TTL_MAX_S 86400 /* RFC 8767, 4 bounds its caches likewise */

static __always_inline __u64 class_of(__u32 class)
{
	return (__u64)config.generation << 32 | class;
}

/* Addresses that are never another host's alone: whatever a name says, they open by address only. */
static __always_inline int is_special(const struct egate_addr *a)
{
	__u32 v4 = a->lo;

	if (is_v4(a))
		return v4 >> 24 == 0 || v4 >> 24 == 127 || v4 >> 16 == 0xa9fe || v4 >> 28 >= 14;
	if (a->hi == 0)
		return 1; /* ::, ::1, and forms that embed IPv4 addresses */
	return a->hi >> 56 == 0xff || a->hi >> 54 == 0xfe80 >> 6;
}

/* Where to put a name: its own slot, or a free one, or that of a name which the policy treats alike, or that which ends first. */
static __always_inline __u32 choose_slot(const struct egate_name_slot *slots, __u64 name,
					 __u64 class_of_name, __u64 now_ns, __u32 *rank)
{
	__u64 ends_ns = ~0ULL;
	__u32 best = 0;

	*rank = 0;
#pragma unroll
	for (int i = 0; i < EGATE_NAME_SLOTS; i++) {
		const struct egate_name_slot *s = &slots[i];
		__u32 r = 1;

		if (s->name == name)
			r = 4;
		else if (s->expires_ns <= now_ns)
			r = 3;
		else if (s->class_of == class_of_name)
			r = 2;
		if (r > *rank || (r == *rank && s->expires_ns < ends_ns)) {
			*rank = r;
			ends_ns = s->expires_ns;
			best = i;
		}
	}
	return best;
}

static __always_inline int is_of(const struct egate_learned *l, const struct egate_addr *a)
{
	const volatile struct egate_learned *now = l;

	return now->addr.hi == a->hi && now->addr.lo == a->lo;
}

/*
 * Programs run to their end without being interrupted by another on their CPU,
 * so the lock is free again after some hundred nanoseconds. 1: it is taken.
 */
#define LOCK_TRIES 256

static __always_inline int lock(struct egate_learned *l)
{
	for (int i = 0; i < LOCK_TRIES; i++)
		if (__sync_val_compare_and_swap(&l->lock, 0, 1) == 0)
			return 1;
	return 0;
}

static __always_inline void unlock(struct egate_learned *l)
{
	__sync_lock_test_and_set(&l->lock, 0);
}

enum put {
	PUT_LONGER, /* the address had the name already */
	PUT_NEW,
	PUT_DISPLACED, /* and it took another name's place */
	PUT_LOST,      /* the value is another address's now */
};

/* Gives a name to an address that has some. */
static __always_inline int put_name(struct egate_learned *l, const struct egate_addr *a,
				    const struct egate_name_slot *fresh, __u64 now_ns)
{
	struct egate_name_slot *slot;
	int put = PUT_NEW;
	__u32 rank, best;

	if (!lock(l))
		return PUT_LOST;
	if (!is_of(l, a)) {
		unlock(l);
		return PUT_LOST;
	}
	best = choose_slot(l->slots, fresh->name, fresh->class_of, now_ns, &rank);
	slot = &l->slots[best & (EGATE_NAME_SLOTS - 1)];
	if (rank <= 2)
		put = PUT_DISPLACED;
	if (rank == 4 && slot->expires_ns > now_ns && slot->class_of == fresh->class_of) {
		put = PUT_LONGER;
		/* an answer that lives shorter does not take back what an earlier one gave */
		if (slot->expires_ns < fresh->expires_ns)
			slot->expires_ns = fresh->expires_ns;
	} else {
		*slot = *fresh;
	}
	if (!is_of(l, a)) {
		slot->name = 0;
		slot->expires_ns = 0;
		put = PUT_LOST;
	}
	unlock(l);
	return put;
}

/*
 * Opens an address to the name that was asked for. 1, or 0 for an address that
 * no name opens, or -1 where the kernel refuses.
 */
__noinline int learn(__u64 hi, __u64 lo, __u32 ttl_s)
{
	struct egate_name_totals *t = at(&name_totals, 0);
	struct name_scratch *scratch = at(&name_scratch, 0);
	struct room *r = at(&room, 0);
	struct egate_name_slot *fresh;
	struct egate_learned *known;
	struct egate_addr *a;
	__u32 *epoch;
	__u64 now_ns;
	int put = PUT_LOST;

	if (!config.names.in_use || !t || !scratch || !r)
		return -1;
	/* the value for an address that has no name yet */
	__builtin_memset(&scratch->learned, 0, sizeof(scratch->learned));
	a = &scratch->learned.addr;
	a->hi = hi;
	a->lo = lo;
	if (is_special(a)) {
		t->addresses_special++;
		return 0;
	}
	epoch = name_epoch(a);
	if (!epoch)
		return -1;
	if (ttl_s < TTL_MIN_S)
		ttl_s = TTL_MIN_S;
	if (ttl_s > TTL_MAX_S)
		ttl_s = TTL_MAX_S;
	now_ns = bpf_ktime_get_coarse_ns();
	fresh = &scratch->learned.slots[0];
	fresh->name = r->asked;
	fresh->class_of = r->asked_class_of;
	fresh->expires_ns = now_ns + ttl_s * SECOND_NS;

	for (int tries = 0; tries < 3 && put == PUT_LOST; tries++) {
		known = bpf_map_lookup_elem(&learned, a);
		if (known) {
			put = put_name(known, a, fresh, now_ns);
			continue;
		}
		/* if it fails because another CPU was first, the value is there now */
		if (!bpf_map_update_elem(&learned, a, &scratch->learned, BPF_NOEXIST)) {
			t->addresses_new++;
			__sync_fetch_and_add(epoch, 1);
			return 1;
		}
	}
	if (put == PUT_LOST) {
		t->failed++;
		return -1;
	}
	t->addresses_prolonged++;
	if (put == PUT_DISPLACED)
		t->names_displaced++;
	/* where it only lives longer, what was cached just ends sooner than it could */
	if (put != PUT_LONGER)
		__sync_fetch_and_add(epoch, 1);
	return 1;
}

/* Keeps the text of the room's name, which is hashed. */
static __always_inline void remember_name(struct room *r)
{
	struct egate_name_totals *t = at(&name_totals, 0);
	struct name_scratch *scratch = at(&name_scratch, 0);
	__u64 hash = r->name.hash;
	struct egate_name *known;

	if (!t || !scratch)
		return;
	known = bpf_map_lookup_elem(&names, &hash);
	if (known) {
		known->seen_ns = bpf_ktime_get_coarse_ns();
		return;
	}
	__builtin_memset(&scratch->name, 0, sizeof(scratch->name) - EGATE_NAME_BYTES);
	scratch->name.seen_ns = bpf_ktime_get_coarse_ns();
	scratch->name.length = r->name.bytes;
	__builtin_memcpy(scratch->name.wire, r->name.wire, EGATE_NAME_BYTES);
	/* another CPU may be first */
	if (!bpf_map_update_elem(&names, &hash, &scratch->name, BPF_NOEXIST))
		t->names_new++;
	else if (!bpf_map_lookup_elem(&names, &hash))
		t->failed++;
}

#endif
