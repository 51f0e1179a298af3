//! The label values of refused credentials: for each reason its name in logs and metrics, and its text for the reference.

use crate::label_value::LabelValue;

crate::table! {
    /// Opaque tokens, and headers that hold none.
    pub static TOKENS: LabelValue;

    TOKEN_MISSING = LabelValue::new("token_missing", "The header has the scheme, and no key after it.")
        .status("401")
        .action("The client has no key. Look for an empty variable in its settings.");
    TOKEN_HAS_SPACES = LabelValue::new("token_has_spaces", "More than one word follows the scheme.")
        .status("401")
        .action("The client must send `<scheme> <key>` without quotes, commas or line breaks.");
    TOKEN_HAS_INVALID_CHARACTERS = LabelValue::new("token_has_invalid_characters", "The key is not UTF-8.")
        .status("401")
        .action("The client sends other bytes than the key. Look for a wrong encoding of a file.");
    TOKEN_UNKNOWN = LabelValue::new(
        "token_unknown",
        "The store has no such token. Or the token is revoked or expired, or has no user; then `reason` says which.",
    )
    .status("401")
    .action("`authgate token show -` says what the store has. A sudden rise means that tokens are guessed, or that the store lost records.");
    TOKEN_USER_INACTIVE = LabelValue::new("token_user_inactive", "The user of the token is disabled.")
        .status("401")
        .action("`authgate user show` shows the user, `authgate user enable` enables it.");
    TOKEN_ATTRIBUTE_UNSENDABLE = LabelValue::new(
        "token_attribute_unsendable",
        "An attribute of `[identity]` cannot be sent in a header. `reason` has its name and the problem.",
    )
    .status("401")
    .action("Correct the attribute of the user, or take it out of `[identity]`.");
    BEARER_NOT_TWO_WORDS = LabelValue::new("bearer_not_two_words", "The header is not the scheme and one word.")
        .status("401")
        .action("The client must send `Bearer <token>`.");
}

crate::table! {
    /// JWTs.
    pub static JWTS: LabelValue;

    JWT_INVALID = LabelValue::new("jwt_invalid", "A check has failed. `reason` is one of the [checks](#checks-of-jwts).")
        .status("401")
        .action("`authgate jwt inspect` prints each check. If all clients are affected, compare keys, issuer and audience with the provider.");
    JWT_EXPIRED = LabelValue::new("jwt_expired", "`exp` has passed.")
        .status("401")
        .action("The client must get a new token. If tokens expire too early, compare the clocks; `leeway` allows for a difference.");
    JWT_REVOKED = LabelValue::new("jwt_revoked", "Its `jti`, its user or its key is revoked in `revocation`.")
        .status("401")
        .action("Intended. A new log-in gives a new token.");
    JWT_NO_EXPIRY = LabelValue::new("jwt_no_expiry", "The claim `exp` is missing.")
        .status("401")
        .action("The issuer must set `exp`.");
    JWT_NO_ID = LabelValue::new("jwt_no_id", "The claim `jti` is missing, which the profile requires.")
        .status("401")
        .action("The issuer must set `jti`, or `profile` must be another one.");
    JWT_NO_TYPE = LabelValue::new("jwt_no_type", "The claim with the token type is missing.")
        .status("401")
        .action("Tokens of SimpleJWT have it. For another issuer, choose another `profile`.");
    JWT_WRONG_TYPE = LabelValue::new("jwt_wrong_type", "The token type is not one of `token_types`, for example a refresh token.")
        .status("401")
        .action("The client must send the access token.");
    JWT_USER_UNNAMED = LabelValue::new(
        "jwt_user_unnamed",
        "The claim that names the user is missing, or is not valid in a header. `reason` has the claim and the problem.",
    )
    .status("401")
    .action("Compare `user_id_claim` with the claims of the issuer.");
    JWT_CLAIM_UNSENDABLE = LabelValue::new(
        "jwt_claim_unsendable",
        "A claim of `[identity]` cannot be sent in a header. `reason` has its name and the problem, such as `claims.role is an object`.",
    )
    .status("401")
    .action("Correct the claim at the issuer, or take it out of `[identity]`.");
    JWT_USER_NOT_FOUND = LabelValue::new("jwt_user_not_found", "The store of `users` does not have the user.")
        .status("401")
        .action("`authgate user show` shows users. Look whether the synchronization of users is late.");
    JWT_USER_INACTIVE = LabelValue::new("jwt_user_inactive", "The user is disabled.")
        .status("401")
        .action("`authgate user show` shows the user, `authgate user enable` enables it.");
    JWT_PASSWORD_CHANGED = LabelValue::new("jwt_password_changed", "The user has a new password since the token was issued.")
        .status("401")
        .action("Intended (`check_revoke_token`). A new log-in gives a new token.");
}

