//! Hosts that join at a real door, with right tokens and wrong ones; certificates that are renewed, replaced and refused.

use async_trait::async_trait;
use base::{Clock, Context, Error, ErrorKind, Result, Secret};
use bus::Bus;
use contracts::{
    agents::host::{HostAlive, HostOrder, HostReports, REPORTS_TOPIC, RemoteHostReports},
    compute::{ImageSink, ImageSource},
    hosts::{HostUser, Left},
    peers::{Peer, Peers},
};
use db::testing::{self, TestDb};
use hosts::{
    Common, Credentials, Door, Hosts, Identity, Lines, Member, Options, RemoteImages, Surroundings, TABLES,
    join,
};
use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
};

/// An image of three megabytes; what is brought is kept.
#[derive(Default)]
struct Images {
    brought: Mutex<Vec<u8>>,
}

#[async_trait]
impl ImageSource for Images {
    async fn download(
        &self,
        cx: &Context,
        image_id: &str,
        into: &mut (dyn AsyncWrite + Send + Unpin),
    ) -> Result<()> {
        match image_id {
            "good" => Ok(into.write_all(&vec![cx.user_id.len() as u8; 3_000_000]).await?),
            "broken" => {
                into.write_all(&vec![0; 2_000_000]).await?;
                Err(Error::internal("the disk"))
            }
            _ => Err(Error::not_found("no such image")),
        }
    }
}

#[async_trait]
impl ImageSink for Images {
    async fn upload(
        &self,
        _cx: &Context,
        image_id: &str,
        from: &mut (dyn AsyncRead + Send + Unpin),
    ) -> Result<()> {
        if image_id != "new" {
            return Err(Error::conflict("that one has its bytes"));
        }
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).await?;
        *self.brought.lock().unwrap() = bytes;
        Ok(())
    }
}

/// Fails behind the first bytes.
struct Breaks(bool);

impl AsyncRead for Breaks {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        if self.0 {
            return std::task::Poll::Ready(Err(std::io::Error::other("the source broke")));
        }
        self.0 = true;
        buffer.put_slice(b"first");
        std::task::Poll::Ready(Ok(()))
    }
}

/// A service with a server on every host, until it is told to empty it; a stuck one that stays.
#[derive(Default)]
struct Servers {
    closed: Mutex<Vec<String>>,
    gone: Mutex<bool>,
    stuck: Mutex<bool>,
}

#[async_trait]
impl HostUser for Servers {
    async fn close(&self, _: &Context, host: &str) -> Result<()> {
        self.closed.lock().unwrap().push(host.into());
        Ok(())
    }

    async fn empty(&self, _: &Context, _: &str) -> Result<()> {
        *self.gone.lock().unwrap() = true;
        Ok(())
    }

    async fn left(&self, _: &Context, host: &str) -> Result<Vec<Left>> {
        let mut left = Vec::new();
        if !*self.gone.lock().unwrap() {
            left.push(Left::going("server", &format!("on-{host}"), "waits to go"));
        }
        if *self.stuck.lock().unwrap() {
            left.push(Left::stuck("volume", "v", "a server uses it"));
        }
        Ok(left)
    }

    async fn open(&self, _: &Context, host: &str) -> Result<()> {
        self.closed.lock().unwrap().retain(|closed| closed != host);
        Ok(())
    }
}

/// A control node.
struct Control {
    _db: TestDb,
    directory: TempDir,
    clock: Clock,
    hosts: Arc<Hosts>,
    images: Arc<Images>,
    servers: Arc<Servers>,
    url: String,
    door: Door,
}

