/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The answer to a rejected packet: the packet itself, turned round. TCP gets
 * RST (RFC 9293, 3.10.7), the rest ICMP or ICMPv6 "administratively prohibited"
 * (RFC 1812, 5.2.7.1; RFC 4443, 3.1). What RFC 1122, 3.2.2 and RFC 4443, 2.4
 * forbid to answer is dropped.
 *
 * An answer to an egress packet goes up the interface it was about to leave
 * by, one to an ingress packet goes back out, so it meets the other hook of
 * every gate there; on lo any answer meets both. It carries the gates' secret
 * in control words that survive the redirect, and is let through. Without the
 * secret a sender could forge the mark: parts of the control block come from
 * protocol headers.
 *
 * Where the packet's checksum was left to a device (CHECKSUM_PARTIAL), its
 * answer's will be too, and no helper undoes that: a device, or the kernel in
 * its place, will put the complement of the sum from the transport header on
 * where the TCP or UDP checksum was. So answers are written such that this puts
 * there what stands there: the bytes are the same whether it happens or not.
 * For that an answer has its transport header where the packet had it.
 */
#ifndef EGATE_ANSWER_H
#define EGATE_ANSWER_H

#include "count.h"
#include "maps.h"
#include "parse.h"
#include "resolve.h"

#define ANSWER_INTERVAL_NS 1000000ULL /* 1,000 a second, the kernel's own icmp_msgs_per_sec */
#define ANSWER_BURST 250
#define ANSWER_TTL 64
#define QUOTE_MAX                                                                                  \
	128 /* bytes of the packet that an ICMP error carries back: IP headers and 8 more */

#define LOOPBACK_IFINDEX 1 /* of lo, in every network namespace */

#define IP4_BYTES 20
#define IP4_MAX_BYTES 60
#define IP6_BYTES 40
#define ICMP_BYTES 8
#define TCP_BYTES 20
#define UDP_BYTES 8
#define REFUSAL_MAX                                                                                \
	288 /* UDP header, DNS header, a name, type and class, and what is behind them */

static __always_inline int is_own_answer(struct __sk_buff *skb, __u64 secret)
{
	return skb->cb[2] == (__u32)secret && skb->cb[3] == (__u32)(secret >> 32);
}

static __always_inline int is_answerable(struct __sk_buff *skb, const struct packet *p)
{
	__u8 type = p->selector >> 8, first_octet;
	__u8 mac;

	if ((p->have & (EGATE_HAVE_SRC | EGATE_HAVE_DST | EGATE_HAVE_PROTO)) !=
	    (EGATE_HAVE_SRC | EGATE_HAVE_DST | EGATE_HAVE_PROTO))
		return 0;
	if (p->fragment == EGATE_LATER_FRAGMENT || p->problem)
		return 0;
	if (p->l3 >= ETH_HLEN && (copy(skb, 0, &mac, 1) || mac & 1))
		return 0; /* link-layer broadcast or multicast */
	if (p->family == 4) {
		first_octet = p->dst.lo >> 24;
		if (first_octet >= 224 || first_octet == 0)
			return 0;
		first_octet = p->src.lo >> 24;
		if (first_octet >= 224 || first_octet == 0)
			return 0;
	} else {
		if (p->dst.hi >> 56 == 0xff || p->src.hi >> 56 == 0xff || !(p->src.hi | p->src.lo))
			return 0;
	}
	switch (p->proto) {
	case IPPROTO_TCP:
		return !(p->tcp_flags & TCP_RST);
	case IPPROTO_ICMP:
		return type == 0 || type == 8 || (type >= 13 && type <= 18);
	case IPPROTO_ICMPV6:
		return type >= 128 && type != 137;
	}
	return 1;
}

static __always_inline __u16 fold(__s64 sum)
{
	__u64 s = (__u32)sum;

	s = (s & 0xffff) + (s >> 16);
	s = (s & 0xffff) + (s >> 16);
	return ~s;
}

/* The sum of 16-bit words, in memory's byte order. */
static __always_inline __u16 folded(__s64 sum)
{
	return ~fold(sum);
}

static __always_inline void put_be32(__u8 *to, __u32 value)
{
	*(__be32 *)to = bpf_htonl(value);
}

static __always_inline void put_be16(__u8 *to, __u16 value)
{
	*(__be16 *)to = bpf_htons(value);
}

