//! The metrics that are promised: each family with its type, its labels and what it says, in the order of the page.
//!
//! [docs/observe.md] lists the same, which a test compares, and the rules and the dashboard in `deploy/` use no other. A name that
//! has been released stays. Must not say how a number comes about.
//!
//! [docs/observe.md]: ../../../docs/observe.md

use crate::agent::metrics::exposition::{Family, Kind};

macro_rules! families {
    ($($name:ident $kind:ident $metric:literal [$($label:literal),*] $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $name: &Family =
                &Family { name: $metric, kind: Kind::$kind, labels: &[$($label),*], help: $help };
        )*

        /// All of them.
        pub const ALL: &[&Family] = &[$($name),*];
    };
}

families! {
    BUILD Gauge "flock_build_info" ["version"] "The agent's version; always 1";
    READY Gauge "flock_node_ready" [] "Whether an ADD could be served now, as STATUS says";
    CONFIG_VALID Gauge "flock_nodeconfig_valid" [] "Whether the newest NodeConfig is in force";
    CONFIG_GENERATION Gauge "flock_nodeconfig_generation" [] "The metadata.generation of the newest NodeConfig, with the API";
    CALLS Counter "flock_cni_requests_total" ["operation", "code"] "Calls of the plugin by their CNI error code, 0 for success";
    CALL_TIMES Histogram "flock_cni_request_duration_seconds" ["operation"] "How long calls took inside the agent";
    STEP_TIMES Histogram "flock_cni_step_duration_seconds" ["step"] "How long steps of calls took";
    IN_FLIGHT Gauge "flock_cni_requests_in_flight" [] "Calls in service";
    SLOTS Gauge "flock_cni_request_slots" [] "Most calls that are in service at once";
    ATTACHMENTS Gauge "flock_attachments" ["phase"] "Attachments on record; pending ones are being made";
    ADDRESSES Gauge "flock_ipam_addresses" ["family", "state"] "Addresses that pods hold, that rest after a pod, or that are free";
    CAPACITY Gauge "flock_ipam_capacity" ["family"] "Addresses of the node's range that pods may have";
    REFUSALS Counter "flock_ipam_failures_total" ["family", "reason"] "Calls that failed for want of an address";
    NOTES Gauge "flock_delete_notes" [] "Deletes that wait to be carried out, since no agent was there";
    REPLAYED Counter "flock_delete_notes_replayed_total" [] "Such deletes that were carried out";
    ENDED Counter "flock_leases_reclaimed_total" ["reason"] "Leases that ended without their DEL";
    MENDED Counter "flock_reconcile_repairs_total" ["kind"] "Things of flock's that somebody had changed, and that are put back";
    COMPARED Gauge "flock_reconcile_last_success_timestamp_seconds" [] "When record and kernel were last compared, or the agent began if they never were";
    ROUNDS Histogram "flock_reconcile_duration_seconds" [] "How long a comparison of record and kernel took";
    RECORDS Gauge "flock_store_records" [] "Leases in the record";
    SYNCS Histogram "flock_store_sync_duration_seconds" [] "How long the record waited for its disk";
    WATCH_UP Gauge "flock_kube_watch_up" ["resource"] "Whether all watches of this resource hear the API server";
    WATCH_HEARD Gauge "flock_kube_watch_last_event_timestamp_seconds" ["resource"] "When a watch of this resource last heard anything";
    ASKED Counter "flock_kube_requests_total" ["verb", "code"] "Requests to the API server by HTTP status, or error";
    EXPIRY Gauge "flock_kube_credential_expiry_timestamp_seconds" ["credential"] "When a credential for the API server ends";
    ENDING Gauge "flock_kube_credentials_near_end" [] "Credentials for the API server that end soon or have ended, and that nobody has renewed";
    ANNOUNCED Gauge "flock_routes_announced" [] "Prefixes that this node announces";
    REACHED Gauge "flock_routes_to_nodes" [] "Routes to pods of other nodes that this node keeps by itself";
    CONTESTS Gauge "flock_address_conflicts" [] "Addresses of this node's pods that another node has, too";
    ANNOUNCING Gauge "flock_node_announcing" [] "Whether the node announces itself; 0 after flock-agent withdraw";
    ROUTES_SET Gauge "flock_routes_in_force" [] "Whether the kernel has all routes that it should have";
    SESSIONS Gauge "flock_bgp_sessions" ["state"] "Sessions with the peers of spec.bgp";
    POLICY_PODS Gauge "flock_policy_pods" ["state"] "Pods that policies isolate, audit, or that are closed as theirs are not known";
    POLICIES Gauge "flock_policies" [] "Policies in force that select pods of this node";
    POLICY_FAULTS Gauge "flock_policies_not_understood" [] "Policies of this node's pods that are not understood in part";
    POLICY_SET Gauge "flock_policy_in_force" [] "Whether the packet filter has what it should have";
    RULES Gauge "flock_policy_rules" [] "Rules of flock's in the packet filter";
    BATCHES Counter "flock_policy_batches_total" [] "Changes of the packet filter";
    REVOCATIONS Counter "flock_policy_revocations_total" [] "Changes that took something away, after which connections are judged anew";
    LOGGED Counter "flock_log_lines_total" ["level"] "Lines of the log";
    HELD_BACK Counter "flock_log_held_back_total" ["level"] "Lines of the log that are counted and not written, of a storm";
    DROPPED Counter "flock_log_dropped_total" [] "Lines of the log that standard error did not take in time";
    CPU Counter "process_cpu_seconds_total" [] "Time of all processors that the agent has used";
    RESIDENT Gauge "process_resident_memory_bytes" [] "Memory that the agent has in use";
    BEGAN Gauge "process_start_time_seconds" [] "When the agent began";
    DESCRIPTORS Gauge "process_open_fds" [] "Descriptors that the agent has open";
    DESCRIPTORS_MAX Gauge "process_max_fds" [] "Descriptors that the agent may have open";
    THREADS Gauge "process_threads" [] "Threads of the agent";
}
