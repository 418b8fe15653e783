//! What an operator does to identity while nobody can log in: begin, rotate keys, get back in.

use crate::{Secrets, Settings, cloud, clouds_yaml, say::say, shared::Shared, state, state::Running};
use base::{Clock, Error, Json, Result, Secret, config::Config};
use keystone::{Keystone, mapping};
use serde_json::json;
use std::{net::IpAddr, path::Path, sync::Arc};

/// The cloud of a state directory, bound as it was last.
pub fn settings(directory: &Path, config: Config) -> Result<Settings> {
    let listen = match state::exists(directory) {
        true => state::address(directory)?,
        false => IpAddr::from([127, 0, 0, 1]),
    };
    Settings::new(directory, listen, false, config)
}

/// Makes what a cloud begins with (domain, roles, admin, catalog) without running it. What is there stays.
pub fn bootstrap(settings: &Settings) -> Result<()> {
    let _running = Running::take(&settings.state, settings.listen)?;
    let secrets = Secrets::open(&settings.state)?;
    with_keystone(settings, &secrets, async |_| Ok(()))?;
    clouds_yaml::write(settings, &secrets)?;
    say!("Identity has what it begins with; the admin's password is in {}.", shown(settings));
    Ok(())
}

/// A new random password for the admin, who is enabled and unlocked too.
pub fn reset_admin_password(settings: &Settings) -> Result<()> {
    let (_running, before) = stopped(settings)?;
    let secrets = Secrets { admin_password: Secret::random(), ..before };
    with_keystone(settings, &secrets, async |keystone| {
        keystone.reset_admin(secrets.admin_password.clone()).await
    })?;
    secrets.save(&settings.state)?;
    clouds_yaml::write(settings, &secrets)?;
    say!("The admin has a new password: see {}.", shown(settings));
    Ok(())
}

/// A new key for tokens; those made with the one before stay good.
pub fn rotate(settings: &Settings) -> Result<()> {
    existing(settings)?;
    keystone::rotate_token_keys(&settings.state, &settings.config.section()?)?;
    say!("Rotated. A running cloud makes tokens with the new key within a minute.");
    Ok(())
}

/// A new key for stored secrets, all of which are encrypted anew.
pub fn rotate_credential_keys(settings: &Settings) -> Result<()> {
    let (_running, secrets) = stopped(settings)?;
    with_keystone(settings, &secrets, async |keystone| keystone.rotate_credential_keys().await)?;
    say!("Rotated. Every stored secret is encrypted with the new key.");
    Ok(())
}

/// Forgets revocations, trusts and OAuth 1 tokens that have ended.
pub fn purge(settings: &Settings) -> Result<()> {
    let (_running, secrets) = stopped(settings)?;
    let rows = with_keystone(settings, &secrets, async |keystone| keystone.purge().await)?;
    say!("Forgot {rows} that had ended.");
    Ok(())
}

/// Prints whom the rules of a file make of the assertion in another.
pub fn mapping_test(rules: &Path, input: &Path) -> Result<()> {
    let read = |path: &Path| {
        std::fs::read_to_string(path).map_err(|e| Error::bad_request(format!("{}: {e}", path.display())))
    };
    let given: Json = serde_json::from_str(&read(rules)?)
        .map_err(|e| Error::bad_request(format!("{}: {e}", rules.display())))?;
    let mapping = if given.is_array() { json!({"rules": given}) } else { given };
    let version = mapping::check(&mapping)?;
    let pairs = read(input)?;
    let pairs = pairs.lines().filter_map(|line| line.split_once(':'));
    let assertion = pairs.map(|(name, value)| (name.trim().into(), value.trim().into())).collect();
    let mapped = mapping::map(&mapping["rules"], &version, &assertion)?;
    say!("{}", serde_json::to_string_pretty(&mapped)?);
    Ok(())
}

fn existing(settings: &Settings) -> Result<()> {
    match state::exists(&settings.state) {
        true => Ok(()),
        false => Err(Error::not_found(format!("no cloud was ever on {}", settings.state.display()))),
    }
}

/// A cloud that does not run, and will not while this is held.
fn stopped(settings: &Settings) -> Result<(Running, Secrets)> {
    existing(settings)?;
    Ok((Running::take(&settings.state, settings.listen)?, Secrets::open(&settings.state)?))
}

fn with_keystone<T>(
    settings: &Settings,
    secrets: &Secrets,
    work: impl AsyncFnOnce(Arc<Keystone>) -> Result<T>,
) -> Result<T> {
    tokio::runtime::Runtime::new()?.block_on(async {
        let clock = Clock::real();
        let working = async {
            let keystone = cloud::start_keystone(settings, secrets, &clock).await?;
            work(keystone).await
        };
        match Shared::open(settings, &clock).await? {
            Some(shared) => shared.alone("start", working).await,
            None => working.await,
        }
    })
}

fn shown(settings: &Settings) -> String {
    settings.state.join("clouds.yaml").display().to_string()
}