impl Control {
    async fn start() -> Self {
        let db = testing::sqlite(TABLES, &[]).await.unwrap();
        let (clock, directory) = (Clock::test(Clock::real().now()), tempfile::tempdir().unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let common = Common {
            doors: vec!["https://127.0.0.1:1".into(), url.clone()],
            brokers: vec![Secret::new("amqp://u:p@broker")],
            bus_prefix: "p".into(),
            metadata_address: "127.0.0.1:8775".into(),
            metadata_secret: Secret::new("m"),
        };
        let (images, servers) = (Arc::<Images>::default(), Arc::<Servers>::default());
        *servers.gone.lock().unwrap() = true;
        let operator = Secret::new("operator");
        let around = Surroundings {
            common,
            operator: operator.clone(),
            images: images.clone(),
            image_sink: images.clone(),
            users: vec![servers.clone()],
        };
        let credentials = Hosts::control_credentials(&db.db, &clock, "c1").await.unwrap();
        credentials.write(directory.path()).unwrap();
        let hosts = Hosts::open(db.db.clone(), clock.clone(), Options::default(), around).await.unwrap();
        let served = hosts.clone();
        tokio::spawn(async move {
            hosts::serve_door(served, listener, &credentials, std::future::pending()).await
        });
        let door = Door::of_operator(url.clone(), directory.path(), operator).unwrap();
        Self { _db: db, directory, clock, hosts, images, servers, url, door }
    }

    async fn token(&self) -> String {
        self.hosts.make_token(None, Vec::new()).await.unwrap().to_string()
    }

    async fn join(&self, token: &str, name: &str, roles: &[&str], at: &Path) -> Result<Member> {
        let roles = roles.iter().map(ToString::to_string).collect();
        let identity = Identity { name: name.into(), roles, address: "127.0.0.9".parse().unwrap() };
        join(&self.url, token, identity, at, &self.clock).await
    }
}

fn kind<T>(answer: Result<T>) -> ErrorKind {
    answer.err().expect("it is refused").kind
}

#[tokio::test]
async fn a_host_joins_once_with_a_token() {
    let (control, at) = (Control::start().await, tempfile::tempdir().unwrap());
    let token = control.token().await;
    let member = control.join(&token, "h1", &["compute"], at.path()).await.unwrap();
    assert_eq!(member.common.bus_prefix, "p");
    assert_eq!(Member::read(at.path()).unwrap().identity, member.identity);
    assert_eq!(kind(control.join(&token, "h2", &["compute"], at.path()).await), ErrorKind::Unauthorized);
    let hosts = control.door.hosts().await.unwrap();
    assert_eq!(hosts.len(), 1);
    assert_eq!((hosts[0].name.as_str(), hosts[0].up, hosts[0].seconds_silent), ("h1", false, None));
}

#[tokio::test]
async fn wrong_tokens() {
    let (control, other, at) = (Control::start().await, Control::start().await, tempfile::tempdir().unwrap());
    let refused = async |token: &str, name: &str, roles: &[&str]| {
        kind(control.join(token, name, roles, at.path()).await)
    };
    assert_eq!(refused("x", "h1", &["compute"]).await, ErrorKind::BadRequest);
    // Of another cloud: the door is not believed.
    assert_eq!(refused(&other.token().await, "h1", &["compute"]).await, ErrorKind::Unavailable);
    // A wrong secret does not use up the right one.
    let token = control.token().await;
    let (id, rest) = token.split_once('.').unwrap();
    let wrong = format!("{id}.0{}", &rest[1..]);
    if wrong != token {
        assert_eq!(refused(&wrong, "h1", &["compute"]).await, ErrorKind::Unauthorized);
    }
    for (name, roles) in [("h1", &["control"][..]), ("h1", &[]), ("../h1", &["compute"])] {
        assert_eq!(refused(&token, name, roles).await, ErrorKind::BadRequest, "{name} {roles:?}");
    }
    control.join(&token, "h1", &["compute"], at.path()).await.unwrap();
    let for_storage = control.door.new_token(None, vec!["storage".into()]).await.unwrap();
    assert_eq!(refused(&for_storage, "h2", &["compute", "storage"]).await, ErrorKind::Forbidden);
    let expired = control.token().await;
    control.clock.advance(Duration::from_secs(61 * 60));
    assert_eq!(refused(&expired, "h2", &["compute"]).await, ErrorKind::Unauthorized);
}

#[tokio::test]
async fn a_door_that_is_not_there() {
    let (control, at) = (Control::start().await, tempfile::tempdir().unwrap());
    let identity =
        Identity { name: "h".into(), roles: vec!["compute".into()], address: [127, 0, 0, 1].into() };
    for url in ["http://127.0.0.1:1", "https://", "https://127.0.0.1:1/x"] {
        let refused = join(url, &control.token().await, identity.clone(), at.path(), &control.clock).await;
        assert_eq!(kind(refused), ErrorKind::BadRequest, "{url}");
    }
    let closed =
        join("https://127.0.0.1:1", &control.token().await, identity, at.path(), &control.clock).await;
    assert_eq!(kind(closed), ErrorKind::Unavailable);
    assert_eq!(kind(Member::read(at.path())), ErrorKind::NotFound);
}

#[tokio::test]
async fn images_come_and_go_whole_or_not_at_all() {
    let (control, at) = (Control::start().await, tempfile::tempdir().unwrap());
    let member = control.join(&control.token().await, "h1", &["compute"], at.path()).await.unwrap();
    let images = RemoteImages::new(member, at.path());
    let cx = Context { user_id: "seven77".into(), ..Context::default() };
    let mut bytes = Vec::new();
    images.download(&cx, "good", &mut bytes).await.unwrap();
    assert!(bytes.len() == 3_000_000 && bytes.iter().all(|byte| *byte == 7));
    assert_eq!(kind(images.download(&cx, "none", &mut Vec::new()).await), ErrorKind::NotFound);
    assert_eq!(kind(images.download(&cx, "broken", &mut Vec::new()).await), ErrorKind::Unavailable);

    images.upload(&cx, "new", &mut bytes.as_slice()).await.unwrap();
    assert_eq!(*control.images.brought.lock().unwrap(), bytes);
    assert_eq!(kind(images.upload(&cx, "old", &mut bytes.as_slice()).await), ErrorKind::Conflict);
    control.images.brought.lock().unwrap().clear();
    images.upload(&cx, "new", &mut Breaks(false)).await.unwrap_err();
    assert!(control.images.brought.lock().unwrap().is_empty(), "half an image is none");
}

#[tokio::test]
async fn certificates_are_renewed_in_time_and_the_replaced_are_refused() {
    let (control, at) = (Control::start().await, tempfile::tempdir().unwrap());
    let mut member = control.join(&control.token().await, "h1", &["compute"], at.path()).await.unwrap();
    let first = Credentials::read(at.path()).unwrap();
    assert!(!member.renew_in_time(at.path(), &control.clock).await.unwrap());
    for _ in 0..2 {
        member.renew_at = control.clock.now();
        assert!(member.renew_in_time(at.path(), &control.clock).await.unwrap());
    }
    let newest = Credentials::read(at.path()).unwrap();
    assert!(newest.certificate != first.certificate && newest.key == first.key);
    let images = |member: &Member| RemoteImages::new(member.clone(), at.path());
    let cx = Context::default();
    images(&member).download(&cx, "good", &mut Vec::new()).await.unwrap();
    // Two renewals old.
    first.write(at.path()).unwrap();
    assert_eq!(kind(images(&member).download(&cx, "good", &mut Vec::new()).await), ErrorKind::Forbidden);
    newest.write(at.path()).unwrap();
    control.door.remove("h1", false).await.unwrap();
    assert_eq!(kind(images(&member).download(&cx, "good", &mut Vec::new()).await), ErrorKind::Forbidden);
    member.renew_at = control.clock.now();
    assert_eq!(kind(member.renew_in_time(at.path(), &control.clock).await), ErrorKind::Forbidden);
}

/// Two hosts on two addresses of this machine; a third of another cloud.
#[tokio::test]
async fn hosts_speak_to_each_other_by_their_certificates() {
    let (control, other) = (Control::start().await, Control::start().await);
    let at: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    for (control, name, at) in [(&control, "h1", &at[0]), (&control, "h2", &at[1]), (&other, "h1", &at[2])] {
        control.join(&control.token().await, name, &["compute"], at.path()).await.unwrap();
    }
    let one = Lines::listen(at[0].path(), "127.0.0.9:0".parse().unwrap()).await.unwrap();
    let listen = async |at: &Path, host: [u8; 4]| Lines::listen(at, (host, one.port()).into()).await.unwrap();
    let two = listen(at[1].path(), [127, 0, 0, 10]).await;
    let stranger = listen(at[2].path(), [127, 0, 0, 11]).await;
    let peer = |host: &str, number: u8| Peer { host: host.into(), address: format!("127.0.0.{number}") };
    let mut here = two.reach(&peer("h1", 9)).await.unwrap();
    let (name, mut there) = one.answer().await.unwrap();
    assert_eq!(name, "h2");
    here.write_all(b"hello").await.unwrap();
    here.shutdown().await.unwrap();
    let mut heard = String::new();
    there.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "hello");
    for (wrong, why) in [(peer("h3", 9), "another's name"), (peer("h1", 11), "another cloud's host")] {
        assert_eq!(two.reach(&wrong).await.err().unwrap().kind, ErrorKind::Unavailable, "{why}");
    }
    // The refusal comes behind the handshake: nothing is answered, and nobody hears of it.
    if let Ok(mut line) = stranger.reach(&peer("h1", 9)).await {
        let _ = line.write_all(b"hello").await;
        assert!(line.read_u8().await.is_err());
    }
    let heard = tokio::time::timeout(Duration::from_millis(200), one.answer()).await;
    assert!(heard.is_err(), "a stranger was heard");
}

