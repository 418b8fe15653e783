//! Fernet tokens with keystone's own payloads, so that tokens and keys can move between the two.
//! Says what a token claims; whether that still holds is asked in `tokens`.

use base::{Clock, Error, Result, Timestamp};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use fernet::Fernet;
use parking_lot::RwLock;
use rmpv::Value;
use std::{
    fs,
    io::Write,
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use uuid::Uuid;

/// What a token is good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    Unscoped,
    Project(String),
    Domain(String),
    System,
    /// A project, for somebody else.
    Trust {
        project_id: String,
        trust_id: String,
    },
    /// A project, by an application credential.
    Application {
        project_id: String,
        credential_id: String,
    },
    /// A project, by an OAuth 1 access token.
    OAuth1 {
        project_id: String,
        access_token_id: String,
    },
}

/// Who vouched, and for which groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Federated {
    pub group_ids: Vec<String>,
    pub idp_id: String,
    pub protocol_id: String,
}

/// What a token says.
#[derive(Clone, Debug, PartialEq)]
pub struct Payload {
    pub user_id: String,
    pub methods: Vec<&'static str>,
    pub scope: Scope,
    /// Set for somebody whom an identity provider vouched for.
    pub federated: Option<Federated>,
    pub expires_at: Timestamp,
    /// Its own id, then the id of the first of its chain.
    pub audit_ids: Vec<String>,
    /// Whole seconds: all that a Fernet token remembers.
    pub issued_at: Timestamp,
}

/// In keystone's order: a method's place is its bit.
pub const METHODS: &[&str] =
    &["external", "password", "token", "oauth1", "mapped", "application_credential", "ec2credential", "totp"];

const TOKEN_BYTES_MAX: usize = 4096;

/// Whether a token is in time is judged by its payload and our own clock, not by the library.
const ANY_TIME: u64 = i64::MAX as u64;

/// The keys of one directory, files named by number: 0 is staged, the highest is primary, others still open.
pub struct Keys {
    directory: PathBuf,
    active_max: usize,
    /// The primary first, then ever older ones, the staged last.
    ring: RwLock<Vec<Fernet>>,
}

impl Keys {
    /// Reads the directory; an empty or absent one gets a primary and a staged key.
    pub fn open(directory: &Path, active_max: usize) -> Result<Self> {
        fs::create_dir_all(directory)?;
        fs::set_permissions(directory, fs::Permissions::from_mode(0o700))?;
        if numbers(directory)?.is_empty() {
            write_key(directory, 0)?;
            write_key(directory, 1)?;
        }
        let ring = RwLock::new(read_ring(directory)?);
        Ok(Self { directory: directory.to_path_buf(), active_max, ring })
    }

    /// The staged key becomes primary, a new one is staged, the oldest beyond the limit is dropped.
    pub fn rotate(&self) -> Result<()> {
        let mut found = numbers(&self.directory)?;
        let next = found.last().copied().unwrap_or(0) + 1;
        fs::rename(self.directory.join("0"), self.directory.join(next.to_string()))?;
        write_key(&self.directory, 0)?;
        found.retain(|number| *number != 0);
        found.push(next);
        let surplus = (found.len() + 1).saturating_sub(self.active_max.max(2));
        for number in found.into_iter().take(surplus) {
            fs::remove_file(self.directory.join(number.to_string()))?;
        }
        *self.ring.write() = read_ring(&self.directory)?;
        Ok(())
    }

    /// Reads the directory again: another process may have rotated.
    pub fn reload(&self) -> Result<()> {
        *self.ring.write() = read_ring(&self.directory)?;
        Ok(())
    }

    /// Since when new tokens are made with the present key.
    pub fn primary_age(&self) -> Result<Duration> {
        let newest = numbers(&self.directory)?.last().copied().unwrap_or(0);
        let changed = fs::metadata(self.directory.join(newest.to_string()))?;
        // A key is renamed, not written, when it becomes the primary: its status changes then, its contents do not.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(now.saturating_sub(Duration::from_secs(changed.ctime().max(0) as u64)))
    }

