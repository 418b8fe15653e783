//! A whole cloud in one test process: the program's own wiring on pretended hosts, with databases that need no disk
//! and a clock of the test's. Stories and walkers over all services live in `tests/`; it knows no service itself.

mod caller;

pub use caller::{Caller, text};
pub use compat::{Answer, Credentials};

use base::{Clock, Secret, config::Config};
use ferrostack::{Cloud, Settings, roles::Roles};
use std::{
    future::Future,
    net::{IpAddr, Ipv4Addr},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tempfile::TempDir;
use tokio::{
    runtime::{Builder, Runtime},
    time::Instant,
};

/// Away from the ports of a cloud that listens on every address of the machine.
const PORT_OFFSET: u16 = 10_000;
/// What a wait waits at most; a machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(20);
const CRASHED_WITHIN: Duration = Duration::from_secs(10);

/// A cloud with an address, a state directory and threads of its own. It ends with the test.
pub struct TestCloud {
    directory: TempDir,
    settings: Settings,
    pub clock: Clock,
    running: Option<Running>,
}

/// On a runtime of its own, so that a crash ends everything of it, wherever it stands.
struct Running {
    runtime: Runtime,
    cloud: Arc<Cloud>,
}

impl TestCloud {
    /// A new cloud in which everything is as the program has it.
    pub async fn start() -> Self {
        Self::with(&[]).await
    }

    /// The same with options: section, name, value.
    pub async fn with(options: &[(&str, &str, &str)]) -> Self {
        Self::with_clock(options, Clock::real()).await
    }

    /// One whose hosts have these roles alone, `control,network`; a test brings the other agents.
    pub async fn with_roles(roles: &str, options: &[(&str, &str, &str)]) -> Self {
        let roles = Roles::parse(roles.split(',')).unwrap();
        Self::configured(None, options, Clock::real(), roles).await
    }

    pub async fn with_clock(options: &[(&str, &str, &str)], clock: Clock) -> Self {
        Self::configured(None, options, clock, Roles::ALL).await
    }

    /// As a configuration file says.
    pub async fn with_file(file: &Path) -> Self {
        Self::configured(Some(file), &[], Clock::real(), Roles::ALL).await
    }

    async fn configured(
        file: Option<&Path>,
        options: &[(&str, &str, &str)],
        clock: Clock,
        roles: Roles,
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let defaults = [("keystone", "password_hash_rounds", "4")];
        let options = defaults.iter().chain(options).map(|(section, name, value)| {
            (format!("FERROSTACK_{}__{}", section.to_uppercase(), name.to_uppercase()), value.to_string())
        });
        let config = Config::load(file, options).unwrap();
        let mut settings = Settings::new(directory.path(), address(), true, config).unwrap();
        settings.port_offset = PORT_OFFSET;
        settings.durable = false;
        settings.roles = roles;
        let mut cloud = Self { directory, settings, clock, running: None };
        cloud.start_again().await;
        cloud
    }

    /// Starts what crashed or was stopped, on the same state.
    pub async fn start_again(&mut self) {
        assert!(self.running.is_none(), "the cloud runs");
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (settings, clock) = (self.settings.clone(), self.clock.clone());
        let started = runtime.spawn(ready(settings, clock)).await.unwrap();
        match started {
            Ok(cloud) => self.running = Some(Running { runtime, cloud }),
            Err(error) => {
                runtime.shutdown_background();
                panic!("the cloud does not start: {error:?}");
            }
        }
    }

    /// Ends everything at once, as `kill -9` does: nothing is finished, nobody is told.
    pub async fn crash(&mut self) {
        let Some(Running { runtime, cloud }) = self.running.take() else { return };
        let ended = tokio::task::spawn_blocking(move || {
            runtime.shutdown_timeout(CRASHED_WITHIN);
            drop(cloud);
        });
        ended.await.unwrap();
    }

    /// Ends as SIGTERM ends it.
    pub async fn stop(&mut self) {
        let Some(Running { runtime, cloud }) = self.running.take() else { return };
        let cloud = Arc::into_inner(cloud).expect("nobody else has it");
        runtime.spawn(cloud.stop()).await.unwrap();
        runtime.shutdown_background();
    }

    /// The program's cloud, for what has no API.
    pub fn cloud(&self) -> &Cloud {
        &self.running.as_ref().expect("the cloud runs").cloud
    }

    pub fn state(&self) -> &Path {
        self.directory.path()
    }

    pub fn identity_url(&self) -> String {
        format!("http://{}:{}", self.settings.listen, 5000 + PORT_OFFSET)
    }

    /// The administrator of a new cloud.
    pub async fn admin(&self) -> Caller {
        self.sign_in("admin", &self.cloud().secrets.admin_password, "admin").await
    }

    /// The user without privileges of a new cloud.
    pub async fn demo(&self) -> Caller {
        self.sign_in("demo", &self.cloud().secrets.demo_password, "demo").await
    }

    async fn sign_in(&self, user: &str, password: &Secret, project: &str) -> Caller {
        Caller::sign_in(&self.identity_url(), user, password.expose(), project).await
    }

    /// For playing scenarios.
    pub fn credentials(&self) -> Credentials {
        Credentials {
            auth_url: self.identity_url(),
            username: "admin".into(),
            password: self.cloud().secrets.admin_password.expose().into(),
            project_name: "admin".into(),
            user_domain: "default".into(),
            project_domain: "default".into(),
            region: None,
        }
    }
}

impl Drop for TestCloud {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.runtime.shutdown_background();
        }
    }
}

/// Looks until something is there, and gives it; panics with what was waited for when it does not come.
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} did not come in {} s", PATIENCE.as_secs());
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn ready(settings: Settings, clock: Clock) -> base::Result<Arc<Cloud>> {
    let cloud = Arc::new(Cloud::start_with(settings, clock).await?);
    cloud.ready().await?;
    Ok(cloud)
}

/// An address of the loopback network that no other cloud of this machine has: tests need not share ports.
fn address() -> IpAddr {
    static COUNT: AtomicU32 = AtomicU32::new(1);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let [_, high, middle, low] = (std::process::id() << 7 | number & 0x7f).to_be_bytes();
    Ipv4Addr::new(127, high | 1, middle, low).into()
}
