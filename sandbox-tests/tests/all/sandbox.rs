//! A broker and a logged-in client in a folder that goes away with them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use tidegate_client::{Address, Client, ClientKey, ConnectOptions};
use tidegate_sandbox_tests::{BrokerProcess, Finished, Tidegate, eventually};

/// A running broker, which tests may end and start again.
pub(crate) struct Sandbox {
    broker: Option<BrokerProcess>,
    /// The command line, logged in.
    pub(crate) tidegate: Tidegate,
    listen: String,
    // Goes last: the broker has it open.
    folder: TempDir,
}

impl Sandbox {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let broker = BrokerProcess::start(folder.path());
        let tidegate = broker.login();
        let listen = broker.listen().to_owned();
        Self {
            broker: Some(broker),
            tidegate,
            listen,
            folder,
        }
    }

    pub(crate) fn broker(&mut self) -> &mut BrokerProcess {
        self.broker.as_mut().expect("the test has it running")
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A new file in the folder.
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.folder.path().join(name);
        fs::write(&path, content).unwrap();
        path.to_str()
            .expect("temporary folders have plain names")
            .to_owned()
    }

    /// A connection of the SDK as the client that the command line is.
    pub(crate) async fn client(&self) -> Client {
        let (address, key) = self.context();
        Client::connect(&address, &key, ConnectOptions::default())
            .await
            .unwrap()
    }

    /// Address and key that the command line keeps.
    pub(crate) fn context(&self) -> (Address, ClientKey) {
        let file = self.folder.path().join("home/contexts.toml");
        let contexts: toml::Table = fs::read_to_string(file).unwrap().parse().unwrap();
        let current = contexts["current"].as_str().unwrap();
        let context = &contexts["context"][current];
        let address = context["address"].as_str().unwrap().parse().unwrap();
        (
            address,
            ClientKey::from_pem(context["key"].as_str().unwrap()).unwrap(),
        )
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.broker.take().expect("it runs").kill();
    }

    /// Starts it again on the same folder and port, and kills it after a time.
    pub(crate) fn die_starting(&self, after: Duration) {
        assert!(self.broker.is_none(), "it runs");
        BrokerProcess::start_and_kill(self.folder.path(), &self.listen, after);
    }

    /// SIGTERM.
    pub(crate) fn stop(&mut self) -> Finished {
        self.broker.take().expect("it runs").stop()
    }

    /// Starts it again on the same folder and port.
    pub(crate) fn start_again(&mut self) {
        let path: PathBuf = self.folder.path().to_owned();
        let broker = eventually("the broker's port to be free", || {
            match BrokerProcess::try_start(&path, &self.listen, &[]) {
                Ok(broker) => Some(broker),
                // While the broker was away, the system may have given its port to somebody's socket.
                Err(ended) if ended.stderr.contains("in use") => None,
                Err(ended) => panic!("the broker didn't start again: {ended:#?}"),
            }
        });
        self.broker = Some(broker);
    }

    /// The path of a built guest, `NAME.wasm`.
    pub(crate) fn guest(name: &str) -> String {
        let folder = std::env::var_os("TIDEGATE_GUESTS").map_or_else(
            || {
                let profile = Tidegate::program();
                let target = profile
                    .ancestors()
                    .nth(2)
                    .expect("it lies in TARGET/PROFILE");
                target.join("guests")
            },
            PathBuf::from,
        );
        let path = folder.join(name).with_extension("wasm");
        assert!(
            path.is_file(),
            "{} isn't there: build the guests with `cargo xtask guests`, or say with \
             TIDEGATE_GUESTS=FOLDER where they are",
            path.display()
        );
        path.to_str().expect("a plain name").to_owned()
    }
}
