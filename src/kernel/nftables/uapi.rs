//! The kernel's numbers of nf_tables, each under the name that it has in the kernel's headers.
//!
//! The one table of them (linux/netfilter/nf_tables.h, linux/netfilter/nfnetlink.h, linux/netfilter.h). Owns no reading and no
//! meaning. Numbers of several bytes are in network byte order wherever they stand in an attribute.

// nfnetlink.h
pub(super) const NFNL_SUBSYS_NFTABLES: u16 = 10;
pub(super) const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
pub(super) const NFNL_MSG_BATCH_END: u16 = 0x11;
pub(super) const NFNLGRP_NFTABLES: u32 = 7;
/// `sizeof(nfgenmsg)`, in bytes: family, version and resource.
pub(super) const NFGEN_SIZE: usize = 4;

// netlink.h
pub(super) const NLMSG_ERROR: u16 = 2;
pub(super) const NLMSG_DONE: u16 = 3;
pub(super) const NLM_F_ACK_TLVS: u16 = 0x200;
pub(super) const NLMSGERR_ATTR_MSG: u16 = 1;
pub(super) const NLMSGERR_ATTR_OFFS: u16 = 2;
pub(super) const NLA_F_NESTED: u16 = 0x8000;

// Families (NFPROTO_*).
pub(super) const NFPROTO_UNSPEC: u8 = 0;
pub(super) const NFPROTO_INET: u8 = 1;
pub(super) const NFPROTO_IPV4: u8 = 2;
pub(super) const NFPROTO_ARP: u8 = 3;
pub(super) const NFPROTO_IPV6: u8 = 10;

// Messages (nf_tables_msg_types).
const MSG: u16 = NFNL_SUBSYS_NFTABLES << 8;
pub(super) const NFT_MSG_NEWTABLE: u16 = MSG;
pub(super) const NFT_MSG_GETTABLE: u16 = MSG | 1;
pub(super) const NFT_MSG_DELTABLE: u16 = MSG | 2;
pub(super) const NFT_MSG_NEWCHAIN: u16 = MSG | 3;
pub(super) const NFT_MSG_GETCHAIN: u16 = MSG | 4;
pub(super) const NFT_MSG_DELCHAIN: u16 = MSG | 5;
pub(super) const NFT_MSG_NEWRULE: u16 = MSG | 6;
pub(super) const NFT_MSG_GETRULE: u16 = MSG | 7;
pub(super) const NFT_MSG_DELRULE: u16 = MSG | 8;
pub(super) const NFT_MSG_NEWSET: u16 = MSG | 9;
pub(super) const NFT_MSG_GETSET: u16 = MSG | 10;
pub(super) const NFT_MSG_DELSET: u16 = MSG | 11;
pub(super) const NFT_MSG_NEWSETELEM: u16 = MSG | 12;
pub(super) const NFT_MSG_GETSETELEM: u16 = MSG | 13;
pub(super) const NFT_MSG_DELSETELEM: u16 = MSG | 14;
pub(super) const NFT_MSG_NEWGEN: u16 = MSG | 15;
pub(super) const NFT_MSG_GETGEN: u16 = MSG | 16;

pub(super) const NFTA_GEN_ID: u16 = 1;

/// One of a list of things that are all alike.
pub(super) const NFTA_LIST_ELEM: u16 = 1;

// Tables.
pub(super) const NFTA_TABLE_NAME: u16 = 1;
pub(super) const NFTA_TABLE_FLAGS: u16 = 2;
/// No chain of the table sees packets.
pub(super) const NFT_TABLE_F_DORMANT: u32 = 1;

