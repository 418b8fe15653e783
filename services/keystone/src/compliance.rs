//! Rules for passwords and accounts: lockout after failures, strength, expiry, history, inactivity.
//! Says what holds; users and logins act on it.

use crate::{Keystone, model::*, options::SecurityCompliance, password, store};
use base::{Error, Json, Result, Secret, Timestamp, id};
use db::Tx;
use std::time::Duration;

/// Where nothing else is configured, an account stays locked so long.
const LOCKOUT_SECONDS: u64 = 1800;

const DAY: u64 = 86_400;

/// Who sets a password: the user itself, or somebody above it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Setter {
    Owner,
    Other,
}

impl SecurityCompliance {
    /// A new password must match the configured expression.
    pub fn check_strength(&self, password: &str) -> Result<()> {
        let Some(pattern) = &self.password_regex else { return Ok(()) };
        // From the beginning, as upstream matches; not to the end.
        let matches = fancy_regex::Regex::new(&format!("^(?:{pattern})"))
            .and_then(|compiled| compiled.is_match(password))
            .map_err(|error| {
                tracing::error!(%error, "password_regex cannot be used");
                Error::bad_request(
                    "Password validation error: Unable to validate password due to invalid configuration.",
                )
            })?;
        match matches {
            true => Ok(()),
            false => Err(Error::bad_request(format!(
                "The password does not match the requirements: {}.",
                self.password_regex_description.as_deref().unwrap_or("None")
            ))),
        }
    }

    pub fn is_locked(&self, user: &User, now: Timestamp) -> bool {
        let Some(attempts_max) = self.lockout_failure_attempts else { return false };
        if user.failed_logins < attempts_max || user.has("ignore_lockout_failure_attempts") {
            return false;
        }
        match (self.lockout_duration_seconds.unwrap_or(LOCKOUT_SECONDS), user.failed_login_at) {
            (0, _) => true,
            (seconds, Some(at)) => at.plus(Duration::from_secs(seconds)) > now,
            (_, None) => false,
        }
    }

    pub fn is_expired(&self, user: &User, now: Timestamp) -> bool {
        user.password_expires_at.is_some_and(|at| at <= now) && !user.has("ignore_password_expiry")
    }

    pub fn is_inactive(&self, user: &User, now: Timestamp) -> bool {
        let Some(days) = self.disable_user_account_days_inactive else { return false };
        let away = user.last_active_at.is_some_and(|at| now.since(at) >= Duration::from_secs(days * DAY));
        away && !user.has("ignore_user_inactivity")
    }

    fn expiry(&self, user: &User, setter: Setter, now: Timestamp) -> Option<Timestamp> {
        let is_first = setter == Setter::Other && self.change_password_upon_first_use;
        if is_first && !user.has("ignore_change_password_upon_first_use") {
            return Some(now);
        }
        let days = self.password_expires_days.filter(|_| !user.has("ignore_password_expiry"))?;
        let at = now.plus(Duration::from_secs(days * DAY));
        Some(Timestamp::from_unix_seconds(at.unix_seconds()))
    }
}

impl User {
    /// Whether an option of the user's own is set.
    pub fn has(&self, option: &str) -> bool {
        self.options.get(option) == Some(&Json::Bool(true))
    }

    pub fn forget_failures(&mut self) {
        (self.failed_logins, self.failed_login_at) = (0, None);
    }
}

impl Keystone {
    /// The hash of a new password that is strong enough.
    pub(crate) async fn hash_new(&self, password: &str) -> Result<String> {
        self.options.security_compliance.check_strength(password)?;
        password::hash(Secret::new(password), self.options.password_hash_rounds).await
    }

    /// The user whose password this is, if it may log in with it. Counts what fails, where failures are counted.
    /// The password is compared for a user that does not exist too, so that an answer takes as long.
    pub(crate) async fn check_password(
        &self,
        user: Option<User>,
        password: Secret,
    ) -> Result<Option<User>, Refusal> {
        let (compliance, now) = (&self.options.security_compliance, self.clock.now());
        let stored = user.as_ref().and_then(|user| user.password_hash.clone());
        let fits = password::verify(password, stored, self.options.password_hash_rounds).await?;
        let Some(user) = user else { return Ok(None) };
        if compliance.is_locked(&user, now) {
            tracing::info!(user_id = user.id, "login refused: the account is locked");
            return Ok(None);
        }
        if !fits {
            self.count_failure(&user, now).await?;
            return Ok(None);
        }
        let user = self.note_success(user, now).await?;
        match user {
            Some(user) if compliance.is_expired(&user, now) => Err(Refusal::Expired(Box::new(user))),
            user => Ok(user),
        }
    }

