//! What a broker does to messages: it is away, the connection is cut, a message comes twice, late, or to another one.

mod common;

use base::{Context, ErrorKind, Result, Timestamp};
use bus::{Bus, Carrier, Envelope, Handlers, Rabbit, Topic};
use common::{Add, Note, broker, comes, cx, new_prefix, options};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
};

/// What is between a process and its broker, and can be cut.
struct Wire {
    url: String,
    up: watch::Sender<bool>,
}

impl Wire {
    async fn to(broker: &str) -> Self {
        let (scheme_and_user, address) = broker.rsplit_once('@').unwrap();
        let address = address.to_string();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("{scheme_and_user}@{}", listener.local_addr().unwrap());
        let up = watch::Sender::new(true);
        let state = up.subscribe();
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let mut state = state.clone();
                let address = address.clone();
                tokio::spawn(async move {
                    if !*state.borrow() {
                        return;
                    }
                    let mut far = TcpStream::connect(address).await.unwrap();
                    tokio::select! {
                        _ = copy_bidirectional(&mut near, &mut far) => {}
                        _ = state.wait_for(|up| !up) => {}
                    }
                });
            }
        });
        Self { url, up }
    }

    fn cut(&self) {
        self.up.send_replace(false);
    }

    fn mend(&self) {
        self.up.send_replace(true);
    }
}

/// A process of its own: its end is that of its wire.
async fn process(prefix: &str) -> (Bus, Wire) {
    let wire = Wire::to(&broker()).await;
    (Bus::rabbit(options(&wire.url, prefix)).await.unwrap(), wire)
}

/// Adds after a while, and says when it begins.
fn adder(pause: Duration) -> (Handlers, mpsc::UnboundedReceiver<()>) {
    let (begins, begun) = mpsc::unbounded_channel();
    let handlers = Handlers::new().on(move |_, Add(a, b)| {
        let begins = begins.clone();
        async move {
            let _ = begins.send(());
            tokio::time::sleep(pause).await;
            Ok(a + b)
        }
    });
    (handlers, begun)
}

fn call(bus: &Bus, topic: &Topic, message: Add) -> tokio::task::JoinHandle<Result<i64>> {
    let (bus, topic) = (bus.clone(), topic.clone());
    tokio::spawn(async move { bus.call(&cx(), &topic, &message).await })
}

