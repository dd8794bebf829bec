/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What is known of a packet, and what was decided about it, by whom and why. */
#ifndef EGATE_PACKET_H
#define EGATE_PACKET_H

#include "abi.h"

struct packet {
	struct egate_addr src;
	struct egate_addr dst;
	__u32 fragment_id;
	__u32 l3;     /* offset of the IP header */
	__u32 l4;     /* offset of the transport header; 0 where it was not read */
	__u32 ip_end; /* offset of the first byte behind the IP packet */
	__u16 ether_type;
	__u16 selector;    /* destination port; ICMP: type << 8 | code */
	__u16 source_port; /* ICMP echo: the identifier */
	__u8 is_ip;
	__u8 control; /* a known link-control frame */
	__u8 have;    /* enum egate_have */
	__u8 family;
	__u8 hop_limit;
	__u8 proto;
	__u8 tcp_flags;
	__u8 tcp_header_words;
	__u8 fragment;
	__u8 problem; /* enum egate_reason; EGATE_REASON_RULE: none */
};

struct decision {
	__u32 rule;  /* index in its chain, or EGATE_NO_RULE */
	__u8 action; /* enum egate_action, never continue */
	__u8 reason; /* enum egate_reason */
};

#endif
