//! Who we are, and whom we trust, as of now: tokens, certificates and keys that others renew while the agent runs.
//!
//! Files are read for every request. There are few requests and the files are small, so no timer and no watch on them is
//! needed, and a renewed file counts at once. What cannot be read or does not fit together is an error value: in the
//! middle of a rotation it is normal. Whoever has something that was good before goes on with it and says so, and the
//! next request tries again. Must not connect to anything.

use std::borrow::Cow;
use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::{PemObject as _, SectionKind};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use ureq::http::HeaderValue;

use crate::kube::access::{Access, Auth, ClientCertificate, Trust};
use crate::kube::exec::{self, PluginError, PluginOutput};
use crate::kube::expiry::{self, Expiry};
use crate::kube::explained;
use crate::kube::pem::{Origin, Pem};
use crate::kube::secret::Secret;
use crate::process::shutdown::Stop;
use model::text;

/// Files in which distributions keep the authorities that they trust. The first that exists counts.
const SYSTEM: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Why there are no usable credentials at the moment.
#[derive(Debug)]
pub enum CredentialsError {
    /// A file cannot be read.
    Read {
        /// The file.
        origin: Origin,
        /// Why.
        error: io::Error,
    },
    /// Something is not the PEM that it should be.
    Pem {
        /// Where it stands.
        origin: Origin,
        /// What is wrong.
        problem: PemProblem,
    },
    /// A certificate, or a pair of certificate and key, that the TLS library refuses. After a rotation of only one of
    /// the two files, they do not belong together.
    Refused {
        /// Where it stands.
        origin: Origin,
        /// Why.
        error: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A token that is empty, or has characters that no token has.
    BadToken(Origin),
    /// No file with the authorities that this machine trusts, and the kubeconfig names none.
    NoSystemTrust,
    /// The exec plugin did not help.
    Plugin(PluginError),
}

/// What is wrong with a PEM text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PemProblem {
    /// A section that cannot be decoded.
    Garbled,
    /// No certificate in it.
    NoCertificate,
    /// No key in it, of the kinds PKCS#8, PKCS#1 and SEC1.
    NoKey,
    /// The key is encrypted, and there is nobody to ask.
    EncryptedKey,
}

impl fmt::Display for CredentialsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CredentialsError::Read { origin, .. } => write!(f, "cannot read {origin}"),
            CredentialsError::Pem { origin, problem } => {
                let text = match problem {
                    PemProblem::Garbled => "is not PEM",
                    PemProblem::NoCertificate => "has no certificate in it",
                    PemProblem::NoKey => "has no private key in it",
                    PemProblem::EncryptedKey => "is an encrypted key, and there is nobody to ask for the password",
                };
                write!(f, "{origin}: {text}")
            }
            CredentialsError::Refused { origin, .. } => write!(f, "{origin}: cannot be used"),
            CredentialsError::BadToken(origin) => write!(f, "{origin}: not a token"),
            CredentialsError::NoSystemTrust => {
                f.write_str("no certificate-authority is given, and this machine has no list of its own")
            }
            CredentialsError::Plugin(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for CredentialsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            CredentialsError::Read { error, .. } => Some(error),
            CredentialsError::Refused { error, .. } => Some(&**error),
            CredentialsError::Plugin(error) => std::error::Error::source(error),
            _ => None,
        }
    }
}

/// The credentials of one client. Not shared: it remembers what it last heard.
pub(super) struct Credentials {
    trust: Trust,
    certificate: Option<ClientCertificate>,
    auth: Auth,
    plugin_limit: Duration,
    /// The last token that a token file held.
    last_token: Option<Secret>,
    /// Why that one is used and not what the file holds now.
    stale_token: Option<String>,
    /// What the plugin printed last.
    said: Option<PluginOutput>,
}

/// The bytes that a TLS configuration is made of. Equal bytes make an equal configuration.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Contents {
    authorities: Authorities,
    pair: Option<(Secret, Secret)>,
}

#[derive(Clone, PartialEq, Eq)]
enum Authorities {
    These(Secret),
    /// The authorities of this machine. Their file is long, so a mark of its content is kept.
    System(u64),
    Anyone,
}

impl Credentials {
    pub(super) fn new(access: &Access, plugin_limit: Duration) -> Credentials {
        Credentials {
            trust: access.trust.clone(),
            certificate: access.certificate.clone(),
            auth: access.auth.clone(),
            plugin_limit,
            last_token: None,
            stale_token: None,
            said: None,
        }
    }

