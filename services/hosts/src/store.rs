//! Questions that are not generic.

use crate::model::{AuthorityRow, HostRow, TokenRow};
use base::{Result, Timestamp};
use db::{Direction, List, Tx, params, sql};

/// The one that is there, or this one.
pub fn authority_or(tx: &mut Tx, made: &AuthorityRow) -> Result<AuthorityRow> {
    if let Some(kept) = tx.find::<AuthorityRow>(&made.id)? {
        return Ok(kept);
    }
    tx.insert(made)?;
    Ok(made.clone())
}

/// A token is used once: whoever takes it has it alone.
pub fn take_token(tx: &mut Tx, id: &str, now: Timestamp) -> Result<Option<TokenRow>> {
    tx.execute(sql!("DELETE FROM join_token WHERE expires_at <= $1"), params![now])?;
    let found = tx.find::<TokenRow>(id)?;
    tx.remove::<TokenRow>(id)?;
    Ok(found)
}

pub fn hosts(tx: &mut Tx) -> Result<Vec<HostRow>> {
    tx.list::<HostRow>(&List::all().sort("name", Direction::Asc))
}