static __always_inline void put_addr(__u8 *to, const struct egate_addr *a)
{
	*(__be64 *)to = bpf_cpu_to_be64(a->hi);
	*(__be64 *)(to + 8) = bpf_cpu_to_be64(a->lo);
}

/*
 * The size of the answer's IP header: where it can be that of the packet's
 * headers, so that the transport header, and a checksum to fill in, stay in
 * their place.
 */
static __always_inline __u32 answer_header_bytes(const struct packet *p)
{
	__u32 bytes = p->l4 ? p->l4 - p->l3 : 0;

	if (p->family == 4)
		return bytes > IP4_BYTES && bytes <= IP4_MAX_BYTES
			       ? IP4_BYTES + ((bytes - IP4_BYTES) & 0x3c)
			       : IP4_BYTES;
	return bytes == IP6_BYTES + 8 ? IP6_BYTES + 8 : IP6_BYTES;
}

/* An IP header of ip_bytes from the packet's destination back to its source, filled up with options that do nothing. */
static __always_inline void put_ip(__u8 *to, const struct packet *p, __u8 proto, __u32 ip_bytes,
				   __u32 payload_bytes)
{
	if (p->family == 4) {
		__builtin_memset(to, 0, IP4_BYTES);
		__builtin_memset(to + IP4_BYTES, 1, IP4_MAX_BYTES - IP4_BYTES);
		to[0] = 0x40 | ip_bytes / 4;
		put_be16(to + 2, ip_bytes + payload_bytes);
		to[6] = 0x40; /* don't fragment */
		to[8] = ANSWER_TTL;
		to[9] = proto;
		put_be32(to + 12, p->dst.lo);
		put_be32(to + 16, p->src.lo);
		*(__u16 *)(to + 10) = fold(bpf_csum_diff(0, 0, (__be32 *)to, ip_bytes, 0));
		return;
	}
	put_be32(to, 0x60000000);
	put_be16(to + 4, ip_bytes - IP6_BYTES + payload_bytes);
	to[6] = proto;
	to[7] = ANSWER_TTL;
	put_addr(to + 8, &p->dst);
	put_addr(to + 24, &p->src);
	if (ip_bytes > IP6_BYTES) {
		to[6] = NEXT_DESTINATION;
		to[IP6_BYTES] = proto;
		to[IP6_BYTES + 1] = 0;
		to[IP6_BYTES + 2] = 1; /* PadN */
		to[IP6_BYTES + 3] = 4;
		put_be32(to + IP6_BYTES + 4, 0);
	}
}

/* The sum of the pseudo header of a transport checksum (RFC 9293, 3.1; RFC 8200, 8.1). */
static __always_inline __s64 pseudo_sum(const struct packet *p, __u8 proto, __u32 payload_bytes)
{
	/* an IPv4 address adds the same to the sum in its short form, so both families share the layout */
	__be32 words_be[10] = {};

	if (p->family == 4) {
		words_be[0] = bpf_htonl(p->src.lo);
		words_be[4] = bpf_htonl(p->dst.lo);
	} else {
		put_addr((__u8 *)&words_be[0], &p->src);
		put_addr((__u8 *)&words_be[4], &p->dst);
	}
	words_be[8] = bpf_htonl(payload_bytes);
	words_be[9] = bpf_htonl(proto);
	return bpf_csum_diff(0, 0, words_be, sizeof(words_be), 0);
}

/* Builds the RST in room; returns the size of the IP packet, 0 on failure. */
static __always_inline __u32 build_reset(struct __sk_buff *skb, const struct packet *p, __u8 *room)
{
	__u32 ip_bytes = answer_header_bytes(p);
	__u8 *tcp = room + ip_bytes;
	__u16 pseudo = folded(pseudo_sum(p, IPPROTO_TCP, TCP_BYTES));
	__be32 seq_ack_be[2];
	__u32 seq, ack, payload_bytes;

	if (copy(skb, p->l4 + 4, seq_ack_be, sizeof(seq_ack_be)))
		return 0;
	payload_bytes = p->ip_end - p->l4 - p->tcp_header_words * 4;
	seq = p->tcp_flags & TCP_ACK ? bpf_ntohl(seq_ack_be[1]) : 0;
	ack = bpf_ntohl(seq_ack_be[0]) + payload_bytes + !!(p->tcp_flags & TCP_SYN) +
	      !!(p->tcp_flags & TCP_FIN);

	put_ip(room, p, IPPROTO_TCP, ip_bytes, TCP_BYTES);
	__builtin_memset(tcp, 0, TCP_BYTES);
	put_be16(tcp, p->selector);
	put_be16(tcp + 2, p->source_port);
	put_be32(tcp + 4, seq);
	put_be32(tcp + 8, ack);
	tcp[12] = (TCP_BYTES / 4) << 4;
	tcp[13] = TCP_RST | TCP_ACK;
	/* the pseudo header's sum in place of the checksum, and a window, which means nothing in a reset, that makes it right */
	*(__u16 *)(tcp + 14) =
		fold(bpf_csum_diff(0, 0, (__be32 *)tcp, TCP_BYTES, 2 * (__u32)pseudo));
	*(__u16 *)(tcp + 16) = pseudo;
	return ip_bytes + TCP_BYTES;
}

