//! Users and tokens of an import, and how they are merged into stored records.

use authgate_auth::record::{TokenRecord, UserRecord};
use serde::{Deserialize, Serialize};

/// A user of an import.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UserUpdate {
    /// The imported record.
    pub record: UserRecord,
    /// Members that the import lacks; their stored values are kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keeps: Vec<UserMember>,
}

/// A member of a user record that an import may lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum UserMember {
    /// `username`.
    Username,
    /// `email`.
    Email,
    /// `groups`.
    Groups,
    /// `active`.
    Active,
    /// `password_md5`.
    PasswordMd5,
    /// `attributes`.
    Attributes,
}

/// A token of an import.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenUpdate {
    /// The imported record.
    pub record: TokenRecord,
    /// Members that the import lacks; their stored values are kept.
    pub keeps: Vec<TokenMember>,
}

/// A member of a token record that an import may lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TokenMember {
    /// `expires`.
    Expires,
    /// `scopes`.
    Scopes,
    /// `name`.
    Name,
}

impl From<UserRecord> for UserUpdate {
    /// Replaces the whole stored record.
    fn from(record: UserRecord) -> Self {
        Self {
            record,
            keeps: Vec::new(),
        }
    }
}

impl From<TokenRecord> for TokenUpdate {
    /// Replaces the whole stored record.
    fn from(record: TokenRecord) -> Self {
        Self {
            record,
            keeps: Vec::new(),
        }
    }
}

impl UserUpdate {
    /// Merges with the stored record.
    pub fn over(&self, stored: Option<&UserRecord>) -> UserRecord {
        let mut user = self.record.clone();
        let Some(stored) = stored else { return user };
        for member in &self.keeps {
            match member {
                UserMember::Username => user.username.clone_from(&stored.username),
                UserMember::Email => user.email.clone_from(&stored.email),
                UserMember::Groups => user.groups.clone_from(&stored.groups),
                UserMember::Active => user.active = stored.active,
                UserMember::PasswordMd5 => user.password_md5.clone_from(&stored.password_md5),
                UserMember::Attributes => user.attributes.clone_from(&stored.attributes),
            }
        }
        user
    }
}

impl TokenUpdate {
    /// Merges with the stored record. Nothing is kept from a token of another user.
    pub fn over(&self, stored: Option<&TokenRecord>) -> TokenRecord {
        let mut token = self.record.clone();
        let Some(stored) = stored.filter(|stored| stored.user == token.user) else {
            return token;
        };
        for member in &self.keeps {
            match member {
                TokenMember::Expires => token.expires = stored.expires,
                TokenMember::Scopes => token.scopes.clone_from(&stored.scopes),
                TokenMember::Name => token.name.clone_from(&stored.name),
            }
        }
        token
    }
}