    /// How long the key waits that comes next.
    pub fn staged_age(&self) -> Result<Duration> {
        let made = fs::metadata(self.directory.join("0"))?.modified()?;
        Ok(made.elapsed().unwrap_or_default())
    }

    pub fn encrypt(&self, data: &[u8]) -> String {
        self.ring.read()[0].encrypt(data)
    }

    pub fn decrypt(&self, text: &str) -> Option<Vec<u8>> {
        self.ring.read().iter().find_map(|key| key.decrypt_at_time(text, None, ANY_TIME).ok())
    }

    /// The text of a token. `issued_at` becomes the Fernet token's own time.
    pub fn seal(&self, payload: &Payload) -> Result<String> {
        let mut bytes = Vec::new();
        rmpv::encode::write_value(&mut bytes, &pack(payload)).map_err(|e| Error::internal(e.to_string()))?;
        let text = self.ring.read()[0].encrypt_at_time(&bytes, payload.issued_at.unix_seconds() as u64);
        Ok(text.trim_end_matches('=').to_string())
    }

    /// The text of a receipt: only user, methods and expiry are kept.
    pub fn seal_receipt(&self, payload: &Payload) -> Result<String> {
        let value = Value::Array(vec![
            pack_id(&payload.user_id),
            pack_methods(payload),
            Value::F64(payload.expires_at.0 as f64 / 1e6),
        ]);
        let mut bytes = Vec::new();
        rmpv::encode::write_value(&mut bytes, &value).map_err(|e| Error::internal(e.to_string()))?;
        let text = self.ring.read()[0].encrypt_at_time(&bytes, payload.issued_at.unix_seconds() as u64);
        Ok(text.trim_end_matches('=').to_string())
    }

    /// None for what is no receipt of ours; a token is none.
    pub fn open_receipt(&self, text: &str) -> Option<Payload> {
        let (value, issued_at) = self.unseal(text)?;
        let [user, methods_shown, expires] = value.as_array()?.as_slice() else { return None };
        Some(Payload {
            user_id: unpack_id(user)?,
            methods: methods(methods_shown.as_u64()?),
            scope: Scope::Unscoped,
            federated: None,
            expires_at: Timestamp((expires.as_f64()? * 1e6).round() as i64),
            audit_ids: Vec::new(),
            issued_at,
        })
    }

    /// None for what none of our keys made.
    pub fn open_token(&self, text: &str) -> Option<Payload> {
        let (value, issued_at) = self.unseal(text)?;
        unpack(&value, issued_at)
    }

    fn unseal(&self, text: &str) -> Option<(Value, Timestamp)> {
        if text.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let padded = format!("{text}{}", "=".repeat((4 - text.len() % 4) % 4));
        let bytes = self.decrypt(&padded)?;
        let head = URL_SAFE_NO_PAD.decode(text.get(..12)?).ok()?;
        let issued = u64::from_be_bytes(head.get(1..9)?.try_into().ok()?);
        let value = rmpv::decode::read_value(&mut bytes.as_slice()).ok()?;
        Some((value, Timestamp::from_unix_seconds(issued as i64)))
    }
}

/// A token's or chain's id for audits: 16 random bytes in URL-safe base64.
pub fn audit_id() -> String {
    URL_SAFE_NO_PAD.encode(Uuid::new_v4().as_bytes())
}

/// Now, in the whole seconds that tokens keep.
pub fn issue_time(clock: &Clock) -> Timestamp {
    Timestamp::from_unix_seconds(clock.now().unix_seconds())
}