/* Builds the ICMP error in room; returns the size of the IP packet, 0 on failure. */
static __always_inline __u32 build_error(struct __sk_buff *skb, const struct packet *p, __u8 *room)
{
	__u32 ip_bytes = answer_header_bytes(p);
	__u32 quote = p->ip_end - p->l3;
	__u32 wanted = (p->l4 ? p->l4 - p->l3 : ip_bytes) + 8;
	__u8 *icmp = room + ip_bytes;
	__s64 sum = 0;

	if (quote > wanted)
		quote = wanted;
	if (quote > QUOTE_MAX)
		quote = QUOTE_MAX;
	if (quote < IP4_BYTES)
		return 0;
	/* whole words, for the checksum; in a form that shows the verifier of 6.1 that it is not 0 */
	quote = IP4_BYTES + ((quote - IP4_BYTES) & 0x7c);
	put_ip(room, p, p->family == 4 ? IPPROTO_ICMP : IPPROTO_ICMPV6, ip_bytes,
	       ICMP_BYTES + quote);
	if (bpf_skb_load_bytes(skb, p->l3, icmp + ICMP_BYTES, quote))
		return 0;

	__builtin_memset(icmp, 0, ICMP_BYTES);
	if (p->family == 4) {
		icmp[0] = 3;
		icmp[1] = 13;
	} else {
		icmp[0] = 1;
		icmp[1] = 1;
		sum = pseudo_sum(p, IPPROTO_ICMPV6, ICMP_BYTES + quote);
		/* unused bytes, where the UDP checksum was; in ICMP, without a pseudo header, 0 is right */
		if (p->proto == IPPROTO_UDP)
			*(__u16 *)(icmp + 6) = folded(sum);
	}
	*(__u16 *)(icmp + 2) = fold(bpf_csum_diff(0, 0, (__be32 *)icmp, ICMP_BYTES + quote, sum));
	return ip_bytes + ICMP_BYTES + quote;
}

/*
 * Builds in room the answer to a DNS question that must not leave: the question
 * itself, with a response code (RFC 1035, 4.1.1). The bytes of the question are
 * in the DNS room. Returns the size of the IP packet, 0 on failure.
 *
 * Behind the UDP datagram, and outside of it by its length, stand two bytes
 * more: with them in the sum, a device that fills the checksum in, from what
 * stands in its place, puts there what stands there.
 */
