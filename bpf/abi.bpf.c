// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Not a program, and never loaded: the compile unit from whose BTF Go's types
 * are generated, and in whose BTF a test finds the enums and limits of abi.h.
 */
#include "include/abi.h"

/* Macros leave no trace in BTF. */
enum egate_limit {
	EGATE_LIMIT_ABI_VERSION = EGATE_ABI_VERSION,
	EGATE_LIMIT_VLAN_TAGS = EGATE_MAX_VLAN_TAGS,
	EGATE_LIMIT_EXTENSION_HEADERS = EGATE_MAX_EXTENSION_HEADERS,
	EGATE_LIMIT_HEADER_BYTES = EGATE_MAX_HEADER_BYTES,
	EGATE_LIMIT_CONTINUE_RULES = EGATE_MAX_CONTINUE_RULES,
	EGATE_LIMIT_CACHE_PAGES = EGATE_CACHE_PAGES,
	EGATE_LIMIT_WORDS = EGATE_MAX_WORDS,
	EGATE_LIMIT_DEPTH = EGATE_MAX_DEPTH,
	EGATE_LIMIT_REASON_SLOTS = EGATE_REASON_SLOTS,
	EGATE_LIMIT_NO_RULE = EGATE_NO_RULE,
	EGATE_LIMIT_NO_ROW = EGATE_NO_ROW,
	EGATE_LIMIT_UNKNOWN_PROTOCOL = EGATE_UNKNOWN_PROTOCOL,
	EGATE_LIMIT_NAME_BYTES = EGATE_NAME_BYTES,
	EGATE_LIMIT_NAME_LABELS = EGATE_NAME_LABELS,
	EGATE_LIMIT_NAME_SLOTS = EGATE_NAME_SLOTS,
	EGATE_LIMIT_NAME_EPOCHS = EGATE_NAME_EPOCHS,
	EGATE_LIMIT_ROOM_BYTES = EGATE_ROOM_BYTES,
};

/* BTF holds the types that a global variable leads to. */
struct egate_abi {
	enum egate_direction direction;
	enum egate_action action;
	enum egate_reason reason;
	enum egate_link link;
	enum egate_have have;
	enum egate_fragment fragment;
	enum egate_dimension dimension;
	enum egate_rule_flag rule_flag;
	enum egate_resolver resolver;
	enum egate_dns_outcome dns_outcome;
	enum egate_binding_state binding_state;
	enum egate_limit limit;
	struct egate_policy_config config;
	struct egate_line line;
	enum egate_line_kind line_kind;
	struct egate_quad quad;
	struct egate_proto proto;
	struct egate_rule rule;
	struct egate_iface iface;
	struct egate_rule_counter rule_counter;
	struct egate_iface_counter iface_counter;
	struct egate_totals totals;
	struct egate_flow_key flow_key;
	struct egate_flow flow;
	struct egate_fragment_key fragment_key;
	struct egate_fragment_verdict fragment_verdict;
	struct egate_event event;
	struct egate_domain domain;
	struct egate_learned learned;
	struct egate_name name;
	struct egate_question_key question_key;
	struct egate_question question;
	struct egate_binding binding;
	struct egate_stream stream;
	struct egate_name_totals name_totals;
	struct egate_unread unread;
	struct egate_named_event named_event;
};
const struct egate_abi *egate_abi;