#[tokio::test]
async fn a_broker_that_is_not_there_is_named_without_its_password() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut unreachable = options(&format!("amqp://u:secret@{closed}"), "p");
    unreachable.patience = Duration::from_millis(500);
    let error = Bus::rabbit(unreachable).await.err().unwrap();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(error.message.contains(&closed.to_string()), "{error}");
    assert!(!error.message.contains("secret"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a broker in FERROSTACK_TEST_RABBITMQ: make test"]
async fn a_wrong_password_is_said() {
    let (_, address) = broker().rsplit_once('@').map(|(a, b)| (a.to_string(), b.to_string())).unwrap();
    let mut wrong = options(&format!("amqp://ferrostack:wrong@{address}"), "p");
    wrong.patience = Duration::from_secs(5);
    let error = Bus::rabbit(wrong).await.err().unwrap();
    assert!(error.message.contains("ACCESS_REFUSED"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a broker in FERROSTACK_TEST_RABBITMQ: make test"]
async fn between_processes() {
    let (prefix, topic) = (new_prefix(), Topic::on("adder", "h"));
    let (here, _here) = process(&prefix).await;
    let (there, _there) = process(&prefix).await;
    let (handlers, _) = adder(Duration::ZERO);
    let _serving = there.serve(topic.clone(), handlers).await.unwrap();
    assert_eq!(here.call(&cx(), &topic, &Add(1, 2)).await.unwrap(), 3);
    assert_eq!(here.call(&cx(), &Topic::any("adder"), &Add(1, 2)).await.unwrap(), 3);
}

/// Both ends lose their connection while a call is under way: it is done once, and answered.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a broker in FERROSTACK_TEST_RABBITMQ: make test"]
async fn a_cut_connection_is_made_again_and_calls_go_on() {
    let (prefix, topic) = (new_prefix(), Topic::on("adder", "h"));
    let (here, near) = process(&prefix).await;
    let (there, far) = process(&prefix).await;
    let (handlers, mut begun) = adder(Duration::from_millis(1500));
    let _serving = there.serve(topic.clone(), handlers).await.unwrap();
    let under_way = call(&here, &topic, Add(1, 2));
    begun.recv().await.unwrap();
    for wire in [&near, &far] {
        wire.cut();
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    for wire in [&near, &far] {
        wire.mend();
    }
    assert_eq!(under_way.await.unwrap().unwrap(), 3);
    comes(async || here.call(&cx(), &topic, &Add(2, 2)).await.is_ok_and(|sum| sum == 4)).await;
    // It came a second time on the new connection, and was known.
    let mut times = 0;
    while begun.try_recv().is_ok() {
        times += 1;
    }
    assert_eq!(times, 1, "only the second call");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a broker in FERROSTACK_TEST_RABBITMQ: make test"]
async fn without_a_broker_nobody_is_there() {
    let (bus, wire) = process(&new_prefix()).await;
    wire.cut();
    let asked = Instant::now();
    let error = bus.call(&cx(), &Topic::any("adder"), &Add(1, 2)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
    assert!(asked.elapsed() < Duration::from_secs(30), "not the whole minute");
}

/// The message of a process that dies goes to the next one of its service.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a broker in FERROSTACK_TEST_RABBITMQ: make test"]
async fn another_one_takes_over_from_the_dead() {
    let (prefix, any) = (new_prefix(), Topic::any("adder"));
    let (here, _near) = process(&prefix).await;
    let (dying, wire) = process(&prefix).await;
    let (slow, mut begun) = adder(Duration::from_secs(3600));
    let _dying = dying.serve(any.clone(), slow).await.unwrap();
    let under_way = call(&here, &any, Add(1, 2));
    begun.recv().await.unwrap();
    let (living, _living_wire) = process(&prefix).await;
    let (fast, _) = adder(Duration::ZERO);
    let _living = living.serve(any, fast).await.unwrap();
    wire.cut();
    assert_eq!(under_way.await.unwrap().unwrap(), 3);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a broker in FERROSTACK_TEST_RABBITMQ: make test"]
async fn a_peer_that_dies_is_an_unknown_outcome_long_before_the_deadline() {
    let (prefix, topic) = (new_prefix(), Topic::on("adder", "h"));
    let (here, _near) = process(&prefix).await;
    let (dying, wire) = process(&prefix).await;
    let (slow, mut begun) = adder(Duration::from_secs(3600));
    let _dying = dying.serve(topic.clone(), slow).await.unwrap();
    let (asked, patient) = (Instant::now(), here.with_patience(Duration::from_secs(600)));
    let under_way = call(&patient, &topic, Add(1, 2));
    begun.recv().await.unwrap();
    wire.cut();
    let error = under_way.await.unwrap().unwrap_err();
    assert_eq!(error.kind, ErrorKind::Timeout);
    assert_eq!(error.message, "adder on h went away while it was at add");
    assert!(asked.elapsed() < Duration::from_secs(60));
    let error = here.call(&cx(), &topic, &Add(1, 2)).await.unwrap_err();
    assert_eq!((error.kind, error.message.as_str()), (ErrorKind::Unavailable, "adder on h is not there"));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a broker in FERROSTACK_TEST_RABBITMQ: make test"]
async fn an_answer_behind_its_deadline_is_nobodys() {
    let (prefix, topic) = (new_prefix(), Topic::on("adder", "h"));
    let (bus, _wire) = process(&prefix).await;
    let (slow, mut begun) = adder(Duration::from_millis(600));
    let _serving = bus.serve(topic.clone(), slow).await.unwrap();
    let hasty = bus.with_patience(Duration::from_millis(300));
    let error = hasty.call(&cx(), &topic, &Add(1, 2)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Timeout);
    begun.recv().await.unwrap();
    assert_eq!(bus.call(&cx(), &topic, &Add(2, 2)).await.unwrap(), 4, "its own answer, not the late one");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a broker in FERROSTACK_TEST_RABBITMQ: make test"]
async fn a_message_that_comes_twice_is_done_once() {
    let carrier = Rabbit::connect(options(&broker(), &new_prefix())).await.unwrap();
    let (topic, count) = (Topic::any("notes"), Arc::new(AtomicUsize::new(0)));
    let counted = count.clone();
    let handlers = Handlers::new().on(move |_, _: Note| {
        let counted = counted.clone();
        async move {
            counted.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(100)).await;
            Ok(())
        }
    });
    let _serving = carrier.serve(topic.clone(), Arc::new(handlers)).await.unwrap();
    let envelope = |id: &str| Envelope {
        id: id.into(),
        name: "note".into(),
        context: Context::default(),
        body: b"[\"a\",1]".to_vec(),
    };
    // While the first is under way, and when it is done.
    for pause in [0, 400, 0] {
        tokio::time::sleep(Duration::from_millis(pause)).await;
        carrier.cast(&topic, envelope("one")).await.unwrap();
    }
    carrier.cast(&topic, envelope("two")).await.unwrap();
    comes(async || count.load(Ordering::SeqCst) >= 2).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(count.load(Ordering::SeqCst), 2);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a broker in FERROSTACK_TEST_RABBITMQ: make test"]
async fn nobody_does_what_nobody_waits_for_any_more() {
    let (prefix, topic) = (new_prefix(), Topic::on("adder", "h"));
    let carrier = Rabbit::connect(options(&broker(), &prefix)).await.unwrap();
    let bus = Bus::rabbit(options(&broker(), &prefix)).await.unwrap();
    let (handlers, mut begun) = adder(Duration::ZERO);
    let _serving = bus.serve(topic.clone(), handlers).await.unwrap();
    let context = Context { deadline: Some(Timestamp(1)), ..Context::default() };
    let late = Envelope { id: "late".into(), name: "add".into(), context, body: b"[1,2]".to_vec() };
    let waited = tokio::time::timeout(Duration::from_millis(500), carrier.call(&topic, late)).await;
    assert!(waited.is_err() && begun.try_recv().is_err());
    assert_eq!(bus.call(&cx(), &topic, &Add(1, 2)).await.unwrap(), 3);
}