    pub(crate) async fn count_failure(&self, user: &User, now: Timestamp) -> Result<()> {
        let Some(attempts_max) = self.options.security_compliance.lockout_failure_attempts else {
            return Ok(());
        };
        let (id, compliance) = (user.id.clone(), self.options.security_compliance.clone());
        self.write(move |tx| {
            let Some(mut user) = tx.find::<User>(&id)? else { return Ok(()) };
            // A lock that has ended begins a new count.
            if user.failed_logins >= attempts_max && !compliance.is_locked(&user, now) {
                user.forget_failures();
            }
            user.failed_logins += 1;
            user.failed_login_at = Some(now);
            tx.update(&user).map(drop)
        })
        .await
    }

    /// None for an account that is disabled or was locked meanwhile: the right guess among many at once is no login.
    async fn note_success(&self, user: User, now: Timestamp) -> Result<Option<User>> {
        let compliance = self.options.security_compliance.clone();
        let inactive = compliance.is_inactive(&user, now);
        let is_stale = compliance.disable_user_account_days_inactive.is_some()
            && user.last_active_at.is_none_or(|at| now.since(at) >= Duration::from_secs(3600));
        if !inactive && !is_stale && user.failed_logins == 0 {
            return Ok(Some(user).filter(|user| user.enabled));
        }
        self.write(move |tx| {
            let Some(mut user) = tx.find::<User>(&user.id)? else { return Ok(None) };
            if compliance.is_locked(&user, now) || !user.enabled {
                return Ok(None);
            }
            user.forget_failures();
            user.enabled = !compliance.is_inactive(&user, now);
            if user.enabled {
                user.last_active_at = Some(now);
            }
            tx.update(&user)?;
            Ok(Some(user).filter(|user| user.enabled))
        })
        .await
    }

    /// Whether the owner may change to this password now.
    pub(crate) async fn check_change(&self, user: &User, password: &Secret) -> Result<()> {
        let (compliance, now) = (&self.options.security_compliance, self.clock.now());
        compliance.check_strength(password.expose())?;
        if user.has("lock_password") {
            return Err(Error::bad_request(
                "You cannot change your password at this time due to password policy disallowing password changes. Please contact your administrator to reset your password.",
            ));
        }
        let days = compliance.minimum_password_age_days;
        let free_at = user.password_changed_at.map(|at| at.plus(Duration::from_secs(days * DAY)));
        if let Some(free_at) = free_at.filter(|at| user.password_set_by_owner && *at > now) {
            let left = free_at.since(now).as_secs() / DAY;
            return Err(Error::bad_request(format!(
                "You cannot change your password at this time due to the minimum password age. Once you change your password, it must be used for {days} day(s) before it can be changed. Please try again in {left} day(s) or contact your administrator to reset your password."
            )));
        }
        let unique = compliance.unique_last_password_count;
        if unique == 0 {
            return Ok(());
        }
        let id = user.id.clone();
        let held = self.read(move |tx| store::old_passwords(tx, &id)).await?;
        for old in held.into_iter().take(unique) {
            let same = password::verify(password.clone(), Some(old.password_hash), 0).await?;
            if same {
                return Err(Error::bad_request(format!(
                    "The new password cannot be identical to a previous password. The total number which includes the new password must be unique is {unique}."
                )));
            }
        }
        Ok(())
    }
}

/// Why a right password is no login.
pub enum Refusal {
    /// It must be changed first; its owner still may.
    Expired(Box<User>),
    Broken(Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Broken(error)
    }
}

impl Refusal {
    pub fn into_error(self) -> Error {
        match self {
            Self::Expired(user) => Error::unauthorized(format!(
                "The password is expired and needs to be changed for user: {}.",
                user.id
            )),
            Self::Broken(error) => error,
        }
    }
}