    /// Keeps what was heard before the kubeconfig changed, as far as it is still asked for.
    pub(super) fn inherit(&mut self, former: &Credentials) {
        if let (Auth::TokenFile { path, .. }, Auth::TokenFile { path: former_path, .. }) = (&self.auth, &former.auth)
            && path == former_path
        {
            self.last_token.clone_from(&former.last_token);
        }
    }

    /// Why the former token is used; none when the token is what its file holds.
    pub(super) fn stale_token(&self) -> Option<&str> {
        self.stale_token.as_deref()
    }

    /// Tries what stands in the kubeconfig itself, since what is wrong with that will stay wrong. Files are not looked at.
    pub(super) fn check_fixed(&mut self, stop: &Stop) -> Result<(), CredentialsError> {
        if matches!(self.auth, Auth::Token(_) | Auth::Basic(_)) {
            self.authorization(stop)?;
        }
        let trust = match &self.trust {
            Trust::Only(authorities) => authorities.is_inline(),
            Trust::Anyone => true,
            Trust::System => false,
        };
        let pair = self.certificate.as_ref();
        if trust && pair.is_none_or(|pair| pair.certificate.is_inline() && pair.key.is_inline()) {
            self.tls(&self.contents()?)?;
        }
        Ok(())
    }

    /// The value of the `Authorization` header, as of now. Runs the plugin if there is one and its last word expired.
    pub(super) fn authorization(&mut self, stop: &Stop) -> Result<Option<HeaderValue>, CredentialsError> {
        let (scheme, secret, origin) = match &self.auth {
            Auth::Nothing => return Ok(None),
            Auth::Token(token) => ("Bearer ", token.clone(), Origin::Field(PathBuf::new(), "token".into())),
            Auth::Basic(pair) => ("Basic ", pair.clone(), Origin::Field(PathBuf::new(), "username".into())),
            Auth::TokenFile { path, until_read } => {
                // A file that is being replaced may be absent or empty for a moment. The last token is still good.
                let token = match (token_in(path), self.last_token.as_ref().or(until_read.as_ref())) {
                    (Ok(token), _) => {
                        self.stale_token = None;
                        self.last_token.insert(token).clone()
                    }
                    (Err(error), Some(former)) => {
                        self.stale_token = Some(explained(&error));
                        former.clone()
                    }
                    (Err(error), None) => return Err(error),
                };
                ("Bearer ", token, Origin::File(path.clone()))
            }
            Auth::Exec(plugin) => {
                let current = self.said.take().filter(|said| said.expires.is_none_or(|at| at > SystemTime::now()));
                let said = match current {
                    Some(said) => said,
                    None => exec::run(plugin, self.plugin_limit, stop).map_err(CredentialsError::Plugin)?,
                };
                let token = self.said.insert(said).token.clone();
                let Some(token) = token else { return Ok(None) };
                ("Bearer ", token, Origin::Plugin(plugin.command.clone()))
            }
        };
        header(scheme, &secret, origin).map(Some)
    }

    /// The server did not believe this header: the plugin is asked again, unless it was asked since.
    pub(super) fn refused(&mut self, header: Option<&HeaderValue>) {
        let used = header.and_then(|header| header.as_bytes().strip_prefix(b"Bearer "));
        let token = self.said.as_ref().and_then(|said| said.token.as_ref()).map(Secret::expose);
        if used == token {
            self.said = None;
        }
    }

    /// What TLS needs, as of now.
    pub(super) fn contents(&self) -> Result<Contents, CredentialsError> {
        let authorities = match &self.trust {
            Trust::Only(pem) => Authorities::These(read(pem)?),
            Trust::System => {
                let mut mark = DefaultHasher::new();
                system_authorities()?.1.expose().hash(&mut mark);
                Authorities::System(mark.finish())
            }
            Trust::Anyone => Authorities::Anyone,
        };
        let pair = match (self.said.as_ref().and_then(|said| said.pair.clone()), &self.certificate) {
            (Some(pair), _) => Some(pair),
            (None, Some(pair)) => Some((read(&pair.certificate)?, read(&pair.key)?)),
            (None, None) => None,
        };
        Ok(Contents { authorities, pair })
    }

