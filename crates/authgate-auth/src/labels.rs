//! The label values of everything that can keep a credential from being evaluated: its name in logs and metrics, and its text for the
//! reference.

use authgate_core::label_value::LabelValue;

authgate_core::table! {
    /// Failed look-ups in a store.
    pub static STORES: LabelValue;

    STORE_UNREACHABLE = LabelValue::new("store_unreachable", "There is no connection to the store, or its file cannot be read.")
        .status("503")
        .action("Look whether the server runs, and whether its address, port and firewall are right: `authgate check --online`.");
    STORE_TIMEOUT = LabelValue::new("store_timeout", "The store did not answer within its `timeout`.")
        .status("503")
        .action("Look at the load of the store and at the network: `authgate_store_lookup_duration_seconds`.");
    STORE_REPLY_CUT = LabelValue::new("store_reply_cut", "The gateway has tried several connections, and each ended before the whole answer had arrived.")
        .status("503")
        .action("Look whether the store restarts, or whether a proxy between them closes connections.");
    STORE_LOADING = LabelValue::new("store_loading", "Redis answers LOADING: it reads its records from disk or from its primary.")
        .status("503")
        .action("Wait until it has read them; `INFO persistence` shows the progress.");
    STORE_MASTER_DOWN = LabelValue::new("store_master_down", "Redis answers MASTERDOWN: a replica has lost its primary.")
        .status("503")
        .action("Restore the primary, or let Sentinel promote a replica.");
    STORE_CLUSTER_DOWN = LabelValue::new("store_cluster_down", "Redis answers CLUSTERDOWN: no primary has the slot of the key.")
        .status("503")
        .action("`redis-cli cluster info` shows the slots. Restore the primary, or promote its replica.");
    STORE_READ_ONLY = LabelValue::new("store_read_only", "Redis answers READONLY: a write was sent to a replica.")
        .status("503")
        .action("The address leads to a replica. Use the primary, or `mode = \"sentinel\"`.");
    STORE_NO_AUTH = LabelValue::new("store_no_auth", "Redis answers NOAUTH: it asks for a password, and none is configured.")
        .status("503")
        .action("Set `username` and `password` of the store.");
    STORE_WRONG_PASSWORD = LabelValue::new("store_wrong_password", "Redis answers WRONGPASS: it does not accept the user and the password.")
        .status("503")
        .action("Compare `username` and `password` with the ACL of Redis.");
    STORE_NO_PERMISSION = LabelValue::new("store_no_permission", "Redis answers NOPERM: its user lacks a right.")
        .status("503")
        .action("`reason` names the command. Grant it: `authgate check --online` names missing rights.");
    STORE_OUT_OF_MEMORY = LabelValue::new("store_out_of_memory", "Redis answers OOM: it has reached `maxmemory`, and may not evict.")
        .status("503")
        .action("Raise `maxmemory`, or remove records of others from this Redis. `maxmemory-policy` must stay `noeviction`.");
    STORE_WRONG_TYPE = LabelValue::new("store_wrong_type", "Redis answers WRONGTYPE: a key has a value of another type.")
        .status("503")
        .action("Another program writes keys with the same `prefix`. Remove its key, and change its prefix.");
    STORE_TLS = LabelValue::new("store_tls", "One side does not accept the certificate of the other.")
        .status("503")
        .action("Look at `tls` of the store, and at the dates of both certificates.");
    STORE_UNEXPECTED_REPLY = LabelValue::new("store_unexpected_reply", "The store has answered something that the command never answers.")
        .status("503")
        .action("Another program than the store answers at this address, such as a proxy.");
    STORE_REFUSED = LabelValue::new("store_refused", "The store has answered another error. `reason` has the whole answer.")
        .status("503")
        .action("Look up the error in the documentation of the store.");
    STORE_LAYOUT = LabelValue::new(
        "store_layout",
        "The layout record forbids using the store: it is missing, has changed, or an import is not complete. `reason` says which.",
    )
    .status("503")
    .action("The store may have been flushed, or is another database. Restore its records, or run the import again.");
    STORE_BAD_RECORD = LabelValue::new("store_bad_record", "A record of the store is invalid. `reason` has the store and the problem.")
        .status("503")
        .action("Correct the record with `authgate user` or `authgate token`, or in the program that writes it.");
    STORE_BAD_SEAL = LabelValue::new("store_bad_seal", "A record does not have the seal of the store.")
        .status("503")
        .action("The record was changed without the seal key, or `seal` names another key. If neither is your work, another program writes to the store.");
}

authgate_core::table! {
    /// Missing keys of identity providers.
    pub static KEYS: LabelValue;

    KEYS_MISSING = LabelValue::new("keys_missing", "No fetch of the keys has succeeded since the start.")
        .status("503")
        .action("`/status.json` has the error of the last fetch (`key_sets`).");
    KEYS_TOO_OLD = LabelValue::new("keys_too_old", "No fetch has succeeded within `max_stale`.")
        .status("503")
        .action("`/status.json` has the error of the last fetch (`key_sets`). Restore the way to the provider.");
    KEYS_FETCH_FAILED = LabelValue::new("keys_fetch_failed", "The token has an unknown `kid`, and the last fetch has failed.")
        .status("503")
        .action("`/status.json` has the error of the last fetch (`key_sets`).");
    KEYS_TIMEOUT = LabelValue::new("keys_timeout", "The token has an unknown `kid`, and the fetch does not end within `jwks.timeout`.")
        .status("503")
        .action("The provider is slow. Look at the network between them.");
}

