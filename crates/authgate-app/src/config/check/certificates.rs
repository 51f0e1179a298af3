//! Warnings about certificates that have expired or soon will, and about chains that some clients refuse.

use std::path::Path;

use authgate_dataplane::tls;
use authgate_dataplane::tls::certificate::Certificate;
use authgate_dataplane::tls::validity::{self, Validity};
use jiff::Timestamp;

use crate::config::reader::Item;

/// CA certificates from a file.
pub(super) fn authorities(item: &Item<'_>) -> Option<tls::Authorities> {
    let file = item.path()?;
    match tls::load_authorities(&file) {
        Ok(authorities) => {
            // A system's bundle contains expired roots, which do no harm.
            if authorities.count() == 1 {
                warn_about_expiry(item, &file);
            }
            Some(authorities)
        }
        Err(error) => {
            item.refuse(
                error.to_string(),
                "name a PEM file with the certificates of the authority",
            );
            None
        }
    }
}

const DAY: i64 = 24 * 60 * 60;
/// A certificate that expires within this time is warned about.
const SOON: i64 = 30 * DAY;

/// Warns about a server's certificate chain.
pub(super) fn warn_about_chain(item: &Item<'_>, certificate: &Certificate) {
    warn_about_expiry(item, certificate.file());
    if let Some(at) = validity::first_unissued(certificate.chain()) {
        let problem = format!(
            "{}: certificate {} of the chain is not signed by the next one; some clients refuse such a chain",
            certificate.file().display(),
            at + 1
        );
        let help = "put the server's certificate first, and after each certificate the one that signed it";
        item.add(item.problem(problem, help).into_warning().into_machine());
    }
    if let Some(url) = validity::missing_issuer(certificate.chain()) {
        let problem = format!(
            "{}: the chain has only the server's certificate, and its issuer is not a root certificate of this system; clients without the \
             certificate of the issuer refuse it",
            certificate.file().display()
        );
        let help = format!(
            "append the intermediate certificate, in PEM; the issuer offers it at {url}. If clients trust the issuer itself, nothing is missing"
        );
        item.add(item.problem(problem, help).into_warning().into_machine());
    }
}

/// Warns about certificates in a file that are not valid now, or expire soon.
pub(super) fn warn_about_expiry(item: &Item<'_>, file: &Path) {
    warn_at(item, file, Timestamp::now().as_second());
}

fn warn_at(item: &Item<'_>, file: &Path, now: i64) {
    let all = Validity::of_file(file);
    let which = |at: usize| {
        if all.len() == 1 {
            file.display().to_string()
        } else {
            format!("{}, certificate {}", file.display(), at + 1)
        }
    };
    for (at, validity) in &all {
        let Some(message) = expiry_warning(validity, now) else {
            continue;
        };
        let help = "renew it; the gateway reads the new file by itself, unless `server.watch` is \"off\"";
        let problem = item.problem(format!("{}: {message}", which(*at)), help);
        item.add(problem.into_warning().into_machine());
    }
}

fn expiry_warning(validity: &Validity, now: i64) -> Option<String> {
    let seconds = |time: rustls_pki_types::UnixTime| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    let day = |second: i64| {
        let day = Timestamp::from_second(second).map(|time| time.strftime("%Y-%m-%d").to_string());
        day.unwrap_or_else(|_| "a date in the far future".to_owned())
    };
    let (from, until) = (seconds(validity.not_before), seconds(validity.not_after));
    let days = |seconds: i64| match seconds / DAY {
        0 => "less than a day".to_owned(),
        1 => "1 day".to_owned(),
        days => format!("{days} days"),
    };
    if until < now {
        Some(format!(
            "the certificate expired on {}, {} ago",
            day(until),
            days(now - until)
        ))
    } else if from > now {
        Some(format!("the certificate is not valid before {}", day(from)))
    } else if until - now < SOON {
        Some(format!(
            "the certificate expires on {}, in {}",
            day(until),
            days(until - now)
        ))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustls_pki_types::UnixTime;

    use super::*;

    #[test]
    fn a_certificate_is_warned_about_from_thirty_days_before_its_expiry() {
        let at = |days: u64| UnixTime::since_unix_epoch(Duration::from_secs(days * 24 * 60 * 60));
        let validity = Validity {
            not_before: at(100),
            not_after: at(200),
        };
        for (day, expected) in [
            (99, Some("is not valid before 1970-04-11")),
            (100, None),
            (169, None),
            (171, Some("expires on 1970-07-20, in 29 days")),
            (199, Some("expires on 1970-07-20, in 1 day")),
            (202, Some("expired on 1970-07-20, 2 days ago")),
        ] {
            let expiry_warning = expiry_warning(&validity, day * DAY);
            match expected {
                None => assert_eq!(expiry_warning, None, "{day}"),
                Some(words) => assert!(
                    expiry_warning.as_deref().is_some_and(|text| text.contains(words)),
                    "{day} {expiry_warning:?}"
                ),
            }
        }
    }
}