crate::table! {
    /// Introspected tokens.
    pub static INTROSPECTED: LabelValue;

    INTROSPECTED_INACTIVE = LabelValue::new(
        "introspected_inactive",
        "The endpoint says that the token is not active: it is unknown, expired or revoked. The endpoint does not say which.",
    )
    .status("401")
    .action("The client must get a new token. If all clients are affected, look whether the gateway asks the right authorization server.");
    INTROSPECTED_EXPIRED = LabelValue::new("introspected_expired", "`exp` of the answer has passed.")
        .status("401")
        .action("The client must get a new token.");
    INTROSPECTED_REVOKED = LabelValue::new("introspected_revoked", "Its `jti` or its user is revoked in `revocation`.")
        .status("401")
        .action("Intended. A new log-in gives a new token.");
    INTROSPECTED_INVALID = LabelValue::new(
        "introspected_invalid",
        "A check has failed. `reason` is `repeated`, `size` or `form` (the endpoint was not asked), `issued at`, `not before`, `expiry`, `issuer`, `audience` or `token id`; see the [checks](#checks-of-jwts).",
    )
    .status("401")
    .action("Compare `issuer` and `audience` with the answer of the endpoint.");
    INTROSPECTED_USER_UNNAMED = LabelValue::new(
        "introspected_user_unnamed",
        "The answer names no user. `reason` has the claim and the problem.",
    )
    .status("401")
    .action("Compare `user_id_claim` with the answer of the endpoint. Tokens of the client credentials grant often have no user.");
    INTROSPECTED_CLAIM_UNSENDABLE = LabelValue::new(
        "introspected_claim_unsendable",
        "A claim of `[identity]` cannot be sent in a header. `reason` has its name and the problem.",
    )
    .status("401")
    .action("Correct the claim at the authorization server, or take it out of `[identity]`.");
}

crate::table! {
    /// Tokens that are bound to a key or a certificate.
    pub static BOUND: LabelValue;

    CNF_INVALID = LabelValue::new("cnf_invalid", "The claim `cnf` is malformed, or has only methods that the gateway does not know.")
        .status("401")
        .action("The issuer must set `cnf.jkt` or `cnf.x5t#S256`.");
    DPOP_BOUND_AS_BEARER = LabelValue::new("dpop_bound_as_bearer", "The token is bound to a key, and the scheme is not `DPoP`.")
        .status("401")
        .action("The client must use the scheme `DPoP` and send a proof. Many of them at once can be stolen tokens.");
    DPOP_NOT_BOUND = LabelValue::new("dpop_not_bound", "The token is not bound, and the scheme is `DPoP` or `dpop = \"require\"`.")
        .status("401")
        .action("The client must request its token with a proof.");
    DPOP_SEVERAL_PROOFS = LabelValue::new("dpop_several_proofs", "The request has more than one field `DPoP`.")
        .status("400")
        .action("The client must send one proof.");
    DPOP_NO_PROOF = LabelValue::new("dpop_no_proof", "The token is bound to a key, and the request has no proof.")
        .status("401")
        .action("The client must send a proof in the field `DPoP`.");
    DPOP_PROOF_INVALID = LabelValue::new(
        "dpop_proof_invalid",
        "The proof is not valid for this request. `reason` is one of the [checks of proofs](#checks-of-proofs).",
    )
    .status("401")
    .action("For `htu`, look at `trusted_proxies` and the host that clients use. For `iat`, compare the clocks.");
    DPOP_OTHER_KEY = LabelValue::new("dpop_other_key", "The proof is made with another key than the one that the token is bound to.")
        .status("401")
        .action("The client has lost its key, or the token is stolen.");
    DPOP_REPLAYED = LabelValue::new("dpop_replayed", "The proof was used before.")
        .status("401")
        .action("The client must make a proof for each request, and for each repetition.");
    CERTIFICATE_NOT_BOUND = LabelValue::new(
        "certificate_not_bound",
        "The token is not bound to a certificate, and `certificate_bound = \"require\"`.",
    )
    .status("401")
    .action("The client must request its token with its certificate.");
    CERTIFICATE_MISSING = LabelValue::new(
        "certificate_missing",
        "The token is bound to a certificate, and the connection has none.",
    )
    .status("401")
    .action("The client must show its certificate. A proxy in front of the gateway that terminates TLS takes it away.");
    CERTIFICATE_OTHER = LabelValue::new("certificate_other", "The token is bound to another certificate than that of the connection.")
        .status("401")
        .action("After its certificate is renewed, the client must get a new token. Otherwise the token is stolen.");
}

