//! `mode` of a route: how far it is enforced.

use authgate_core::policy::rollout::Rollout;
use toml::de::DeValue;

use crate::config::keys::routes::mode as keys;
use crate::config::reader::Item;

/// `None`: every request is enforced. `has_require`: the route has requirements, which observed requests need not meet.
pub(super) fn rollout(item: &Item<'_>, has_require: bool) -> Option<Rollout> {
    let modes = [("enforce", None), ("observe", Some(Rollout::OBSERVE))];
    let is_text = !matches!(item.value(), DeValue::Table(_))
        || ["env", "file"].iter().any(|key| item.value().get(*key).is_some());
    let rollout = if is_text {
        let help = "write \"enforce\", \"observe\", or `{ enforce = 10 }` for 10 percent of users";
        item.text_for("a mode", help)?.choice(&modes)?
    } else {
        let mut section = item.clone().section(&keys::TABLE)?;
        let percent = section.required(&keys::ENFORCE)?;
        u8::try_from(percent).ok().and_then(Rollout::of_percent)
    };
    if rollout.is_some() {
        let subject = match rollout {
            Some(Rollout::OBSERVE) => "all requests of this route are",
            Some(_) | None => "a share of the requests of this route is",
        };
        let unmet = if has_require {
            ", and `require` does not apply to them"
        } else {
            ""
        };
        item.warn(
            format!("{subject} only observed: they reach the application without an identity{unmet}"),
            "make sure that the application authenticates them by itself, or write `mode = \"enforce\"`",
        );
    }
    rollout
}
