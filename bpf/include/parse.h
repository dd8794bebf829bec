/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * One reader for both families. What it reads and where it stops is written
 * down in internal/packet, whose Go twin tests hold it to.
 *
 * Headers are read in place where they lie in the skb's linear part; the rest
 * is copied, one by one. Pulling them into the linear part would cost more: TCP
 * keeps a clone of what it sends, so the kernel would copy the skb's head.
 */
#ifndef EGATE_PARSE_H
#define EGATE_PARSE_H

#include "abi.h"
#include "maps.h"
#include "packet.h"
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define ETHERTYPE_VLAN 0x8100
#define ETHERTYPE_QINQ 0x88a8
#define ETHERTYPE_QINQ_OLD 0x9100
#define LLC_STP 0x42
#define LLC_ISIS 0xfe

#define IP_MORE_FRAGMENTS 0x2000
#define IP_FRAGMENT_OFFSET 0x1fff
#define IPV4_LOOSE_SOURCE_ROUTE 131
#define IPV4_STRICT_SOURCE_ROUTE 137

#define NEXT_HOP_BY_HOP 0
#define NEXT_ROUTING 43
#define NEXT_FRAGMENT 44
#define NEXT_AUTHENTICATION 51
#define NEXT_DESTINATION 60
#define NEXT_MOBILITY 135
#define NEXT_HIP 139
#define NEXT_SHIM6 140

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10
#define TCP_URG 0x20

/* The first problem met is the one kept. */
static __always_inline void note(struct packet *p, __u8 problem)
{
	if (p->problem == EGATE_REASON_RULE)
		p->problem = problem;
}

/* Copies n bytes (a constant) at offset; in place if they are linear, else by helper. 0, or -1 where the skb is shorter. */
static __always_inline int copy(struct __sk_buff *skb, __u32 offset, void *to, __u32 n)
{
	void *data = (void *)(long)skb->data;
	void *end = (void *)(long)skb->data_end;

	if (offset > 0x7ff)
		return -1;
	/* the verifier of Linux 6.1 forgets the bound if the compiler puts offset aside */
	asm volatile("%0 &= 0x7ff" : "+r"(offset));
	if (data + offset + n <= end) {
		__builtin_memcpy(to, data + offset, n);
		return 0;
	}
	return bpf_skb_load_bytes(skb, offset, to, n);
}

static __always_inline int is_control(__u16 ether_type)
{
	switch (ether_type) {
	case 0x0806: /* ARP */
	case 0x8035: /* RARP */
	case 0x8809: /* slow protocols: LACP, OAM */
	case 0x888e: /* EAPOL */
	case 0x88c7: /* EAPOL pre-authentication */
	case 0x88cc: /* LLDP */
	case 0x88f7: /* PTP */
	case 0x8902: /* CFM */
		return 1;
	}
	return 0;
}

/* Reads up to the IP header. 1: there is one at p->l3, 0: there is none, or none that can be read. */
static __always_inline int parse_link(struct __sk_buff *skb, struct packet *p, __u8 link)
{
	__u32 offset = ETH_HLEN;
	__be16 type_be;

	if (link == EGATE_LINK_NONE) {
		__u8 nibble;

		p->l3 = 0;
		if (copy(skb, 0, &nibble, 1))
			return 0;
		p->family = nibble >> 4;
		if (p->family != 4 && p->family != 6) {
			p->family = 0;
			return 0;
		}
		p->is_ip = 1;
		return 1;
	}

	p->is_ip = 1; /* until its type says otherwise */
	if (copy(skb, ETH_HLEN - 2, &type_be, 2)) {
		note(p, EGATE_REASON_TRUNCATED);
		return 0;
	}
	__u16 type = bpf_ntohs(type_be);

#pragma unroll
	for (int i = 0; i <= EGATE_MAX_VLAN_TAGS; i++) {
		if (type != ETHERTYPE_VLAN && type != ETHERTYPE_QINQ && type != ETHERTYPE_QINQ_OLD)
			break;
		if (i == EGATE_MAX_VLAN_TAGS) {
			note(p, EGATE_REASON_VLAN_DEPTH);
			return 0;
		}
		if (copy(skb, offset + 2, &type_be, 2)) {
			note(p, EGATE_REASON_TRUNCATED);
			return 0;
		}
		type = bpf_ntohs(type_be);
		offset += 4;
	}

	p->ether_type = type;
	p->l3 = offset;
	if (type == ETH_P_IP) {
		p->family = 4;
		return 1;
	}
	if (type == ETH_P_IPV6) {
		p->family = 6;
		return 1;
	}
	p->is_ip = 0;
	p->control = is_control(type);
	if (type < ETH_P_802_3_MIN) {
		__u8 dsap;

		if (copy(skb, offset, &dsap, 1) == 0)
			p->control = dsap == LLC_STP || dsap == LLC_ISIS;
	}
	return 0;
}