authgate_core::table! {
    /// Introspection endpoints that have not said whether a token is active.
    pub static INTROSPECTION: LabelValue;

    INTROSPECTION_UNREACHABLE = LabelValue::new("introspection_unreachable", "There is no connection to the endpoint, or it was lost.")
        .status("503")
        .action("Look whether the authorization server runs, and whether the way to it is open.");
    INTROSPECTION_TIMEOUT = LabelValue::new("introspection_timeout", "The endpoint did not answer within `timeout`.")
        .status("503")
        .action("Look at the load of the authorization server: `authgate_introspection_duration_seconds`.");
    INTROSPECTION_CLIENT = LabelValue::new("introspection_client", "The endpoint answers 401 or 403: it does not accept `client`.")
        .status("503")
        .action("Compare `client` with the registration at the authorization server.");
    INTROSPECTION_STATUS = LabelValue::new("introspection_status", "The endpoint answers with another status than 200.")
        .status("503")
        .action("`reason` has the status. Look at the log of the authorization server.");
    INTROSPECTION_ANSWER = LabelValue::new("introspection_answer", "The answer is not valid.")
        .status("503")
        .action("`reason` has the problem. Look whether the URL is that of the introspection endpoint.");
    INTROSPECTION_BUSY = LabelValue::new(
        "introspection_busy",
        "64 tokens are being introspected, and none was finished within `timeout`.",
    )
    .status("503")
    .action("The endpoint is too slow for the load. A longer `cache.ttl` asks it less often.");
    INTROSPECTION_DISCOVERY = LabelValue::new(
        "introspection_discovery",
        "The metadata of the issuer, which names the endpoint, cannot be used.",
    )
    .status("503")
    .action("`reason` has the error. `url` in place of `discovery` needs no metadata.");
}

authgate_core::table! {
    /// Limits of the evaluation itself.
    pub static EVALUATION: LabelValue;

    BUSY = LabelValue::new("busy", "Too many credentials wait to be checked.")
        .status("503")
        .action("The CPU is the bottleneck, often because of unknown JWTs. Add gateways or cores, and look for the clients in the log.");
    DPOP_REPLAY_FULL = LabelValue::new("dpop_replay_full", "The memory of used proofs is full.")
        .status("503")
        .action("Shorten `dpop_window`, or keep used proofs in Redis: `dpop_replay`.");
}

authgate_core::table! {
    /// The outcomes of fetches of keys.
    pub static FETCHES: LabelValue;

    FETCH_OK = LabelValue::new("ok", "The keys were fetched.");
    FETCH_CONNECT = LabelValue::new("connect", "There is no connection.").action("Look at the name, the port and the firewall.");
    FETCH_PROXY = LabelValue::new("proxy", "There is no connection through the proxy of `HTTPS_PROXY`.").action("Look at the proxy.");
    FETCH_TLS = LabelValue::new("tls", "TLS has failed, most often because the certificate is not trusted.")
        .action("Name the authority that signed it in `ca`.");
    FETCH_TIMEOUT = LabelValue::new("timeout", "There was no complete response within `timeout`.").action("The provider or the network is slow.");
    FETCH_CUT = LabelValue::new("cut", "The connection was lost before the end of the response.").action("Look at proxies between them.");
    FETCH_PROTOCOL = LabelValue::new("protocol", "The response is not valid HTTP.").action("Another program answers at this address.");
    FETCH_REDIRECT = LabelValue::new("redirect", "The response is a redirect, and redirects are not followed.")
        .action("Write the final URL.");
    FETCH_STATUS = LabelValue::new("status", "The status of the response is not 200.").action("Look at the URL, and at the log of the provider.");
    FETCH_COMPRESSED = LabelValue::new("compressed", "The response is compressed, which was not asked for.")
        .action("Switch compression off at the provider, or at the proxy in front of it.");
    FETCH_TOO_LARGE = LabelValue::new("too_large", "The response is longer than 1 MiB.").action("The URL is that of another document.");
    FETCH_SHUT_DOWN = LabelValue::new("shut_down", "The gateway was shutting down.");
    FETCH_DISCOVERY = LabelValue::new("discovery", "The metadata of the issuer cannot be used, or name no key set.")
        .action("Compare `discovery` with `issuer` in the metadata, or write `jwks.url`.");
    FETCH_SET = LabelValue::new("set", "The document has no key that can be used.")
        .action("`/status.json` says why each key is left out. Compare `algorithms` with those of the provider.");
    FETCH_PANICKED = LabelValue::new("panicked", "The fetch has failed because of a bug in the gateway.").action("Report it, with the line of the log.");
}

authgate_core::table! {
    /// The outcomes of introspections.
    pub static INTROSPECTED: LabelValue;

    ACTIVE = LabelValue::new("active", "The token is active.");
    INACTIVE = LabelValue::new("inactive", "The token is not active.");
    UNREACHABLE = LabelValue::new("unreachable", "As `introspection_unreachable`.");
    TIMEOUT = LabelValue::new("timeout", "As `introspection_timeout`.");
    CLIENT = LabelValue::new("client", "As `introspection_client`.");
    STATUS = LabelValue::new("status", "As `introspection_status`.");
    ANSWER = LabelValue::new("answer", "As `introspection_answer`.");
    ENDPOINT_BUSY = LabelValue::new("busy", "As `introspection_busy`.");
    DISCOVERY = LabelValue::new("discovery", "As `introspection_discovery`.");
}

authgate_core::table! {
    /// What a revocation names; a field of the log.
    pub static REVOCATION_KINDS: LabelValue;

    KIND_TOKEN = LabelValue::new("token", "An opaque token.");
    KIND_JTI = LabelValue::new("jti", "A JWT or an introspected token, by its id.");
    KIND_USER = LabelValue::new("user", "All credentials that were issued to a user until a time.");
    KIND_KID = LabelValue::new("kid", "A key that verifies JWTs.");
}