fn numbers(directory: &Path) -> Result<Vec<u64>> {
    let names = fs::read_dir(directory)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut numbers: Vec<u64> = names.filter_map(|name| name.parse().ok()).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

fn write_key(directory: &Path, number: u64) -> Result<()> {
    let path = directory.join(number.to_string());
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(Fernet::generate_key().as_bytes())?;
    Ok(file.sync_all()?)
}

fn read_ring(directory: &Path) -> Result<Vec<Fernet>> {
    let mut keys = Vec::new();
    for number in numbers(directory)?.into_iter().rev() {
        let path = directory.join(number.to_string());
        let text = fs::read_to_string(&path)?;
        let key = Fernet::new(text.trim());
        keys.push(key.ok_or_else(|| Error::internal(format!("{}: not a Fernet key", path.display())))?);
    }
    if keys.is_empty() {
        return Err(Error::internal(format!("{}: no keys", directory.display())));
    }
    Ok(keys)
}

fn pack(payload: &Payload) -> Value {
    let user = pack_id(&payload.user_id);
    let methods = pack_methods(payload);
    let expires = Value::F64(payload.expires_at.0 as f64 / 1e6);
    let audits = payload.audit_ids.iter().filter_map(|id| URL_SAFE_NO_PAD.decode(id).ok());
    let audits = Value::Array(audits.map(Value::Binary).collect());
    if let Some(federated) = &payload.federated {
        let version = match &payload.scope {
            Scope::Project(_) => 5,
            Scope::Domain(_) => 6,
            _ => 4,
        };
        let mut fields = vec![Value::from(version), user, methods];
        if let Scope::Project(id) | Scope::Domain(id) = &payload.scope {
            fields.push(pack_id(id));
        }
        fields.push(Value::Array(federated.group_ids.iter().map(|id| pack_id(id)).collect()));
        fields.push(pack_id(&federated.idp_id));
        fields.push(federated.protocol_id.as_str().into());
        fields.extend([expires, audits]);
        return Value::Array(fields);
    }
    Value::Array(match &payload.scope {
        Scope::Unscoped => vec![0.into(), user, methods, expires, audits],
        Scope::Domain(id) => {
            // The default domain's id is no UUID and stands as text.
            let domain =
                Uuid::try_parse(id).map_or(Value::from(id.as_str()), |id| id.as_bytes().as_slice().into());
            vec![1.into(), user, methods, domain, expires, audits]
        }
        Scope::Project(id) => vec![2.into(), user, methods, pack_id(id), expires, audits],
        Scope::System => vec![8.into(), user, methods, "all".into(), expires, audits],
        Scope::Trust { project_id, trust_id } => {
            vec![3.into(), user, methods, pack_id(project_id), expires, audits, trust_bytes(trust_id)]
        }
        Scope::Application { project_id, credential_id } => {
            vec![9.into(), user, methods, pack_id(project_id), expires, audits, pack_id(credential_id)]
        }
        // Here the access token stands before the expiry.
        Scope::OAuth1 { project_id, access_token_id } => {
            vec![7.into(), user, methods, pack_id(project_id), pack_id(access_token_id), expires, audits]
        }
    })
}

fn pack_methods(payload: &Payload) -> Value {
    let places = payload.methods.iter().filter_map(|name| METHODS.iter().position(|known| known == name));
    Value::from(places.map(|place| 1u64 << place).sum::<u64>())
}

fn unpack(value: &Value, issued_at: Timestamp) -> Option<Payload> {
    let fields = value.as_array()?;
    let (version, fields) = fields.split_first()?;
    let version = version.as_u64()?;
    // Where the scope stands, if there is one; the expiry follows it.
    let after = match version {
        0 => 2,
        4 => 5,
        5 | 6 => 6,
        7 => 4,
        _ => 3,
    };
    let named = || fields.get(2);
    let scope = match version {
        0 | 4 => Scope::Unscoped,
        5 => Scope::Project(unpack_id(named()?)?),
        6 => Scope::Domain(unpack_id(named()?)?),
        1 => Scope::Domain(match named()? {
            Value::Binary(bytes) if bytes.len() == 16 => hex(bytes)?,
            other => text(other)?,
        }),
        2 => Scope::Project(unpack_id(named()?)?),
        3 => Scope::Trust { project_id: unpack_id(named()?)?, trust_id: hex(fields.get(5)?.as_slice()?)? },
        7 => Scope::OAuth1 { project_id: unpack_id(named()?)?, access_token_id: unpack_id(fields.get(3)?)? },
        8 => Scope::System,
        9 => {
            Scope::Application { project_id: unpack_id(named()?)?, credential_id: unpack_id(fields.get(5)?)? }
        }
        _ => return None,
    };
    let federated = match version {
        4..=6 => Some(Federated {
            group_ids: fields.get(after - 3)?.as_array()?.iter().map(unpack_id).collect::<Option<_>>()?,
            idp_id: unpack_id(fields.get(after - 2)?)?,
            protocol_id: text(fields.get(after - 1)?)?,
        }),
        _ => None,
    };
    let bits = fields.get(1)?.as_u64()?;
    let expires = fields.get(after)?.as_f64()?;
    let audits = fields.get(after + 1)?.as_array()?;
    Some(Payload {
        user_id: unpack_id(fields.first()?)?,
        methods: methods(bits),
        scope,
        federated,
        expires_at: Timestamp((expires * 1e6).round() as i64),
        audit_ids: audits.iter().filter_map(Value::as_slice).map(|id| URL_SAFE_NO_PAD.encode(id)).collect(),
        issued_at,
    })
}

/// The highest bit first, as keystone lists them.
fn methods(bits: u64) -> Vec<&'static str> {
    METHODS
        .iter()
        .enumerate()
        .rev()
        .filter(|(place, _)| bits & (1 << place) != 0)
        .map(|(_, name)| *name)
        .collect()
}