static __always_inline __u32 build_refusal(struct __sk_buff *skb, const struct packet *p,
					   __u8 *answer, __u8 code)
{
	__u32 ip_bytes = answer_header_bytes(p);
	struct room *r = at(&room, 0);
	__u8 *udp = answer + ip_bytes;
	__u32 bytes, total, padded;
	__u16 data, pseudo;
	__be16 sum_be;

	if (!r || r->question_end < DNS_HEADER_BYTES ||
	    r->question_end > DNS_HEADER_BYTES + EGATE_NAME_BYTES + 4)
		return 0;
	bytes = UDP_BYTES + r->question_end;
	total = ((bytes + 1) & ~1U) + 2;
	put_ip(answer, p, IPPROTO_UDP, ip_bytes, total);

	__builtin_memset(udp, 0, REFUSAL_MAX);
	put_be16(udp, p->selector);
	put_be16(udp + 2, p->source_port);
	put_be16(udp + 4, bytes);
	/* what stands behind the question is overwritten with zeros below */
	__builtin_memcpy(udp + UDP_BYTES, r->bytes, DNS_HEADER_BYTES + EGATE_NAME_BYTES + 4);
	udp[UDP_BYTES + 2] =
		0x80 | (udp[UDP_BYTES + 2] & 0x79); /* a response, recursion desired as before */
	udp[UDP_BYTES + 3] = 0x80 | (udp[UDP_BYTES + 3] & 0x10) |
			     code;                   /* recursion available, checking as before */
	__builtin_memset(udp + UDP_BYTES + 6, 0, 6); /* no records */
	for (int i = 0; i < 4; i++) {
		__u32 behind = bytes + i;

		asm volatile("%0 &= 0x1ff" : "+r"(behind));
		if (behind < REFUSAL_MAX)
			udp[behind] = 0;
	}
	padded = UDP_BYTES + ((bytes - UDP_BYTES + 3) & 0x1fc);
	if (padded > REFUSAL_MAX)
		return 0;
	pseudo = folded(pseudo_sum(p, IPPROTO_UDP, bytes));
	data = folded(bpf_csum_diff(0, 0, (__be32 *)udp, padded, 0));
	sum_be = fold((__u32)pseudo + data);
	*(__u16 *)(udp + 6) = sum_be ? sum_be : 0xffff;
	bytes = total - 2;
	asm volatile("%0 &= 0x1fe" : "+r"(bytes));
	if (bytes < REFUSAL_MAX)
		*(__u16 *)(udp + bytes) = folded(2 * (__u32)pseudo + data);
	return ip_bytes + total;
}

/*
 * Turns the packet into its own answer and sends it back: a DNS response with
 * code refusal - 1, or if refusal is 0 an answer of TCP or ICMP. Returns what
 * the program must return, or a negative number where the kernel refuses.
 */
static __always_inline int send_answer(struct __sk_buff *skb, const struct packet *p,
				       __u32 direction, __u64 secret, __u8 refusal)
{
	struct egate_answer_room *room = at(&answer_room, 0);
	__u8 macs[12], swapped[12];
	__u32 bytes, size;

	if (!room)
		return -1;
	if (refusal)
		bytes = build_refusal(skb, p, room->bytes, (refusal - 1) & 15);
	else
		bytes = p->proto == IPPROTO_TCP ? build_reset(skb, p, room->bytes)
						: build_error(skb, p, room->bytes);
	if (!bytes)
		return -1;

	/*
	 * The kernel does not let an skb end before its transport header, or
	 * before the checksum it was to fill in. What stands behind the IP
	 * packet then is padding.
	 */
	size = p->l3 + bytes;
	if (p->l4 && size < p->l4 + TCP_BYTES)
		size = p->l4 + TCP_BYTES;
	if (bpf_skb_change_tail(skb, size, 0))
		return -1;
	if (bytes < 40 || bytes > sizeof(room->bytes))
		return -1;
	if (bpf_skb_store_bytes(skb, p->l3, room->bytes, bytes, BPF_F_INVALIDATE_HASH))
		return -1;
	if (p->l3 >= ETH_HLEN) {
		if (bpf_skb_load_bytes(skb, 0, macs, sizeof(macs)))
			return -1;
		__builtin_memcpy(swapped, macs + 6, 6);
		__builtin_memcpy(swapped + 6, macs, 6);
		if (bpf_skb_store_bytes(skb, 0, swapped, sizeof(swapped), 0))
			return -1;
	}
	skb->cb[2] = (__u32)secret;
	skb->cb[3] = (__u32)(secret >> 32);
	/*
	 * IPv4 takes for forged what comes in from an address of the host's own
	 * (ip_route_input_slow()), unless it has its route, and a redirect into an
	 * interface takes that away. What leaves lo keeps it and comes in again.
	 */
	if (skb->ifindex == LOOPBACK_IFINDEX)
		return bpf_redirect(LOOPBACK_IFINDEX, 0);
	return bpf_redirect(skb->ifindex, direction == EGATE_EGRESS ? BPF_F_INGRESS : 0);
}

/* 1 if an answer may be sent now. */
static __always_inline int may_answer(void)
{
	__u64 *arrival_ns = at(&answer_time, 0);

	return arrival_ns &&
	       take_token(arrival_ns, bpf_ktime_get_ns(), ANSWER_INTERVAL_NS, ANSWER_BURST);
}

#endif
