//! [`IntrospectionClient`]: whom the gateway asks as, and the request that it sends.

use authgate_core::secret::Secret;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use form_urlencoded::{Serializer, byte_serialize};
use http::HeaderValue;

/// The gateway's own registration as a client at the authorization server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IntrospectionClient {
    /// Its id.
    pub id: String,
    /// Its secret.
    pub secret: Secret<String>,
    /// How it proves that it is this client.
    pub method: ClientAuthentication,
}

/// How a client authenticates (RFC 6749, section 2.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuthentication {
    /// `client_secret_basic`: in `Authorization`.
    Basic,
    /// `client_secret_post`: in the body.
    Post,
}

impl IntrospectionClient {
    /// The value of `Authorization`, and the form, for one token.
    pub(super) fn request(&self, token: &str) -> (Option<HeaderValue>, Bytes) {
        let mut form = Serializer::new(String::new());
        form.append_pair("token", token);
        form.append_pair("token_type_hint", "access_token");
        let authorization = match self.method {
            ClientAuthentication::Basic => Some(self.basic()),
            ClientAuthentication::Post => {
                form.append_pair("client_id", &self.id);
                form.append_pair("client_secret", self.secret.expose());
                None
            }
        };
        (authorization, form.finish().into())
    }

    /// Both parts are encoded as in a form before they are joined.
    fn basic(&self) -> HeaderValue {
        let encoded = |part: &str| byte_serialize(part.as_bytes()).collect::<String>();
        let login = format!("{}:{}", encoded(&self.id), encoded(self.secret.expose()));
        let value = format!("Basic {}", STANDARD.encode(login));
        let mut value = HeaderValue::from_str(&value).expect("base64 is visible ASCII");
        value.set_sensitive(true);
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(method: ClientAuthentication) -> IntrospectionClient {
        IntrospectionClient {
            id: "a b:c".to_owned(),
            secret: Secret::new("canary+%&é".to_owned()),
            method,
        }
    }

    #[test]
    fn id_and_secret_are_encoded_before_they_are_joined() {
        let (authorization, form) = client(ClientAuthentication::Basic).request("x&y=1+");
        let authorization = authorization.expect("a login");
        let login = STANDARD
            .decode(&authorization.as_bytes()["Basic ".len()..])
            .expect("base64");
        assert_eq!(login, b"a+b%3Ac:canary%2B%25%26%C3%A9");
        assert!(authorization.is_sensitive());
        assert_eq!(form, "token=x%26y%3D1%2B&token_type_hint=access_token");
    }

    #[test]
    fn a_client_can_authenticate_in_the_body() {
        let (authorization, form) = client(ClientAuthentication::Post).request("x");
        assert_eq!(authorization, None);
        assert_eq!(
            form,
            "token=x&token_type_hint=access_token&client_id=a+b%3Ac&client_secret=canary%2B%25%26%C3%A9"
        );
    }

    #[test]
    fn the_secret_is_not_printed() {
        assert!(!format!("{:?}", client(ClientAuthentication::Post)).contains("canary"));
    }
}