// Chains.
pub(super) const NFTA_CHAIN_TABLE: u16 = 1;
pub(super) const NFTA_CHAIN_NAME: u16 = 3;
pub(super) const NFTA_CHAIN_HOOK: u16 = 4;
pub(super) const NFTA_CHAIN_POLICY: u16 = 5;
pub(super) const NFTA_CHAIN_TYPE: u16 = 7;
pub(super) const NFTA_HOOK_HOOKNUM: u16 = 1;
pub(super) const NFTA_HOOK_PRIORITY: u16 = 2;
pub(super) const NF_INET_PRE_ROUTING: u32 = 0;
pub(super) const NF_INET_LOCAL_IN: u32 = 1;
pub(super) const NF_INET_FORWARD: u32 = 2;
pub(super) const NF_INET_POST_ROUTING: u32 = 4;
pub(super) const NF_ARP_IN: u32 = 0;
pub(super) const NF_DROP: u32 = 0;
pub(super) const NF_ACCEPT: u32 = 1;

// Rules.
pub(super) const NFTA_RULE_TABLE: u16 = 1;
pub(super) const NFTA_RULE_CHAIN: u16 = 2;
pub(super) const NFTA_RULE_EXPRESSIONS: u16 = 4;

// Sets and maps.
pub(super) const NFTA_SET_TABLE: u16 = 1;
pub(super) const NFTA_SET_NAME: u16 = 2;
pub(super) const NFTA_SET_FLAGS: u16 = 3;
pub(super) const NFTA_SET_KEY_TYPE: u16 = 4;
pub(super) const NFTA_SET_KEY_LEN: u16 = 5;
pub(super) const NFTA_SET_DATA_TYPE: u16 = 6;
pub(super) const NFTA_SET_DATA_LEN: u16 = 7;
pub(super) const NFTA_SET_DESC: u16 = 9;
pub(super) const NFTA_SET_ID: u16 = 10;
pub(super) const NFTA_SET_TIMEOUT: u16 = 11;
pub(super) const NFTA_SET_USERDATA: u16 = 13;
pub(super) const NFTA_SET_EXPR: u16 = 17;
pub(super) const NFTA_SET_EXPRESSIONS: u16 = 18;
pub(super) const NFTA_SET_DESC_SIZE: u16 = 1;
pub(super) const NFTA_SET_DESC_CONCAT: u16 = 2;
pub(super) const NFTA_SET_FIELD_LEN: u16 = 1;
pub(super) const NFT_SET_ANONYMOUS: u32 = 0x1;
pub(super) const NFT_SET_INTERVAL: u32 = 0x4;
pub(super) const NFT_SET_MAP: u32 = 0x8;
pub(super) const NFT_SET_TIMEOUT: u32 = 0x10;
pub(super) const NFT_SET_EVAL: u32 = 0x20;
pub(super) const NFT_DATA_VERDICT: u32 = 0xffff_ff00;

// Elements.
pub(super) const NFTA_SET_ELEM_LIST_TABLE: u16 = 1;
pub(super) const NFTA_SET_ELEM_LIST_SET: u16 = 2;
pub(super) const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
pub(super) const NFTA_SET_ELEM_KEY: u16 = 1;
pub(super) const NFTA_SET_ELEM_DATA: u16 = 2;
pub(super) const NFTA_SET_ELEM_FLAGS: u16 = 3;
pub(super) const NFTA_SET_ELEM_USERDATA: u16 = 6;
pub(super) const NFTA_SET_ELEM_EXPR: u16 = 7;
pub(super) const NFTA_SET_ELEM_KEY_END: u16 = 10;
pub(super) const NFTA_SET_ELEM_EXPRESSIONS: u16 = 11;
pub(super) const NFT_SET_ELEM_INTERVAL_END: u32 = 1;
pub(super) const NFT_SET_ELEM_CATCHALL: u32 = 2;

// Values and verdicts.
pub(super) const NFTA_DATA_VALUE: u16 = 1;
pub(super) const NFTA_DATA_VERDICT: u16 = 2;
pub(super) const NFTA_VERDICT_CODE: u16 = 1;
pub(super) const NFTA_VERDICT_CHAIN: u16 = 2;
pub(super) const NFT_CONTINUE: u32 = -1i32 as u32;
pub(super) const NFT_JUMP: u32 = -3i32 as u32;
pub(super) const NFT_GOTO: u32 = -4i32 as u32;
pub(super) const NFT_RETURN: u32 = -5i32 as u32;

