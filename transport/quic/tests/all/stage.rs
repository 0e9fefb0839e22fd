//! A listener with a certificate, and clients of it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tidegate_client::{Address, Client, ClientKey, ConnectOptions, GroupRef, Pin};
use tidegate_model::{Name, TopicRef};
use tidegate_quic::{Event, Listener, Observer, QuicConfig, ServerIdentity};
use tidegate_session::Service;

use crate::mock::Mock;

/// A server's key, out of which any number of certificates are made.
pub(crate) struct ServerKey(KeyPair);

impl ServerKey {
    pub(crate) fn new() -> Self {
        Self(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap())
    }

    pub(crate) fn identity(&self) -> ServerIdentity {
        let params = CertificateParams::new(vec!["tidegate".to_owned()]).unwrap();
        let certificate = params.self_signed(&self.0).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.0.serialize_der()));
        ServerIdentity::new(vec![certificate.der().clone()], key).unwrap()
    }
}

/// Keeps all events.
#[derive(Default)]
pub(crate) struct Events(Mutex<Vec<Event>>);

impl Observer for Events {
    fn event(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }
}

/// A broker in memory behind a listener.
pub(crate) struct Stage {
    pub(crate) mock: Arc<Mock>,
    pub(crate) key: ServerKey,
    pub(crate) config: QuicConfig,
    pub(crate) events: Arc<Events>,
    pub(crate) addr: SocketAddr,
    listener: Option<Listener>,
    /// A runtime of its own for a listener that is to die without a word.
    apart: Option<tokio::runtime::Runtime>,
}

impl Stage {
    pub(crate) fn new() -> Self {
        Self::with(|_| ())
    }

    pub(crate) fn with(change: impl FnOnce(&mut QuicConfig)) -> Self {
        Self::try_with(change).unwrap()
    }

    pub(crate) fn try_with(
        change: impl FnOnce(&mut QuicConfig),
    ) -> Result<Self, tidegate_quic::Error> {
        let mut config = QuicConfig::new([7; 32]);
        change(&mut config);
        let mut stage = Self {
            mock: Mock::new(),
            key: ServerKey::new(),
            config,
            events: Arc::new(Events::default()),
            addr: (Ipv4Addr::LOCALHOST, 0).into(),
            listener: None,
            apart: None,
        };
        stage.listen(stage.bind()?);
        Ok(stage)
    }

    fn bind(&self) -> Result<Listener, tidegate_quic::Error> {
        Listener::bind(
            self.addr,
            self.key.identity(),
            Arc::clone(&self.mock) as Arc<dyn Service>,
            self.config.clone(),
            Arc::clone(&self.events) as Arc<dyn Observer>,
        )
    }

    fn listen(&mut self, listener: Listener) {
        self.addr = listener.local_addr();
        self.listener = Some(listener);
    }

    /// Starts a listener on the port of the one before, as soon as that has let go of it.
    pub(crate) async fn start(&mut self) {
        let runtime = tokio::runtime::Handle::current();
        self.start_on(&runtime).await;
    }

    /// The same on a runtime of its own.
    pub(crate) async fn start_apart(&mut self) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        self.start_on(runtime.handle()).await;
        self.apart = Some(runtime);
    }

    async fn start_on(&mut self, runtime: &tokio::runtime::Handle) {
        let bind = || {
            let _entered = runtime.enter();
            self.bind()
        };
        let wait = async {
            loop {
                match bind() {
                    Ok(listener) => return listener,
                    Err(_) => tokio::task::yield_now().await,
                }
            }
        };
        let listener = tokio::time::timeout(crate::DEADLINE, wait)
            .await
            .expect("the port is never free again");
        self.listen(listener);
    }

    /// Ends that runtime: nothing runs any more that could say goodbye.
    pub(crate) fn kill_apart(&mut self) {
        self.apart.take().unwrap().shutdown_background();
        self.listener = None;
    }

    /// Shuts the listener down; whether all was answered.
    pub(crate) async fn stop(&mut self) -> bool {
        let listener = self.listener.take().unwrap();
        listener.shutdown(Duration::from_secs(10)).await
    }

    /// Closes all connections at once, with what is under way.
    pub(crate) async fn kill(&mut self) {
        let listener = self.listener.take().unwrap();
        listener.shutdown(Duration::ZERO).await;
    }

    pub(crate) fn address(&self) -> Address {
        Address {
            host: self.addr.ip().to_string(),
            port: self.addr.port(),
            pin: Pin(self.key.identity().pin()),
        }
    }

    pub(crate) fn saw(&self, wanted: Event) -> bool {
        self.events.0.lock().unwrap().contains(&wanted)
    }

    /// Waits until a listener's event was seen.
    pub(crate) async fn until_seen(&self, wanted: Event) {
        let wait = async {
            while !self.saw(wanted) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(crate::DEADLINE, wait)
            .await
            .unwrap_or_else(|_| panic!("{wanted:?} never happened"));
    }

    /// A client whose key is registered.
    pub(crate) async fn client(&self) -> Client {
        let key = ClientKey::generate().unwrap();
        self.mock.register(key.public(), "tester");
        Client::connect(&self.address(), &key, ConnectOptions::default())
            .await
            .unwrap()
    }
}

pub(crate) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub(crate) fn topic(text: &str) -> TopicRef {
    TopicRef {
        namespace: Name::default_namespace(),
        topic: name(text),
    }
}

pub(crate) fn group(text: &str) -> GroupRef {
    text.parse().unwrap()
}
