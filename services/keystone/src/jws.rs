//! Signed tokens (JWS, ES256) with keystone's own claims: who only validates needs no secret. An operator chooses them
//! instead of Fernet tokens; whether what one claims still holds is asked in `tokens`.

use crate::fernet::{Federated, METHODS, Payload, Scope};
use base::{Error, Json, Result, Timestamp};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use p256::{
    ecdsa::{Signature, SigningKey, VerifyingKey, signature::Signer, signature::Verifier},
    pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePrivateKey, EncodePublicKey, LineEnding},
};
use parking_lot::RwLock;
use serde_json::json;
use std::{
    fs,
    io::Write,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// With roles and catalog left out, more cannot be said.
const TOKEN_BYTES_MAX: usize = 8192;

/// `private.pem` below one directory makes tokens, every key below another is believed, as upstream has it.
pub struct Keys {
    public_directory: PathBuf,
    private: SigningKey,
    public: RwLock<Vec<VerifyingKey>>,
}

impl Keys {
    /// Reads both directories; a pair is made where there is no private key.
    pub fn open(directory: &Path) -> Result<Self> {
        let (private_directory, public_directory) = (directory.join("private"), directory.join("public"));
        for directory in [&private_directory, &public_directory] {
            fs::create_dir_all(directory)?;
            fs::set_permissions(directory, fs::Permissions::from_mode(0o700))?;
        }
        let path = private_directory.join("private.pem");
        if !path.exists() {
            make(&path, &public_directory)?;
        }
        let wrong = |e: p256::pkcs8::Error| Error::internal(format!("{}: {e}", path.display()));
        let private = SigningKey::from_pkcs8_pem(&fs::read_to_string(&path)?).map_err(wrong)?;
        let public = RwLock::new(read_public(&public_directory)?);
        Ok(Self { public_directory, private, public })
    }

    /// Reads the public keys again: another node's may have come.
    pub fn reload(&self) -> Result<()> {
        *self.public.write() = read_public(&self.public_directory)?;
        Ok(())
    }

    pub fn sign(&self, payload: &Payload) -> Result<String> {
        let header = json!({"alg": "ES256", "typ": "JWT"});
        let part = |json: &Json| URL_SAFE_NO_PAD.encode(json.to_string());
        let signed = format!("{}.{}", part(&header), part(&claims(payload)));
        let signature: Signature = self.private.sign(signed.as_bytes());
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.to_bytes())))
    }

    /// None for what none of the keys signed.
    pub fn verify(&self, token: &str) -> Option<Payload> {
        if token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, body) = signed.split_once('.')?;
        let read = |part: &str| serde_json::from_slice::<Json>(&URL_SAFE_NO_PAD.decode(part).ok()?).ok();
        if read(header)?.get("alg")? != "ES256" {
            return None;
        }
        let signature = Signature::from_slice(&URL_SAFE_NO_PAD.decode(signature).ok()?).ok()?;
        let believed = |key: &VerifyingKey| key.verify(signed.as_bytes(), &signature).is_ok();
        if !self.public.read().iter().any(believed) {
            return None;
        }
        payload(&read(body)?)
    }
}

fn make(path: &Path, public_directory: &Path) -> Result<()> {
    let wrong = |e: String| Error::internal(format!("a key pair could not be written: {e}"));
    let key = p256::SecretKey::random(&mut p256::elliptic_curve::rand_core::OsRng);
    let public = key.public_key().to_public_key_pem(LineEnding::LF).map_err(|e| wrong(e.to_string()))?;
    fs::write(public_directory.join("public.pem"), public)?;
    let text = key.to_pkcs8_pem(LineEnding::LF).map_err(|e| wrong(e.to_string()))?;
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    Ok(file.sync_all()?)
}

fn read_public(directory: &Path) -> Result<Vec<VerifyingKey>> {
    let mut keys = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let key = VerifyingKey::from_public_key_pem(&fs::read_to_string(&path)?);
        keys.push(key.map_err(|e| Error::internal(format!("{}: {e}", path.display())))?);
    }
    Ok(keys)
}