#[tokio::test]
async fn a_servers_certificate_is_no_hosts() {
    let control = Control::start().await;
    let made = async |name: &str| Hosts::server_credentials(&control._db.db, &control.clock, name).await;
    assert_eq!(kind(made("control.ferrostack").await), ErrorKind::BadRequest);
    assert_eq!(kind(made("not a name").await), ErrorKind::BadRequest);
    let at = tempfile::tempdir().unwrap();
    control.join(&control.token().await, "h1", &["compute"], at.path()).await.unwrap();
    let one = Lines::listen(at.path(), "127.0.0.12:0".parse().unwrap()).await.unwrap();
    let server = tempfile::tempdir().unwrap();
    made("h1").await.unwrap().write(server.path()).unwrap();
    let posing = Lines::listen(server.path(), (([127, 0, 0, 13]), one.port()).into()).await.unwrap();
    let peer = Peer { host: "h1".into(), address: "127.0.0.12".into() };
    let _line = posing.reach(&peer).await.unwrap();
    assert_eq!(one.answer().await.unwrap().0, "server h1");
}

#[tokio::test]
async fn strangers_at_the_door() {
    let (control, at) = (Control::start().await, tempfile::tempdir().unwrap());
    let nobody =
        Door::of_operator(control.url.clone(), control.directory.path(), Secret::new("guess")).unwrap();
    assert_eq!(kind(nobody.hosts().await), ErrorKind::Unauthorized);
    assert_eq!(kind(nobody.new_token(None, Vec::new()).await), ErrorKind::Unauthorized);
    assert_eq!(kind(nobody.remove("h1", false).await), ErrorKind::Unauthorized);
    // A member of another cloud: its certificate is another authority's.
    let other = Control::start().await;
    let mut member = other.join(&other.token().await, "h1", &["compute"], at.path()).await.unwrap();
    member.common.doors = vec![control.url.clone()];
    let images = RemoteImages::new(member, at.path());
    assert!(images.download(&Context::default(), "good", &mut Vec::new()).await.is_err());
}