    /// The TLS configuration that is made of these contents.
    pub(super) fn tls(&self, contents: &Contents) -> Result<Arc<ClientConfig>, CredentialsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let origin = match &self.trust {
            Trust::Only(pem) => pem.origin().clone(),
            Trust::System | Trust::Anyone => Origin::Field(PathBuf::new(), "certificate-authority".into()),
        };
        let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| refused(origin.clone(), error))?;
        let builder = match &contents.authorities {
            Authorities::Anyone => builder.dangerous().with_custom_certificate_verifier(Arc::new(Unverified(provider))),
            Authorities::These(pem) => builder.with_root_certificates(roots(&origin, pem.expose())?),
            Authorities::System(_) => builder.with_root_certificates(system_roots()?),
        };
        let mut config = match &contents.pair {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let (certificate_origin, key_origin) = self.pair_origins();
                let chain = certificates(&certificate_origin, certificate.expose())?;
                let key = private_key(&key_origin, key.expose())?;
                let config = builder.with_client_auth_cert(chain, key);
                config.map_err(|error| refused(certificate_origin, error))?
            }
        };
        // A watch is made anew each few minutes: a full handshake costs 2 ms, remembered sessions cost more memory.
        config.resumption = Resumption::disabled();
        Ok(Arc::new(config))
    }

    /// When the token ends that was sent last, and the certificate of `contents`; nothing of what a plugin brought, which is asked
    /// again in time.
    pub(super) fn expiries(&self, contents: Option<&Contents>) -> Vec<Expiry> {
        let token = match &self.auth {
            Auth::Token(token) => Some((Origin::Field(PathBuf::new(), "token".into()), token)),
            Auth::TokenFile { path, until_read } => {
                let token = self.last_token.as_ref().or(until_read.as_ref());
                token.map(|token| (Origin::File(path.clone()), token))
            }
            Auth::Nothing | Auth::Basic(_) | Auth::Exec(_) => None,
        };
        let token = token.and_then(|(origin, token)| expiry::of_token(origin, token.expose()));
        let pair = contents.and_then(|contents| contents.pair.as_ref()).zip(self.certificate.as_ref());
        let certificate = pair
            .filter(|_| self.said.is_none())
            .and_then(|((certificate, _), named)| chain_expiry(named.certificate.origin(), certificate.expose()));
        token.into_iter().chain(certificate).collect()
    }

    fn pair_origins(&self) -> (Origin, Origin) {
        match (&self.certificate, &self.auth) {
            (_, Auth::Exec(plugin)) if self.said.as_ref().is_some_and(|said| said.pair.is_some()) => {
                (Origin::Plugin(plugin.command.clone()), Origin::Plugin(plugin.command.clone()))
            }
            (Some(pair), _) => (pair.certificate.origin().clone(), pair.key.origin().clone()),
            (None, _) => {
                let origin = Origin::Field(PathBuf::new(), "client-certificate".into());
                (origin.clone(), origin)
            }
        }
    }
}

/// When the credentials end that stand where `access` says, and what of them cannot be used: for whoever has no client. Plugins
/// are not run.
pub fn look(access: &Access) -> (Vec<Expiry>, Vec<CredentialsError>) {
    let mut credentials = Credentials::new(access, Duration::ZERO);
    let mut unusable = Vec::new();
    if let Auth::TokenFile { path, .. } = &access.auth {
        match token_in(path) {
            Ok(token) => credentials.last_token = Some(token),
            Err(error) => unusable.push(error),
        }
    }
    unusable.extend(credentials.contents().and_then(|contents| credentials.tls(&contents)).err());
    // Of a certificate whose key is lost the date can be read all the same.
    let pair = access.certificate.as_ref().and_then(|pair| Some((read(&pair.certificate).ok()?, Secret::new([]))));
    (credentials.expiries(Some(&Contents { authorities: Authorities::Anyone, pair })), unusable)
}

fn chain_expiry(origin: &Origin, pem: &[u8]) -> Option<Expiry> {
    let chain = certificates(origin, pem).ok()?;
    expiry::of_chain(origin, chain.iter().map(AsRef::as_ref))
}

fn header(scheme: &str, secret: &Secret, origin: Origin) -> Result<HeaderValue, CredentialsError> {
    let value = [scheme.as_bytes(), secret.expose()].concat();
    let mut value = HeaderValue::from_bytes(&value).map_err(|_| CredentialsError::BadToken(origin))?;
    value.set_sensitive(true);
    Ok(value)
}