fn claims(payload: &Payload) -> Json {
    let mut claims = json!({
        "sub": payload.user_id, "iat": payload.issued_at.unix_seconds(), "exp": payload.expires_at.unix_seconds(),
        "openstack_methods": payload.methods, "openstack_audit_ids": payload.audit_ids,
    });
    let mut claim = |name: &str, value: &str| claims[format!("openstack_{name}")] = value.into();
    match &payload.scope {
        Scope::Unscoped => {}
        Scope::System => claim("system", "all"),
        Scope::Domain(id) => claim("domain_id", id),
        Scope::Project(id) => claim("project_id", id),
        Scope::Trust { project_id, trust_id } => {
            claim("project_id", project_id);
            claim("trust_id", trust_id);
        }
        Scope::Application { project_id, credential_id } => {
            claim("project_id", project_id);
            claim("app_cred_id", credential_id);
        }
        Scope::OAuth1 { project_id, access_token_id } => {
            claim("project_id", project_id);
            claim("access_token_id", access_token_id);
        }
    }
    if let Some(federated) = &payload.federated {
        claim("idp_id", &federated.idp_id);
        claim("protocol_id", &federated.protocol_id);
        let groups: Vec<Json> = federated.group_ids.iter().map(|id| json!({"id": id})).collect();
        claims["openstack_group_ids"] = groups.into();
    }
    claims
}