#[tokio::test]
async fn signs_of_life() {
    let (control, at) = (Control::start().await, tempfile::tempdir().unwrap());
    let bus = Bus::local_twice();
    let _serving = control.hosts.start(&bus).await.unwrap();
    control.join(&control.token().await, "h1", &["compute"], at.path()).await.unwrap();
    let reports = RemoteHostReports::new(bus, bus::Topic::any(REPORTS_TOPIC));
    let host = HostAlive { name: "h1".into(), roles: vec!["network".into()], ..HostAlive::default() };
    let say = async |host: &HostAlive| reports.host_alive(&Context::internal(), host).await.unwrap();
    assert_eq!(say(&host).await, HostOrder::Serve);
    let seen = async || control.door.hosts().await.unwrap().remove(0);
    assert!(seen().await.up && seen().await.roles == ["network"]);
    control.clock.advance(Duration::from_secs(31));
    assert!(!seen().await.up);
    assert_eq!(control.door.set_state("h1", "draining").await.unwrap().state, "drained");
    assert_eq!(say(&host).await, HostOrder::Drain);
    assert_eq!(kind(control.door.set_state("h1", "dead").await), ErrorKind::BadRequest);
    assert_eq!(kind(control.door.set_state("h2", "active").await), ErrorKind::NotFound);
    control.door.set_state("h1", "active").await.unwrap();
    assert_eq!(say(&host).await, HostOrder::Serve);
    control.door.remove("h1", false).await.unwrap();
    assert_eq!(say(&host).await, HostOrder::Leave);
    assert_eq!(kind(control.door.set_state("h1", "active").await), ErrorKind::Conflict);
    assert_eq!(say(&HostAlive { name: "never".into(), ..host }).await, HostOrder::Leave);
    // It may come again.
    control.join(&control.token().await, "h1", &["compute"], at.path()).await.unwrap();
    assert_eq!(seen().await.state, "active");
}

