//! A server of HTTPS on this machine that treats each connection as a test says, with the certificates of `tests/data/tls`. It
//! knows nothing of Kubernetes.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use super::http::{Conn, Request};
use super::waiting::PATIENCE;

/// A connection over TLS.
pub type Tls = Conn<StreamOwned<ServerConnection, TcpStream>>;

/// A file of `tests/data/tls`.
pub fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tls").join(name)
}

/// A certificate of `tests/data/tls`.
pub fn der(name: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(data(name)).expect("a certificate")
}

/// What clients the server lets in, and what it speaks.
#[derive(Clone, Copy)]
pub enum Wants {
    Anyone,
    Certificate,
    OldTls,
}

/// What the server is and speaks, with the certificate and the key of this name.
pub fn tls(name: &str, wants: Wants) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone());
    let builder = match wants {
        Wants::OldTls => builder.with_protocol_versions(&[&rustls::version::TLS12]),
        _ => builder.with_safe_default_protocol_versions(),
    };
    let builder = match wants {
        Wants::Certificate => {
            let mut roots = RootCertStore::empty();
            roots.add(der("ca.crt")).expect("an authority");
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().expect("a verifier");
            builder.expect("versions that fit").with_client_cert_verifier(verifier)
        }
        _ => builder.expect("versions that fit").with_no_client_auth(),
    };
    let key = PrivateKeyDer::from_pem_file(data(&format!("{name}.key"))).expect("a key");
    Arc::new(builder.with_single_cert(vec![der(&format!("{name}.crt"))], key).expect("a pair"))
}

/// A server that remembers what it was asked.
pub struct Server {
    pub address: SocketAddr,
    pub seen: Receiver<Request>,
}

impl Server {
    /// A server that treats each connection as `script` says, each in a thread of its own.
    pub fn start(config: Arc<ServerConfig>, address: &str, script: impl Fn(Tls) + Send + Sync + 'static) -> SocketAddr {
        let listener = TcpListener::bind((address, 0)).expect("a port");
        let address = listener.local_addr().expect("bound");
        let script = Arc::new(script);
        thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let (config, script, stream) = (config.clone(), script.clone(), stream.expect("a connection"));
                stream.set_nodelay(true).expect("settable");
                thread::spawn(move || {
                    let connection = ServerConnection::new(config).expect("a configuration that fits");
                    script(Conn { stream: StreamOwned::new(connection, stream), number });
                });
            }
        });
        address
    }

    /// The usual server.
    pub fn run(script: impl Fn(Tls) + Send + Sync + 'static) -> SocketAddr {
        Server::start(tls("server", Wants::Anyone), "127.0.0.1", script)
    }

    /// A server that answers every request so, and remembers what it saw.
    pub fn answering(answer: impl Fn(&mut Tls, &Request) + Send + Sync + 'static) -> Server {
        let (sender, seen) = channel();
        let sender = Mutex::new(sender);
        let address = Server::run(move |mut conn| {
            conn.answer_all(|conn, request| {
                sender.lock().expect("unpoisoned").send(request.clone()).expect("somebody looks");
                answer(conn, &request);
            });
        });
        Server { address, seen }
    }

    /// A server that is content with everything.
    pub fn ok() -> Server {
        Server::answering(|conn, _| conn.answer("200 OK", "", "{}"))
    }

    /// The next request.
    pub fn next(&self) -> Request {
        self.seen.recv_timeout(PATIENCE).expect("a request")
    }
}