/// A trust's id is always a UUID and stands without a mark.
fn trust_bytes(id: &str) -> Value {
    Uuid::try_parse(id).map_or(Value::Nil, |id| id.as_bytes().as_slice().into())
}

/// A UUID as its bytes, anything else as it is; the first field says which.
fn pack_id(id: &str) -> Value {
    match Uuid::try_parse(id) {
        Ok(uuid) => Value::Array(vec![true.into(), uuid.as_bytes().as_slice().into()]),
        Err(_) => Value::Array(vec![false.into(), id.into()]),
    }
}

fn unpack_id(value: &Value) -> Option<String> {
    let [is_bytes, id] = value.as_array()?.as_slice() else { return None };
    if is_bytes.as_bool()? { hex(id.as_slice()?) } else { text(id) }
}

fn hex(bytes: &[u8]) -> Option<String> {
    Some(Uuid::from_slice(bytes).ok()?.simple().to_string())
}

fn text(value: &Value) -> Option<String> {
    String::from_utf8(value.as_slice().or(value.as_str().map(str::as_bytes))?.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::id;

    fn payload(scope: Scope) -> Payload {
        Payload {
            user_id: id::hex(),
            methods: vec!["token", "password"],
            scope,
            federated: None,
            expires_at: Timestamp::from_unix_seconds(2_000_000_000),
            audit_ids: vec![audit_id(), audit_id()],
            issued_at: Timestamp::from_unix_seconds(1_900_000_000),
        }
    }

    #[test]
    fn what_is_sealed_comes_back() {
        let directory = tempfile::tempdir().unwrap();
        let keys = Keys::open(directory.path(), 3).unwrap();
        let scopes = [
            Scope::Unscoped,
            Scope::Project(id::hex()),
            Scope::Project("not-a-uuid".into()),
            Scope::Domain("default".into()),
            Scope::Domain(id::hex()),
            Scope::System,
            Scope::Trust { project_id: id::hex(), trust_id: id::hex() },
            Scope::Application { project_id: id::hex(), credential_id: id::hex() },
            Scope::OAuth1 { project_id: id::hex(), access_token_id: id::hex() },
        ];
        let federated = || {
            let (idp_id, protocol_id) = ("my-idp".into(), "mapped".into());
            Some(Federated { group_ids: vec![id::hex(), "other".into()], idp_id, protocol_id })
        };
        let plain = scopes.into_iter().map(payload);
        let vouched = [Scope::Unscoped, Scope::Project(id::hex()), Scope::Domain("default".into())];
        let vouched = vouched.into_iter().map(|scope| Payload { federated: federated(), ..payload(scope) });
        for payload in plain.chain(vouched) {
            let token = keys.seal(&payload).unwrap();
            assert!(payload.federated.is_some() || token.len() <= 255, "{token}");
            assert!(!token.contains('='), "{token}");
            assert_eq!(keys.open_token(&token), Some(payload));
        }
    }

    #[test]
    fn a_receipt_is_no_token() {
        let directory = tempfile::tempdir().unwrap();
        let keys = Keys::open(directory.path(), 3).unwrap();
        let given = Payload { audit_ids: Vec::new(), ..payload(Scope::Unscoped) };
        let receipt = keys.seal_receipt(&given).unwrap();
        assert_eq!(keys.open_receipt(&receipt), Some(given.clone()));
        assert_eq!(keys.open_token(&receipt), None);
        assert_eq!(keys.open_receipt(&keys.seal(&given).unwrap()), None);
    }

    #[test]
    fn a_foreign_or_damaged_token_does_not_open() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let keys = Keys::open(one.path(), 3).unwrap();
        let token = Keys::open(other.path(), 3).unwrap().seal(&payload(Scope::System)).unwrap();
        let ours = keys.seal(&payload(Scope::System)).unwrap();
        let mut damaged = ours.clone().into_bytes();
        damaged[30] = if damaged[30] == b'A' { b'B' } else { b'A' };
        let damaged = String::from_utf8(damaged).unwrap();
        for wrong in
            [token.as_str(), &damaged, &ours[..ours.len() - 1], "", "x", &"A".repeat(5000), "gAAAAAé"]
        {
            assert_eq!(keys.open_token(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn rotation_keeps_old_tokens_until_their_key_is_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let keys = Keys::open(directory.path(), 3).unwrap();
        let token = keys.seal(&payload(Scope::System)).unwrap();
        keys.rotate().unwrap();
        assert!(keys.open_token(&token).is_some());
        assert!(Keys::open(directory.path(), 3).unwrap().open_token(&token).is_some());
        keys.rotate().unwrap();
        assert!(keys.open_token(&token).is_none());
        assert_eq!(numbers(directory.path()).unwrap(), [0, 2, 3]);
    }

    #[test]
    fn what_another_process_rotates_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let (mine, other) =
            (Keys::open(directory.path(), 3).unwrap(), Keys::open(directory.path(), 3).unwrap());
        other.rotate().unwrap();
        other.rotate().unwrap();
        let token = other.seal(&payload(Scope::System)).unwrap();
        assert!(mine.open_token(&token).is_none());
        mine.reload().unwrap();
        assert!(mine.open_token(&token).is_some());
        assert!(mine.primary_age().unwrap() < Duration::from_secs(60));
    }

    /// Made by the reference's own library with this key.
    #[test]
    fn a_token_that_keystone_made_opens() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("0"), VECTOR_KEY).unwrap();
        let keys = Keys::open(directory.path(), 3).unwrap();
        for (token, scope) in VECTORS {
            let payload = keys.open_token(token).unwrap();
            assert_eq!(payload.user_id, "6e407695ccd0404e81ce2b82ee21ec36");
            assert_eq!(payload.methods, ["token", "password"]);
            assert_eq!(format!("{:?}", payload.scope), *scope);
            assert_eq!(payload.expires_at.micros_z(), "2026-11-20T09:15:30.000000Z");
            assert_eq!(payload.issued_at.micros_z(), "2026-11-20T08:15:30.000000Z");
            assert_eq!(payload.audit_ids, ["HoRBCdpVSAO5Xy3b4lDMQA"]);
        }
    }

    include!("fernet_vectors.rs");
}
