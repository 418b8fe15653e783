//! The cloud's own certificate authority. Hosts make their keys themselves and are given certificates for a week;
//! only control nodes have the name by which hosts know them.

use crate::{model::AuthorityRow, tls::Credentials, tokens::hex_sha256};
use base::{Error, Result, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber,
    SignatureAlgorithm,
};
use std::{fmt::Write, net::IpAddr, time::Duration};
use tokio_rustls::rustls::pki_types::{CertificateDer, pem::PemObject};

/// Every control node's name in its certificate; hosts' names never end like it.
pub const CONTROL_NAME: &str = "control.ferrostack";
const AUTHORITY_NAME: &str = "ferrostack hosts";
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
/// Clocks of hosts differ.
const CLOCKS_DIFFER_BY: Duration = Duration::from_secs(600);

/// A moment in the library's own type.
macro_rules! date {
    ($at:expr) => {
        rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs($at.unix_seconds().max(0) as u64)
    };
}

pub struct Authority {
    pub certificate: String,
    key: String,
}

pub struct Issued {
    pub certificate: String,
    pub serial: String,
}

/// A new authority.
pub fn make(now: Timestamp) -> Result<AuthorityRow> {
    let key = KeyPair::generate().map_err(failed)?;
    let certificate = authority_params(now).self_signed(&key).map_err(failed)?;
    Ok(AuthorityRow {
        id: "1".into(),
        certificate: certificate.pem(),
        private_key: key.serialize_pem(),
        made_at: now,
    })
}

impl Authority {
    pub fn from_pem(kept: &AuthorityRow) -> Result<Self> {
        Ok(Self { certificate: kept.certificate.clone(), key: kept.private_key.clone() })
    }

    pub fn fingerprint(&self) -> String {
        let der = CertificateDer::from_pem_slice(self.certificate.as_bytes());
        der.map(|der| hex_sha256(&der)).unwrap_or_default()
    }

    /// For a host's own key, an uncompressed point of P-256.
    pub fn for_host(
        &self,
        name: &str,
        address: IpAddr,
        key: Vec<u8>,
        now: Timestamp,
        span: Duration,
    ) -> Result<Issued> {
        if key.len() != 65 || key[0] != 4 {
            return Err(Error::bad_request("The public key is no point of P-256."));
        }
        let names = vec![dns(name)?, SanType::IpAddress(address)];
        self.issue(name, names, &PublicKey(key), now, span)
    }

    pub fn for_control(&self, name: &str, now: Timestamp) -> Result<Credentials> {
        let mut names = vec![dns(CONTROL_NAME)?, dns("localhost")?];
        names.extend(dns(name).ok());
        self.with_key(name, names, now)
    }

    /// For a server that hosts use and that is none of them, as the broker. Its certificate names no host.
    pub fn for_server(&self, name: &str, now: Timestamp) -> Result<Credentials> {
        if name.to_ascii_lowercase().ends_with(".ferrostack") {
            return Err(Error::bad_request(format!("'{name}' is a control node's name")));
        }
        let names = vec![match name.parse() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => dns(name)?,
        }];
        self.with_key(&format!("server {name}"), names, now)
    }

    fn with_key(&self, name: &str, names: Vec<SanType>, now: Timestamp) -> Result<Credentials> {
        let key = KeyPair::generate().map_err(failed)?;
        let issued = self.issue(name, names, &key, now, YEAR)?;
        Ok(Credentials {
            authority: self.certificate.clone(),
            certificate: issued.certificate,
            key: key.serialize_pem().into(),
        })
    }

    fn issue(
        &self,
        name: &str,
        names: Vec<SanType>,
        key: &impl PublicKeyData,
        now: Timestamp,
        span: Duration,
    ) -> Result<Issued> {
        let mut serial: [u8; 16] = rand::random();
        // Positive, and of one length in every encoding.
        serial[0] = serial[0] & 0x3f | 0x40;
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(name);
        params.subject_alt_names = names;
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.not_before = date!(now.minus(CLOCKS_DIFFER_BY));
        params.not_after = date!(now.plus(span));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let issuer_key = KeyPair::from_pem(&self.key).map_err(failed)?;
        // Times are not part of what is signed below it.
        let issuer = Issuer::new(authority_params(now), issuer_key);
        let certificate = params.signed_by(key, &issuer).map_err(failed)?;
        Ok(Issued { certificate: certificate.pem(), serial: hex(&serial) })
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

struct PublicKey(Vec<u8>);

impl PublicKeyData for PublicKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

fn authority_params(now: Timestamp) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(AUTHORITY_NAME);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = date!(now.minus(CLOCKS_DIFFER_BY));
    params.not_after = date!(now.plus(YEAR * 20));
    params
}

fn common_name(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

/// RFC 1123, and the underscore that many machines have in their names.
fn dns(name: &str) -> Result<SanType> {
    let is_label = |label: &str| {
        let is_word = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        (1..=63).contains(&label.len()) && is_word && !label.starts_with('-') && !label.ends_with('-')
    };
    let refused = || Error::bad_request(format!("'{name}' is no host name"));
    if name.len() > 253 || !name.split('.').all(is_label) {
        return Err(refused());
    }
    Ok(SanType::DnsName(name.try_into().map_err(|_| refused())?))
}

fn failed(error: rcgen::Error) -> Error {
    Error::internal(format!("certificate: {error}"))
}