fn payload(claims: &Json) -> Option<Payload> {
    let text =
        |name: &str| claims.get(format!("openstack_{name}")).and_then(Json::as_str).map(str::to_string);
    let list = |name: &str| claims.get(name).and_then(Json::as_array).cloned().unwrap_or_default();
    let seconds = |name: &str| Some(Timestamp::from_unix_seconds(claims.get(name)?.as_i64()?));
    let scope = match (text("project_id"), text("domain_id"), text("system")) {
        (Some(project_id), _, _) => match (text("trust_id"), text("app_cred_id"), text("access_token_id")) {
            (Some(trust_id), _, _) => Scope::Trust { project_id, trust_id },
            (_, Some(credential_id), _) => Scope::Application { project_id, credential_id },
            (_, _, Some(access_token_id)) => Scope::OAuth1 { project_id, access_token_id },
            _ => Scope::Project(project_id),
        },
        (_, Some(domain_id), _) => Scope::Domain(domain_id),
        (_, _, Some(_)) => Scope::System,
        _ => Scope::Unscoped,
    };
    let federated = text("idp_id").zip(text("protocol_id")).map(|(idp_id, protocol_id)| {
        let groups = list("openstack_group_ids");
        let group_ids = groups.iter().filter_map(|group| group["id"].as_str()).map(str::to_string).collect();
        Federated { group_ids, idp_id, protocol_id }
    });
    let methods = list("openstack_methods");
    let known = |name: &Json| METHODS.iter().copied().find(|known| name == known);
    Some(Payload {
        user_id: claims.get("sub")?.as_str()?.to_string(),
        methods: methods.iter().filter_map(known).collect(),
        scope,
        federated,
        expires_at: seconds("exp")?,
        audit_ids: list("openstack_audit_ids").iter().filter_map(Json::as_str).map(str::to_string).collect(),
        issued_at: seconds("iat")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::id;

    fn payload(scope: Scope) -> Payload {
        Payload {
            user_id: id::hex(),
            methods: vec!["password", "token"],
            scope,
            federated: None,
            expires_at: Timestamp::from_unix_seconds(1_900_003_600),
            audit_ids: vec!["abc".into()],
            issued_at: Timestamp::from_unix_seconds(1_900_000_000),
        }
    }

    #[test]
    fn what_is_signed_comes_back() {
        let directory = tempfile::tempdir().unwrap();
        let keys = Keys::open(directory.path()).unwrap();
        let again = Keys::open(directory.path()).unwrap();
        for scope in [
            Scope::Unscoped,
            Scope::Project(id::hex()),
            Scope::Domain("default".into()),
            Scope::System,
            Scope::Trust { project_id: id::hex(), trust_id: id::hex() },
            Scope::Application { project_id: id::hex(), credential_id: id::hex() },
            Scope::OAuth1 { project_id: id::hex(), access_token_id: id::hex() },
        ] {
            let given = payload(scope);
            assert_eq!(again.verify(&keys.sign(&given).unwrap()), Some(given));
        }
        let federated =
            Federated { group_ids: vec!["g".into()], idp_id: "i".into(), protocol_id: "mapped".into() };
        let given = Payload { federated: Some(federated), ..payload(Scope::Unscoped) };
        assert_eq!(keys.verify(&keys.sign(&given).unwrap()), Some(given));
    }

    #[test]
    fn what_others_signed_or_nobody_is_refused() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (keys, others) = (Keys::open(one.path()).unwrap(), Keys::open(other.path()).unwrap());
        let ours = keys.sign(&payload(Scope::System)).unwrap();
        let theirs = others.sign(&payload(Scope::System)).unwrap();
        let part = |json: Json| URL_SAFE_NO_PAD.encode(json.to_string());
        let body = ours.split('.').nth(1).unwrap();
        let unsigned = format!("{}.{body}.", part(json!({"alg": "none"})));
        let renamed =
            format!("{}.{body}.{}", part(json!({"alg": "HS256"})), ours.rsplit_once('.').unwrap().1);
        let forged = format!(
            "{}.{}.{}",
            ours.split('.').next().unwrap(),
            part(claims(&payload(Scope::System))),
            ours.rsplit_once('.').unwrap().1
        );
        for wrong in [theirs.as_str(), &unsigned, &renamed, &forged, "", "a.b.c", &"A".repeat(9000)] {
            assert_eq!(keys.verify(wrong), None, "{wrong}");
        }
        fs::copy(other.path().join("public/public.pem"), one.path().join("public/other.pem")).unwrap();
        keys.reload().unwrap();
        assert!(keys.verify(&theirs).is_some(), "a key that was put beside ours is believed");
    }

    /// Made by the reference's own formatter with this key's private half.
    #[test]
    fn a_token_that_keystone_signed_is_believed() {
        let directory = tempfile::tempdir().unwrap();
        let keys = Keys::open(directory.path()).unwrap();
        fs::write(directory.path().join("public/theirs.pem"), VECTOR_KEY).unwrap();
        keys.reload().unwrap();
        let payload = keys.verify(VECTOR).unwrap();
        assert_eq!(payload.user_id, "6e0b0b3c2f7a4a8c9d1e2f3a4b5c6d7e");
        assert_eq!(payload.scope, Scope::Project("a928b3099295442189c242ecc167a4ea".into()));
        assert_eq!(
            (payload.methods, payload.audit_ids),
            (vec!["password", "token"], vec!["audit".to_string()])
        );
        assert_eq!(payload.expires_at, Timestamp::from_unix_seconds(1_900_000_000));
    }

    const VECTOR_KEY: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEqUdOJTe+BYbXMXtaxU4N6jV04H5F
Gw3kLgzvamfmJCZibr8MiEN70DVqzqbKUzHBYqHP/ecnMuhdQnDaLiesEQ==
-----END PUBLIC KEY-----
";
    const VECTOR: &str = "eyJhbGciOiJFUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiI2ZTBiMGIzYzJmN2E0YThjOWQxZTJmM2E0YjVjNmQ3ZSIsImlhdCI6MTc5NTI1MTgzMiwiZXhwIjoxOTAwMDAwMDAwLCJvcGVuc3RhY2tfbWV0aG9kcyI6WyJwYXNzd29yZCIsInRva2VuIl0sIm9wZW5zdGFja19hdWRpdF9pZHMiOlsiYXVkaXQiXSwib3BlbnN0YWNrX3Byb2plY3RfaWQiOiJhOTI4YjMwOTkyOTU0NDIxODljMjQyZWNjMTY3YTRlYSJ9.W470cfoovT81kl8n2kSCEH90e31aTiB25Oq-QXrJmAupeV-hyORYkLUUvUhyqWyVKHK7b29y_c3n0YJFVpA2JQ";
}
