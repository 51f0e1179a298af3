//! [`Fixed`]: settings that cannot change while the process runs.

use authgate_http::server::address::Address;

use crate::config::{Config, Refusal};

/// Settings that cannot change while the process runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fixed {
    workers: usize,
    admin: Vec<Address>,
}

impl Fixed {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            workers: config.server.workers,
            admin: config.admin.listen.clone(),
        }
    }

    /// Names each setting that is not the same.
    pub(super) fn refusals(&self, config: &Config) -> Vec<Refusal> {
        let next = Self::new(config);
        let shown = |addresses: &[Address]| {
            let addresses: Vec<String> = addresses.iter().map(Address::to_string).collect();
            addresses.join(", ")
        };
        let settings = [
            ("server.workers", self.workers.to_string(), next.workers.to_string()),
            ("admin.listen", shown(&self.admin), shown(&next.admin)),
        ];
        let different = settings.into_iter().filter(|(_, now, next)| now != next);
        different
            .map(|(key, now, next)| Refusal {
                key: key.to_owned(),
                message: format!("this cannot change while the gateway runs: it is {now}, and the file has {next}"),
                help: format!("restart the gateway, or write {now} again"),
            })
            .collect()
    }
}