// Registers: 0 is the verdict, 1 to 4 have 16 bytes each, and the same bytes in words of 4 are 8 to 23.
pub(super) const NFT_REG_VERDICT: u32 = 0;
pub(super) const NFT_REG_1: u32 = 1;
pub(super) const NFT_REG32_00: u32 = 8;

// Expressions.
pub(super) const NFTA_EXPR_NAME: u16 = 1;
pub(super) const NFTA_EXPR_DATA: u16 = 2;

pub(super) const NFTA_META_DREG: u16 = 1;
pub(super) const NFTA_META_KEY: u16 = 2;
pub(super) const NFTA_META_SREG: u16 = 3;
pub(super) const NFT_META_PROTOCOL: u32 = 1;
pub(super) const NFT_META_MARK: u32 = 3;
pub(super) const NFT_META_IIF: u32 = 4;
pub(super) const NFT_META_OIF: u32 = 5;
pub(super) const NFT_META_IIFTYPE: u32 = 8;
pub(super) const NFT_META_OIFTYPE: u32 = 9;
pub(super) const NFT_META_PKTTYPE: u32 = 19;
pub(super) const NFT_META_IIFNAME: u32 = 6;
pub(super) const NFT_META_OIFNAME: u32 = 7;
pub(super) const NFT_META_NFPROTO: u32 = 15;
pub(super) const NFT_META_L4PROTO: u32 = 16;

pub(super) const NFTA_PAYLOAD_DREG: u16 = 1;
pub(super) const NFTA_PAYLOAD_BASE: u16 = 2;
pub(super) const NFTA_PAYLOAD_OFFSET: u16 = 3;
pub(super) const NFTA_PAYLOAD_LEN: u16 = 4;
pub(super) const NFT_PAYLOAD_NETWORK_HEADER: u32 = 1;
pub(super) const NFT_PAYLOAD_TRANSPORT_HEADER: u32 = 2;

pub(super) const NFTA_CT_DREG: u16 = 1;
pub(super) const NFTA_CT_KEY: u16 = 2;
pub(super) const NFTA_CT_DIRECTION: u16 = 3;
pub(super) const NFTA_CT_SREG: u16 = 4;
pub(super) const NFT_CT_STATE: u32 = 0;
pub(super) const NFT_CT_DIRECTION: u32 = 1;
pub(super) const NFT_CT_STATUS: u32 = 2;
pub(super) const NFT_CT_MARK: u32 = 3;
pub(super) const NFT_CT_PROTO_SRC: u32 = 11;
pub(super) const NFT_CT_SRC_IP: u32 = 19;
pub(super) const NFT_CT_SRC_IP6: u32 = 21;
pub(super) const IP_CT_DIR_ORIGINAL: u8 = 0;
pub(super) const IP_CT_DIR_REPLY: u8 = 1;

pub(super) const NFTA_CMP_SREG: u16 = 1;
pub(super) const NFTA_CMP_OP: u16 = 2;
pub(super) const NFTA_CMP_DATA: u16 = 3;
pub(super) const NFT_CMP_EQ: u32 = 0;
pub(super) const NFT_CMP_NEQ: u32 = 1;
pub(super) const NFT_CMP_LT: u32 = 2;
pub(super) const NFT_CMP_LTE: u32 = 3;
pub(super) const NFT_CMP_GT: u32 = 4;
pub(super) const NFT_CMP_GTE: u32 = 5;

pub(super) const NFTA_RANGE_SREG: u16 = 1;
pub(super) const NFTA_RANGE_OP: u16 = 2;
pub(super) const NFTA_RANGE_FROM_DATA: u16 = 3;
pub(super) const NFTA_RANGE_TO_DATA: u16 = 4;

