//! What users are told when something that they asked for failed behind their back.

use crate::{Cinder, model::Message, store};
use base::{Context, Error, ErrorKind, Result, id};
use db::Tx;
use std::time::Duration;

/// Upstream's numbers of what was being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Schedule,
    Attach,
    CopyImage,
    UploadImage,
    Unmanage,
    Manage,
    Extend,
    Create,
    SnapshotCreate,
    SnapshotDelete,
    BackupCreate,
    BackupDelete,
    BackupRestore,
    Delete,
    Migrate,
    Retype,
    Revert,
    Reimage,
}

impl Action {
    fn number_and_text(self) -> (&'static str, &'static str) {
        match self {
            Action::Schedule => ("001", "schedule allocate volume"),
            Action::Attach => ("002", "attach volume"),
            Action::UploadImage => ("003", "copy volume to image"),
            Action::Unmanage => ("006", "unmanage volume"),
            Action::CopyImage => ("005", "copy image to volume"),
            Action::Extend => ("007", "extend volume"),
            Action::Create => ("008", "create volume from backend storage"),
            Action::SnapshotCreate => ("009", "create snapshot"),
            Action::SnapshotDelete => ("010", "delete snapshot"),
            Action::BackupCreate => ("013", "create backup"),
            Action::BackupDelete => ("014", "delete backup"),
            Action::BackupRestore => ("015", "restore backup"),
            Action::Reimage => ("016", "reimage volume"),
            // Upstream has no numbers for these.
            Action::Delete => ("000", "delete volume"),
            Action::Manage => ("000", "manage existing volume"),
            Action::Migrate => ("000", "migrate volume"),
            Action::Retype => ("000", "retype volume"),
            Action::Revert => ("000", "revert volume to snapshot"),
        }
    }
}

/// The code of a scheduler's refusal.
pub const NO_BACK_END: &str = "NoValidBackend";

const UNKNOWN_DETAIL: &str = "001";

fn detail(action: Action, error: &Error) -> &'static str {
    match (action, error.code.as_deref()) {
        (_, Some(NO_BACK_END)) => "003",
        (Action::CopyImage, _) if error.message.contains("is larger than") => "007",
        (Action::UploadImage, _) => "004",
        (Action::Extend, _) => "010",
        (Action::Create, _) => "012",
        (Action::SnapshotCreate, _) => "013",
        (Action::SnapshotDelete, _) => "016",
        (Action::Attach, _) => "021",
        _ => UNKNOWN_DETAIL,
    }
}

/// Tells the project why. What is ours to mend is not told in its own words.
pub fn tell(
    cinder: &Cinder,
    tx: &mut Tx,
    cx: &Context,
    (resource_type, resource_uuid, project_id): (&str, &str, &str),
    action: Action,
    error: &Error,
) -> Result<()> {
    let now = cinder.clock.now();
    let (number, doing) = action.number_and_text();
    let detail = detail(action, error);
    let reason = match error.kind {
        ErrorKind::Internal => "An unknown error occurred.",
        _ => error.message.as_str(),
    };
    tx.insert(&Message {
        id: id::uuid(),
        project_id: project_id.into(),
        request_id: cx.request_id.clone(),
        resource_type: resource_type.into(),
        resource_uuid: resource_uuid.into(),
        event_id: format!("VOLUME_{resource_type}_{number}_{detail}"),
        message_level: "ERROR".into(),
        user_message: format!("{doing}:{reason}"),
        created_at: now,
        expires_at: now.plus(Duration::from_secs(cinder.options.message_ttl_seconds)),
    })
}

impl Cinder {
    pub(crate) async fn forget_old_messages(&self) -> Result<()> {
        let now = self.clock.now();
        self.write(move |tx| store::delete_messages_before(tx, now).map(drop)).await
    }
}