/*
 * Walks the IPv4 options of a header of header_bytes, 24 to 60. -1: malformed,
 * 1: a source route is not used up. The cursor goes through memory, where the
 * verifier forgets it, or no two rounds of the walk would look alike.
 */
static __always_inline int parse_options(struct __sk_buff *skb, struct work *w, __u32 l3,
					 __u32 header_bytes)
{
	volatile __u32 *cursor = &w->cursor;
	__u32 bytes = 4 + ((header_bytes - 24) & 0x3c);
	int routed = 0;

	if (bytes > 40 || bpf_skb_load_bytes(skb, l3 + 20, w->options, bytes))
		return -1;
	*cursor = 0;
	for (int n = 0; n < 40; n++) {
		__u32 i = *cursor;
		__u8 type, length;

		if (i >= bytes)
			break;
		type = w->options[i & 63];
		if (type == 0)
			break;
		if (type == 1) {
			*cursor = i + 1;
			continue;
		}
		if (i + 2 > bytes)
			return -1;
		length = w->options[(i + 1) & 63];
		if (length < 2 || i + length > bytes)
			return -1;
		if (type == IPV4_LOOSE_SOURCE_ROUTE || type == IPV4_STRICT_SOURCE_ROUTE) {
			/* the pointer behind type and length counts from 1; past the length the route is used up */
			if (length < 3)
				return -1;
			if (w->options[(i + 2) & 63] <= length)
				routed = 1;
		}
		*cursor = i + length;
	}
	return routed;
}

static __always_inline struct egate_addr v4_mapped(__be32 addr_be)
{
	struct egate_addr a = { 0, 0xffff00000000ULL | bpf_ntohl(addr_be) };

	return a;
}

static __always_inline int is_v4(const struct egate_addr *a)
{
	return a->hi == 0 && a->lo >> 32 == 0xffff;
}

static __always_inline struct egate_addr v6_addr(const __be64 *words_be)
{
	struct egate_addr a = { bpf_be64_to_cpu(words_be[0]), bpf_be64_to_cpu(words_be[1]) };

	return a;
}

/* The offset behind an IP packet whose length field says length (0 in a GSO packet: up to the skb's end); 0 if it contradicts the skb. */
static __always_inline __u32 ip_end(struct __sk_buff *skb, __u32 l3, __u32 field, __u32 length)
{
	if (field == 0 && skb->gso_size)
		return skb->len;
	if (l3 + length > skb->len)
		return 0;
	return l3 + length;
}

static __always_inline int is_extension(__u8 next)
{
	switch (next) {
	case NEXT_HOP_BY_HOP:
	case NEXT_ROUTING:
	case NEXT_FRAGMENT:
	case NEXT_AUTHENTICATION:
	case NEXT_DESTINATION:
	case NEXT_MOBILITY:
	case NEXT_HIP:
	case NEXT_SHIM6:
		return 1;
	}
	return 0;
}

/*
 * Walks the extension headers from the first one, of kind next. The offset of
 * the transport header, or 0 where there is none to read. In IPv4 only AH is in
 * use; a packet with another of these numbers is read the same way, so that a
 * rule means the same for both families.
 */