pub(super) const NFTA_BYTEORDER_SREG: u16 = 1;
pub(super) const NFTA_BYTEORDER_DREG: u16 = 2;
pub(super) const NFTA_BYTEORDER_LEN: u16 = 4;
pub(super) const NFTA_BYTEORDER_SIZE: u16 = 5;

// What iptables brings with it: conditions and targets, whose numbers are the same.
pub(super) const NFTA_MATCH_NAME: u16 = 1;
pub(super) const NFTA_MATCH_REV: u16 = 2;
pub(super) const NFTA_MATCH_INFO: u16 = 3;
pub(super) const NFTA_TARGET_NAME: u16 = 1;

pub(super) const NFTA_BITWISE_SREG: u16 = 1;
pub(super) const NFTA_BITWISE_DREG: u16 = 2;
pub(super) const NFTA_BITWISE_LEN: u16 = 3;
pub(super) const NFTA_BITWISE_MASK: u16 = 4;
pub(super) const NFTA_BITWISE_XOR: u16 = 5;
pub(super) const NFTA_BITWISE_OP: u16 = 6;

pub(super) const NFTA_LOOKUP_SET: u16 = 1;
pub(super) const NFTA_LOOKUP_SREG: u16 = 2;
pub(super) const NFTA_LOOKUP_DREG: u16 = 3;
pub(super) const NFTA_LOOKUP_SET_ID: u16 = 4;
pub(super) const NFTA_LOOKUP_FLAGS: u16 = 5;
pub(super) const NFT_LOOKUP_F_INV: u32 = 1;

pub(super) const NFTA_DYNSET_SET_NAME: u16 = 1;
pub(super) const NFTA_DYNSET_SET_ID: u16 = 2;
pub(super) const NFTA_DYNSET_OP: u16 = 3;
pub(super) const NFTA_DYNSET_SREG_KEY: u16 = 4;
pub(super) const NFTA_DYNSET_TIMEOUT: u16 = 6;
pub(super) const NFTA_DYNSET_EXPR: u16 = 7;
pub(super) const NFTA_DYNSET_PAD: u16 = 8;
pub(super) const NFTA_DYNSET_FLAGS: u16 = 9;
pub(super) const NFTA_DYNSET_EXPRESSIONS: u16 = 10;
pub(super) const NFT_DYNSET_OP_ADD: u32 = 0;
pub(super) const NFT_DYNSET_OP_UPDATE: u32 = 1;

pub(super) const NFTA_IMMEDIATE_DREG: u16 = 1;
pub(super) const NFTA_IMMEDIATE_DATA: u16 = 2;

pub(super) const NFTA_COUNTER_BYTES: u16 = 1;
pub(super) const NFTA_COUNTER_PACKETS: u16 = 2;
pub(super) const NFTA_COUNTER_PAD: u16 = 3;

pub(super) const NFTA_LIMIT_RATE: u16 = 1;
pub(super) const NFTA_LIMIT_UNIT: u16 = 2;
pub(super) const NFTA_LIMIT_BURST: u16 = 3;
pub(super) const NFTA_LIMIT_TYPE: u16 = 4;
pub(super) const NFTA_LIMIT_FLAGS: u16 = 5;
pub(super) const NFTA_LIMIT_PAD: u16 = 6;
pub(super) const NFT_LIMIT_PKTS: u32 = 0;
pub(super) const NFT_LIMIT_F_INV: u32 = 1;

pub(super) const NFTA_LOG_PREFIX: u16 = 2;
pub(super) const NFTA_LOG_LEVEL: u16 = 5;
pub(super) const NFTA_LOG_FLAGS: u16 = 6;
/// What the kernel takes where nobody names a level: warnings.
pub(super) const NFT_LOGLEVEL_WARNING: u32 = 4;

pub(super) const NFTA_MASQ_FLAGS: u16 = 1;