/// Gives the row a new password, and remembers it as long as it must not come again.
pub fn set_password(
    tx: &mut Tx,
    compliance: &SecurityCompliance,
    user: &mut User,
    hash: &str,
    setter: Setter,
    now: Timestamp,
) -> Result<()> {
    user.password_hash = Some(hash.to_string());
    user.password_changed_at = Some(now);
    user.password_set_by_owner = setter == Setter::Owner;
    user.password_expires_at = compliance.expiry(user, setter, now);
    let unique = compliance.unique_last_password_count;
    let held = store::old_passwords(tx, &user.id)?;
    for old in held.iter().skip(unique.saturating_sub(1)) {
        tx.remove::<OldPassword>(&old.id)?;
    }
    if unique > 0 {
        let (id, user_id) = (id::hex(), user.id.clone());
        // The order must hold for two of the same moment too.
        let set_at = held.first().map_or(now, |newest| now.max(Timestamp(newest.set_at.0 + 1)));
        tx.insert(&OldPassword { id, user_id, set_at, password_hash: hash.to_string() })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn user(failed: i64, at: i64, options: Json) -> User {
        User {
            id: "u".into(),
            name: "u".into(),
            domain_id: "default".into(),
            enabled: true,
            default_project_id: None,
            password_hash: None,
            password_changed_at: None,
            password_expires_at: None,
            password_set_by_owner: false,
            failed_logins: failed,
            failed_login_at: Some(Timestamp::from_unix_seconds(at)),
            last_active_at: Some(Timestamp::from_unix_seconds(at)),
            options,
            extra: json!({}),
        }
    }

    #[test]
    fn accounts_are_locked_for_a_while() {
        let rules = SecurityCompliance {
            lockout_failure_attempts: Some(2),
            lockout_duration_seconds: Some(10),
            ..SecurityCompliance::default()
        };
        let for_ever = SecurityCompliance { lockout_duration_seconds: Some(0), ..rules.clone() };
        let ignoring = json!({"ignore_lockout_failure_attempts": true});
        for (rules, failed, options, later, locked) in [
            (&rules, 1, json!({}), 0, false),
            (&rules, 2, json!({}), 9, true),
            (&rules, 2, json!({}), 10, false),
            (&rules, 2, ignoring, 0, false),
            (&for_ever, 2, json!({}), 1_000_000, true),
            (&SecurityCompliance::default(), 99, json!({}), 0, false),
        ] {
            let now = Timestamp::from_unix_seconds(1000 + later);
            assert_eq!(rules.is_locked(&user(failed, 1000, options), now), locked, "{failed} {later}");
        }
    }

    #[test]
    fn passwords_have_a_form_and_an_end() {
        let rules = SecurityCompliance {
            password_regex: Some(r"(?=.*\d)(?=.*[a-z]).{7,}$".into()),
            password_regex_description: Some("a digit and a letter".into()),
            password_expires_days: Some(2),
            ..SecurityCompliance::default()
        };
        assert!(rules.check_strength("abcdef1").is_ok());
        let told = rules.check_strength("abcdefg").unwrap_err().message;
        assert_eq!(told, "The password does not match the requirements: a digit and a letter.");
        let broken = SecurityCompliance { password_regex: Some("(".into()), ..SecurityCompliance::default() };
        assert!(broken.check_strength("x").is_err(), "what cannot be checked is not let through");
        let now = Timestamp::from_unix_seconds(1000);
        let ends = rules.expiry(&user(0, 0, json!({})), Setter::Other, now);
        assert_eq!(ends, Some(Timestamp::from_unix_seconds(1000 + 2 * 86_400)));
        assert_eq!(
            rules.expiry(&user(0, 0, json!({"ignore_password_expiry": true})), Setter::Other, now),
            None
        );
        let first =
            SecurityCompliance { change_password_upon_first_use: true, ..SecurityCompliance::default() };
        assert_eq!(first.expiry(&user(0, 0, json!({})), Setter::Other, now), Some(now));
        assert_eq!(first.expiry(&user(0, 0, json!({})), Setter::Owner, now), None);
    }

    #[test]
    fn who_stays_away_is_disabled() {
        let rules = SecurityCompliance {
            disable_user_account_days_inactive: Some(1),
            ..SecurityCompliance::default()
        };
        let later = |seconds: i64| Timestamp::from_unix_seconds(1000 + seconds);
        assert!(!rules.is_inactive(&user(0, 1000, json!({})), later(86_399)));
        assert!(rules.is_inactive(&user(0, 1000, json!({})), later(86_400)));
        assert!(!rules.is_inactive(&user(0, 1000, json!({"ignore_user_inactivity": true})), later(86_400)));
    }
}