#[tokio::test]
async fn a_host_is_emptied_before_it_goes() {
    let (control, at) = (Control::start().await, tempfile::tempdir().unwrap());
    control.join(&control.token().await, "h1", &["compute"], at.path()).await.unwrap();
    let (door, servers) = (&control.door, &control.servers);
    *servers.gone.lock().unwrap() = false;
    let refused = door.remove("h1", false).await.unwrap_err();
    assert!(refused.is(ErrorKind::Conflict) && refused.message.contains("1 server"), "{refused}");
    assert_eq!(kind(door.set_state("h2", "draining").await), ErrorKind::NotFound);
    assert_eq!(kind(door.host("h2").await), ErrorKind::NotFound);
    assert!(servers.closed.lock().unwrap().is_empty(), "a host that is unknown is not closed");

    let draining = door.set_state("h1", "draining").await.unwrap();
    assert_eq!((draining.state.as_str(), draining.left.len()), ("draining", 1));
    assert_eq!(*servers.closed.lock().unwrap(), ["h1"]);
    *servers.stuck.lock().unwrap() = true;
    let emptying = tokio::spawn(hosts::keep_emptying(control.hosts.clone()));
    while door.host("h1").await.unwrap().left.len() > 1 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let shown = door.host("h1").await.unwrap();
    assert!(shown.state == "draining" && shown.left[0].stuck);
    *servers.stuck.lock().unwrap() = false;
    assert_eq!(door.host("h1").await.unwrap().state, "drained");
    assert_eq!(door.set_state("h1", "active").await.unwrap().state, "active");
    assert!(servers.closed.lock().unwrap().is_empty());
    emptying.abort();

    *servers.stuck.lock().unwrap() = true;
    assert_eq!(kind(door.remove("h1", false).await), ErrorKind::Conflict);
    door.remove("h1", true).await.unwrap();
    assert_eq!(kind(door.set_state("h1", "draining").await), ErrorKind::Conflict);
}

#[tokio::test]
async fn every_statement_is_understood_by_both_databases() {
    for test in testing::all(TABLES, &[]).await.unwrap() {
        assert!(testing::prepare_all(&test.db, TABLES).await.unwrap() > 5);
        let clock = Clock::real();
        let one = Hosts::control_credentials(&test.db, &clock, "c1").await.unwrap();
        let two = Hosts::control_credentials(&test.db, &clock, "c2").await.unwrap();
        assert_eq!(one.authority, two.authority, "control nodes share the authority");
    }
}
