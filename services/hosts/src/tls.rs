//! TLS between hosts and doors: both sides show certificates of the cloud's authority, except who is about to join,
//! who knows the authority by its fingerprint, and the operator's command line.

use crate::{authority::CONTROL_NAME, tokens::hex_sha256};
use base::{Error, Result, Secret};
use serde::{Deserialize, Serialize};
use std::{
    fs,
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio_rustls::rustls::{
    self, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    server::WebPkiClientVerifier,
};

/// A certificate with its key and the authority that made it, as PEM.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Credentials {
    pub authority: String,
    pub certificate: String,
    pub key: Key,
}

/// A private key that does not print itself.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Key(Secret);

impl From<String> for Key {
    fn from(text: String) -> Self {
        Self(Secret::new(text))
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// Files of [`Credentials`] in their directory.
pub const AUTHORITY_FILE: &str = "authority.pem";
pub const CERTIFICATE_FILE: &str = "certificate.pem";
pub const KEY_FILE: &str = "key.pem";

impl Credentials {
    pub fn read(directory: &Path) -> Result<Self> {
        let read = |name: &str| {
            let path = directory.join(name);
            fs::read_to_string(&path).map_err(|e| Error::not_found(format!("{}: {e}", path.display())))
        };
        Ok(Self {
            authority: read(AUTHORITY_FILE)?,
            certificate: read(CERTIFICATE_FILE)?,
            key: read(KEY_FILE)?.into(),
        })
    }

    pub fn write(&self, directory: &Path) -> Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        for (name, text) in [
            (AUTHORITY_FILE, self.authority.as_str()),
            (KEY_FILE, self.key.0.expose()),
            (CERTIFICATE_FILE, self.certificate.as_str()),
        ] {
            write_private(&directory.join(name), text)?;
        }
        Ok(())
    }

    fn chain(&self) -> Result<Vec<CertificateDer<'static>>> {
        Ok(vec![certificate(&self.certificate)?, certificate(&self.authority)?])
    }

    fn private_key(&self) -> Result<PrivateKeyDer<'static>> {
        PrivateKeyDer::from_pem_slice(self.key.0.expose().as_bytes())
            .map_err(|e| Error::internal(format!("private key: {e}")))
    }

    pub fn public_key(&self) -> Result<Vec<u8>> {
        let pair = rcgen::KeyPair::from_pem(self.key.0.expose());
        Ok(pair.map_err(|e| Error::internal(format!("private key: {e}")))?.public_key_raw().to_vec())
    }

    pub fn server(&self) -> Result<ServerConfig> {
        let asked = WebPkiClientVerifier::builder_with_provider(roots(&self.authority)?, provider())
            .allow_unauthenticated()
            .build()
            .map_err(|e| Error::internal(format!("tls: {e}")))?;
        ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(broken)?
            .with_client_cert_verifier(asked)
            .with_single_cert(self.chain()?, self.private_key()?)
            .map_err(broken)
    }

    pub fn client(&self) -> Result<ClientConfig> {
        ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(broken)?
            .with_root_certificates(roots(&self.authority)?)
            .with_client_auth_cert(self.chain()?, self.private_key()?)
            .map_err(broken)
    }
}

/// Of somebody without a certificate who knows the authority's.
pub fn client_of(authority: &str) -> Result<ClientConfig> {
    Ok(ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(broken)?
        .with_root_certificates(roots(authority)?)
        .with_no_client_auth())
}

/// Of somebody who knows the authority by its fingerprint alone.
pub fn client_by_fingerprint(fingerprint: &str) -> Result<ClientConfig> {
    let verifier = Arc::new(ByFingerprint(fingerprint.into()));
    Ok(ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(broken)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth())
}

/// The name that every control node's certificate has.
pub fn control_name() -> ServerName<'static> {
    ServerName::try_from(CONTROL_NAME).expect("a name in code is a name")
}

/// Takes the authority out of the chain that the server shows if it has the fingerprint, then checks as usual.
#[derive(Debug)]
struct ByFingerprint(String);

impl ServerCertVerifier for ByFingerprint {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let authority = intermediates.iter().find(|shown| hex_sha256(shown) == self.0).ok_or_else(|| {
            rustls::Error::General("the other side is not of the cloud that made the token".into())
        })?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let usual = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .map_err(|e| rustls::Error::General(e.to_string()))?;
        usual.verify_server_cert(end_entity, intermediates, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn roots(authority: &str) -> Result<Arc<RootCertStore>> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate(authority)?).map_err(broken)?;
    Ok(Arc::new(roots))
}

pub fn certificate(pem: &str) -> Result<CertificateDer<'static>> {
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|e| Error::internal(format!("certificate: {e}")))
}

fn broken(error: rustls::Error) -> Error {
    Error::internal(format!("tls: {error}"))
}

/// A file that only its owner reads; it is there whole or not at all.
pub fn write_private(path: &Path, text: &str) -> Result<()> {
    let beside: PathBuf = path.with_extension("new");
    let mut file =
        fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    Ok(fs::rename(beside, path)?)
}