static __always_inline __u32 parse_extensions(struct __sk_buff *skb, struct work *w, __u8 next,
					      __u32 transport)
{
	struct packet *p = &w->packet;
	volatile __u32 *cursor = &w->cursor; /* volatile: as in parse_options */

	*cursor = transport;
	for (int i = 0; i < EGATE_MAX_EXTENSION_HEADERS && is_extension(next); i++) {
		struct {
			__u8 next, length;
			union {
				struct {
					__u8 type, segments_left;
				} routing;
				__be16 offset_more_be;
			};
			__be32 id_be;
		} x;
		__u32 offset = *cursor, bytes;

		if (offset + sizeof(x) > p->ip_end ||
		    offset - p->l3 + sizeof(x) > EGATE_MAX_HEADER_BYTES ||
		    copy(skb, offset, &x, sizeof(x))) {
			note(p, EGATE_REASON_TRUNCATED);
			return 0;
		}
		if (next == NEXT_AUTHENTICATION)
			bytes = (x.length + 2) * 4;
		else if (next == NEXT_FRAGMENT)
			bytes = sizeof(x);
		else
			bytes = (x.length + 1) * 8;
		if (offset + bytes > p->ip_end) {
			note(p, EGATE_REASON_TRUNCATED);
			return 0;
		}
		if (next == NEXT_ROUTING && x.routing.segments_left) {
			note(p, EGATE_REASON_SOURCE_ROUTE);
			p->have &= ~EGATE_HAVE_DST;
		}
		if (next == NEXT_FRAGMENT) {
			__u16 fragment = bpf_ntohs(x.offset_more_be);

			if (fragment & ~7) {
				p->fragment = EGATE_LATER_FRAGMENT;
				p->fragment_id = bpf_ntohl(x.id_be);
				if (!is_extension(x.next)) {
					p->proto = x.next;
					p->have |= EGATE_HAVE_PROTO;
				}
				return 0;
			}
			if (fragment & 1) {
				p->fragment = EGATE_FIRST_FRAGMENT;
				p->fragment_id = bpf_ntohl(x.id_be);
			}
		}
		next = x.next;
		*cursor = offset + bytes;
	}
	if (is_extension(next)) {
		note(p, EGATE_REASON_EXTENSION_DEPTH);
		return 0;
	}
	p->proto = next;
	p->have |= EGATE_HAVE_PROTO;
	return *cursor;
}

/* Returns the offset of the transport header, or 0 where there is none to read. */
static __always_inline __u32 parse_ipv4(struct __sk_buff *skb, struct work *w)
{
	struct packet *p = &w->packet;
	struct {
		__u8 version_ihl, tos;
		__be16 total_be, id_be, fragment_be;
		__u8 ttl, proto;
		__be16 checksum;
		__be32 src_be, dst_be;
	} h;
	__u32 header_bytes;
	int routed = 0;

	if (p->l3 + sizeof(h) > skb->len || copy(skb, p->l3, &h, sizeof(h))) {
		note(p, EGATE_REASON_TRUNCATED);
		return 0;
	}
	header_bytes = (h.version_ihl & 15) * 4;
	if (h.version_ihl >> 4 != 4 || header_bytes < sizeof(h)) {
		note(p, EGATE_REASON_BAD_IP_HEADER);
		return 0;
	}
	if (p->l3 + header_bytes > skb->len) {
		note(p, EGATE_REASON_TRUNCATED);
		return 0;
	}
	p->ip_end = ip_end(skb, p->l3, h.total_be, bpf_ntohs(h.total_be));
	if (p->ip_end < p->l3 + header_bytes) {
		note(p, EGATE_REASON_BAD_LENGTH);
		return 0;
	}
	if (header_bytes > sizeof(h)) {
		routed = parse_options(skb, w, p->l3, header_bytes);
		if (routed < 0) {
			note(p, EGATE_REASON_BAD_IP_HEADER);
			return 0;
		}
	}

	p->src = v4_mapped(h.src_be);
	p->dst = v4_mapped(h.dst_be);
	p->hop_limit = h.ttl;
	p->have = EGATE_HAVE_SRC;
	if (routed)
		note(p, EGATE_REASON_SOURCE_ROUTE);
	else
		p->have |= EGATE_HAVE_DST;

	__u16 fragment = bpf_ntohs(h.fragment_be);

	p->fragment_id = bpf_ntohs(h.id_be);
	if (fragment & IP_FRAGMENT_OFFSET) {
		p->fragment = EGATE_LATER_FRAGMENT;
		if (!is_extension(h.proto)) {
			p->proto = h.proto;
			p->have |= EGATE_HAVE_PROTO;
		}
		return 0;
	}
	if (fragment & IP_MORE_FRAGMENTS)
		p->fragment = EGATE_FIRST_FRAGMENT;
	else
		p->fragment_id = 0;
	return parse_extensions(skb, w, h.proto, p->l3 + header_bytes);
}