crate::table! {
    /// What is wrong with a JWT; a value of the log field `reason`.
    pub static JWT_CHECKS: LabelValue;

    REPEATED = LabelValue::new("repeated", "The request has several lines with a credential.");
    SIZE = LabelValue::new("size", "It is longer than `token_bytes`.");
    FORM = LabelValue::new("form", "It is not three segments of canonical base64url.");
    HEADER = LabelValue::new("header", "The header is not a JSON object, or has an unsupported parameter.");
    HEADER_TYPE = LabelValue::new("header type", "`typ` is not the one that the profile asks for.");
    KEY_ID = LabelValue::new("key id", "No key has its `kid`.");
    ALGORITHM = LabelValue::new("algorithm", "None of the keys with its `kid` has its algorithm.");
    SIGNATURE = LabelValue::new("signature", "None of these keys verifies the signature.");
    CLAIMS = LabelValue::new("claims", "The claims are not a JSON object.");
    ISSUED_AT = LabelValue::new("issued at", "`iat` is not a time, or is in the future.");
    NOT_BEFORE = LabelValue::new("not before", "`nbf` is not a time, or is in the future.");
    EXPIRY = LabelValue::new("expiry", "`exp` is not a time.");
    LIFETIME = LabelValue::new("lifetime", "Its lifetime is longer than `max_lifetime`.");
    ISSUER = LabelValue::new("issuer", "`iss` is not accepted.");
    AUDIENCE = LabelValue::new("audience", "`aud` has no accepted audience.");
    SUBJECT_AND_ID = LabelValue::new("subject and id", "`sub` or `jti` is not a string.");
    REQUIRED_CLAIMS = LabelValue::new("required claims", "A claim that the profile requires is missing or of a wrong type.");
    TOKEN_ID = LabelValue::new("token id", "Revocations are checked, and `jti` has a type that cannot be revoked.");
}

crate::table! {
    /// What is wrong with a proof (RFC 9449); a value of the log field `reason`.
    pub static PROOF_CHECKS: LabelValue;

    PROOF_SIZE = LabelValue::new("size", "It is longer than any real proof.");
    PROOF_FORM = LabelValue::new("form", "It is not three segments of canonical base64url.");
    PROOF_HEADER = LabelValue::new("header", "The header is not a JSON object, or has an unsupported parameter.");
    PROOF_TYPE = LabelValue::new("typ", "`typ` is not `dpop+jwt`.");
    PROOF_ALGORITHM = LabelValue::new("alg", "`alg` is not a supported asymmetric algorithm.");
    PROOF_KEY = LabelValue::new("jwk", "`jwk` is missing, invalid, private, or not for this algorithm.");
    PROOF_CLAIMS = LabelValue::new("claims", "The claims are not a JSON object, or `jti` is missing.");
    PROOF_METHOD = LabelValue::new("htm", "It is not the method of the request.");
    PROOF_TARGET = LabelValue::new("htu", "It is not the URI of the request.");
    PROOF_ISSUED_AT = LabelValue::new("iat", "It is too old, or too far in the future: `dpop_window`.");
    PROOF_TOKEN = LabelValue::new("ath", "It is not the hash of the token.");
    PROOF_SIGNATURE = LabelValue::new("signature", "The key in the header does not verify the signature.");
}