/// The token that stands in a file, without the white space and the byte order mark around it.
fn token_in(path: &Path) -> Result<Secret, CredentialsError> {
    let origin = Origin::File(path.into());
    let content = Secret::in_file(path).map_err(|error| CredentialsError::Read { origin: origin.clone(), error })?;
    let text = text::decoded(content.expose()).map_err(|_| CredentialsError::BadToken(origin.clone()))?;
    let token = Secret::new(text.trim());
    if token.expose().is_empty() {
        return Err(CredentialsError::BadToken(origin));
    }
    header("Bearer ", &token, origin).map(|_| token)
}

fn read(pem: &Pem) -> Result<Secret, CredentialsError> {
    pem.read().map_err(|error| CredentialsError::Read { origin: pem.origin().clone(), error })
}

fn refused(origin: Origin, error: rustls::Error) -> CredentialsError {
    CredentialsError::Refused { origin, error: Box::new(error) }
}

/// The decoded sections of a PEM text.
fn sections(origin: &Origin, pem: &[u8]) -> Result<Vec<(SectionKind, Vec<u8>)>, CredentialsError> {
    let sections: Result<_, _> = <(SectionKind, Vec<u8>)>::pem_slice_iter(&plain(pem)).collect();
    sections.map_err(|_| CredentialsError::Pem { origin: origin.clone(), problem: PemProblem::Garbled })
}

/// Without a byte order mark. Remarks beside the sections may be in any encoding.
fn plain(pem: &[u8]) -> Cow<'_, [u8]> {
    match text::decoded(pem) {
        Ok(Cow::Owned(text)) => Cow::Owned(text.into_bytes()),
        Ok(Cow::Borrowed(text)) => Cow::Borrowed(text.as_bytes()),
        Err(_) => Cow::Borrowed(pem),
    }
}

fn certificates(origin: &Origin, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, CredentialsError> {
    let sections = sections(origin, pem)?.into_iter();
    let found: Vec<_> = sections.filter_map(|(kind, der)| CertificateDer::from_pem(kind, der)).collect();
    if found.is_empty() {
        return Err(CredentialsError::Pem { origin: origin.clone(), problem: PemProblem::NoCertificate });
    }
    Ok(found)
}

/// Every certificate must be usable: one that is left out shows much later, as a server that nobody knows.
fn roots(origin: &Origin, pem: &[u8]) -> Result<RootCertStore, CredentialsError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(origin, pem)? {
        store.add(certificate).map_err(|error| refused(origin.clone(), error))?;
    }
    Ok(store)
}

/// Where this machine has its list of authorities, and what stands in it.
fn system_authorities() -> Result<(Origin, Secret), CredentialsError> {
    let path = SYSTEM.iter().map(PathBuf::from).find(|path| path.exists()).ok_or(CredentialsError::NoSystemTrust)?;
    let origin = Origin::File(path.clone());
    match Secret::in_file(&path) {
        Ok(pem) => Ok((origin, pem)),
        Err(error) => Err(CredentialsError::Read { origin, error }),
    }
}

/// The authorities of this machine. Its list has whatever the distribution put there, so odd ones are left out.
fn system_roots() -> Result<RootCertStore, CredentialsError> {
    let (origin, pem) = system_authorities()?;
    let mut store = RootCertStore::empty();
    let (usable, _) = store.add_parsable_certificates(certificates(&origin, pem.expose())?);
    if usable == 0 { Err(CredentialsError::NoSystemTrust) } else { Ok(store) }
}

fn private_key(origin: &Origin, pem: &[u8]) -> Result<PrivateKeyDer<'static>, CredentialsError> {
    // Looked for first: the old form has header lines that are no base64, the new one is a section like any other.
    let encrypted = plain(pem).windows(9).any(|word| word == b"ENCRYPTED");
    let problem = if encrypted { PemProblem::EncryptedKey } else { PemProblem::NoKey };
    let error = || CredentialsError::Pem { origin: origin.clone(), problem: problem.clone() };
    let sections = sections(origin, pem).map_err(|garbled| if encrypted { error() } else { garbled })?;
    // An EC key may come with its parameters in a section of their own, a combined file with certificates.
    sections.into_iter().find_map(|(kind, der)| PrivateKeyDer::from_pem(kind, der)).ok_or_else(error)
}

/// Believes every certificate, but still checks that the server holds its key.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