static __always_inline __u32 parse_ipv6(struct __sk_buff *skb, struct work *w)
{
	struct packet *p = &w->packet;
	struct {
		__be32 version_class_flow;
		__be16 payload_be;
		__u8 next, hop_limit;
		__be64 src_be[2], dst_be[2];
	} h;

	if (p->l3 + sizeof(h) > skb->len || copy(skb, p->l3, &h, sizeof(h))) {
		note(p, EGATE_REASON_TRUNCATED);
		return 0;
	}
	p->src = v6_addr(h.src_be);
	p->dst = v6_addr(h.dst_be);
	/* a v4-mapped address would meet the rules for IPv4; it never is on a wire */
	if ((h.version_class_flow & bpf_htonl(0xf0000000)) != bpf_htonl(0x60000000) ||
	    is_v4(&p->src) || is_v4(&p->dst)) {
		note(p, EGATE_REASON_BAD_IP_HEADER);
		return 0;
	}
	p->ip_end = ip_end(skb, p->l3, h.payload_be, sizeof(h) + bpf_ntohs(h.payload_be));
	if (!p->ip_end) {
		note(p, EGATE_REASON_BAD_LENGTH);
		return 0;
	}
	p->hop_limit = h.hop_limit;
	p->have = EGATE_HAVE_SRC | EGATE_HAVE_DST;

	return parse_extensions(skb, w, h.next, p->l3 + sizeof(h));
}

/* Reads the transport header at offset. */
static __always_inline void parse_transport(struct __sk_buff *skb, struct packet *p, __u32 offset)
{
	struct {
		__be16 source_be, destination_be;
		union {
			__be16 udp_length_be;
			__be16 icmp_id_be;
			__be32 sequence_be;
		};
	} h;
	__u32 need, have;

	switch (p->proto) {
	case IPPROTO_TCP:
		need = 20;
		break;
	case IPPROTO_SCTP:
		need = 12;
		break;
	case IPPROTO_UDP:
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		need = 8;
		break;
	default:
		return;
	}
	if (offset + need > p->ip_end || offset - p->l3 + need > EGATE_MAX_HEADER_BYTES ||
	    copy(skb, offset, &h, sizeof(h))) {
		note(p, EGATE_REASON_TRUNCATED);
		return;
	}
	have = p->ip_end - offset;

	switch (p->proto) {
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6: {
		/* type and code lie where the source port does */
		__u8 type = bpf_ntohs(h.source_be) >> 8;

		p->selector = bpf_ntohs(h.source_be);
		if (p->proto == IPPROTO_ICMP ? type == 8 || type == 0 : type == 128 || type == 129)
			p->source_port = bpf_ntohs(h.icmp_id_be);
		break;
	}
	case IPPROTO_TCP: {
		__u8 words_flags[2];

		if (copy(skb, offset + 12, words_flags, 2)) {
			note(p, EGATE_REASON_TRUNCATED);
			return;
		}
		p->tcp_header_words = words_flags[0] >> 4;
		if (p->tcp_header_words < 5 || p->tcp_header_words * 4 > have) {
			note(p, EGATE_REASON_BAD_TRANSPORT);
			return;
		}
		p->tcp_flags = words_flags[1];
		goto ports;
	}
	case IPPROTO_UDP: {
		__u16 length = bpf_ntohs(h.udp_length_be);

		if (length < 8 ||
		    (length > have && p->fragment == EGATE_NOT_FRAGMENT && !skb->gso_size)) {
			note(p, EGATE_REASON_BAD_TRANSPORT);
			return;
		}
	}
	/* fall through */
	default:
ports:
		p->source_port = bpf_ntohs(h.source_be);
		p->selector = bpf_ntohs(h.destination_be);
	}
	p->l4 = offset;
	p->have |= EGATE_HAVE_TRANSPORT;
}

/*
 * Fills the packet of the work record. A global function: the verifier follows
 * it once by itself, and both directions share its code. 0, or -1 without a
 * record.
 */
__noinline int parse(struct __sk_buff *skb, __u32 link)
{
	struct work *w = at(&work, 0);
	struct packet *p;
	__u32 offset;

	if (!w)
		return -1;
	p = &w->packet;
	__builtin_memset(p, 0, sizeof(*p));
	if (!parse_link(skb, p, link))
		return 0;
	offset = p->family == 4 ? parse_ipv4(skb, w) : parse_ipv6(skb, w);
	if (offset)
		parse_transport(skb, p, offset);
	return 0;
}

#endif
