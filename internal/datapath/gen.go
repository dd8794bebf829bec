package datapath

// The BPF objects and Go's view of bpf/include/abi.h. The objects are
// committed, so that Go alone builds egate; making them anew takes clang 19
// and the headers of libbpf. They are the same bytes wherever they are made:
// of <asm/types.h>, the one header that differs between machines, both Debian
// locations are named and the missing one is skipped.

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -no-global-types -type egate_limit -type egate_direction -type egate_action -type egate_reason -type egate_link -type egate_have -type egate_rule_flag -type egate_resolver -type egate_dns_outcome -type egate_binding_state -type egate_addr -type egate_addr_table -type egate_selector_table -type egate_chain -type egate_policy_config -type egate_index -type egate_line_kind -type egate_line -type egate_quad -type egate_proto -type egate_rule -type egate_iface -type egate_rule_counter -type egate_iface_counter -type egate_proto_counter -type egate_reason_counter -type egate_totals -type egate_flow_key -type egate_flow -type egate_fragment_key -type egate_event -type egate_names_config -type egate_domain -type egate_name_slot -type egate_learned -type egate_name -type egate_question_key -type egate_question -type egate_binding -type egate_stream -type egate_name_totals -type egate_unread -type egate_named_event abi ../../bpf/abi.bpf.c -- -O2 -g -Wall -Werror -mcpu=v3 -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -no-global-types dispatch ../../bpf/dispatch.bpf.c -- -O2 -g -Wall -Werror -mcpu=v3 -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -no-global-types policy ../../bpf/policy.bpf.c -- -O2 -g -Wall -Werror -mcpu=v3 -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu
