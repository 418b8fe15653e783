//! Secrets that must be read again (credentials, OAuth 1, domains' options) are encrypted at rest with the
//! credential keys. What keys are is `fernet`'s.

use crate::{Keystone, fernet, model::*};
use base::{Error, Json, Result};
use db::{List, Tx};

impl Keystone {
    pub(crate) fn seal(&self, plain: &str) -> String {
        self.credential_keys.encrypt(plain.as_bytes())
    }

    /// What was encrypted with the credential keys.
    pub(crate) fn reveal(&self, sealed: &str) -> Result<String> {
        open(&self.credential_keys, sealed)
    }

    /// A new key for stored secrets. All are encrypted anew before and after, for rotating drops the oldest key.
    pub async fn rotate_credential_keys(&self) -> Result<()> {
        self.seal_anew().await?;
        self.credential_keys.rotate()?;
        self.seal_anew().await
    }

    async fn seal_anew(&self) -> Result<()> {
        let keys = self.credential_keys.clone();
        self.write(move |tx| {
            let anew = |sealed: &str| Ok(keys.encrypt(open(&keys, sealed)?.as_bytes()));
            each(tx, |row: &mut Credential| anew(&row.blob).map(|blob| row.blob = blob))?;
            each(tx, |row: &mut Consumer| anew(&row.secret).map(|secret| row.secret = secret))?;
            each(tx, |row: &mut RequestToken| anew(&row.secret).map(|secret| row.secret = secret))?;
            each(tx, |row: &mut AccessToken| anew(&row.secret).map(|secret| row.secret = secret))?;
            each(tx, |row: &mut DomainOption| {
                if let (true, Json::String(sealed)) = (row.sensitive, &row.value) {
                    row.value = anew(sealed)?.into();
                }
                Ok(())
            })
        })
        .await
    }
}

fn each<T: db::Resource>(tx: &mut Tx, change: impl Fn(&mut T) -> Result<()>) -> Result<()> {
    for mut row in tx.list::<T>(&List::all())? {
        change(&mut row)?;
        tx.update(&row)?;
    }
    Ok(())
}

fn open(keys: &fernet::Keys, sealed: &str) -> Result<String> {
    let plain = keys.decrypt(sealed);
    let plain = plain.ok_or_else(|| Error::internal("a secret that none of the credential keys opens"))?;
    String::from_utf8(plain).map_err(|_| Error::internal("a secret that is no text"))
}
