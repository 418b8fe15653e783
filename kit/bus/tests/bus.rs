//! What callers and servers may rely on, whichever carrier it is: every story is told on each of them.

mod common;

use base::{Context, Error, ErrorKind, Result};
use bus::{Bus, Handlers, Topic};
use common::{Add, Note, comes, cx};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

/// A test of each story for each carrier.
macro_rules! on_both_carriers {
    ($($story:ident),* $(,)?) => {
        mod local {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $story() {
                super::$story(bus::Bus::local()).await;
            })*
        }

        mod rabbit {
            $(#[tokio::test(flavor = "multi_thread")]
            #[ignore = "needs a broker in FERROSTACK_TEST_RABBITMQ: make test"]
            async fn $story() {
                super::$story(crate::common::rabbit().await).await;
            })*
        }
    };
}

on_both_carriers! {
    answers_and_errors_cross_intact,
    a_silent_peer_is_an_unknown_outcome,
    a_panic_is_an_error_of_ours,
    a_caller_who_goes_away_stops_nothing,
    messages_of_one_key_keep_their_order_and_others_pass,
    fanout_reaches_all_and_calls_take_turns,
    notifications_reach_subscribers_while_they_listen,
    a_trait_is_the_same_here_and_over_the_bus,
    many_at_once,
    what_runs_is_finished_when_the_serving_ends,
}

fn adder() -> Handlers {
    Handlers::new().on(async |cx: Context, Add(a, b)| {
        assert_eq!((cx.request_id.as_str(), cx.user_id.as_str()), ("req-1", "u"));
        assert!(cx.deadline.is_some());
        a.checked_add(b).ok_or_else(|| Error::conflict("too much").code("sum"))
    })
}

async fn answers_and_errors_cross_intact(bus: Bus) {
    let host1 = Topic::on("adder", "host1");
    let serving = bus.serve(host1.clone(), adder()).await.unwrap();
    assert_eq!(bus.call(&cx(), &host1, &Add(1, 2)).await.unwrap(), 3);
    assert_eq!(bus.call(&cx(), &Topic::any("adder"), &Add(1, 2)).await.unwrap(), 3);
    let error = bus.call(&cx(), &host1, &Add(i64::MAX, 2)).await.unwrap_err();
    assert_eq!((error.kind, error.message.as_str()), (ErrorKind::Conflict, "too much"));
    assert_eq!(error.code.as_deref(), Some("sum"));
    let unknown = bus.call(&cx(), &host1, &Note("a".into(), 1)).await.unwrap_err();
    assert_eq!(unknown.kind, ErrorKind::NotImplemented);
    let absent = bus.call(&cx(), &Topic::on("adder", "host2"), &Add(1, 2)).await.unwrap_err();
    assert_eq!(
        (absent.kind, absent.message.as_str()),
        (ErrorKind::Unavailable, "adder on host2 is not there")
    );
    drop(serving);
    comes(async || {
        bus.call(&cx(), &host1, &Add(1, 2)).await.is_err_and(|e| e.kind == ErrorKind::Unavailable)
    })
    .await;
    let nobody = bus.cast(&cx(), &host1, &Note("a".into(), 1)).await.unwrap_err();
    assert_eq!(nobody.kind, ErrorKind::Unavailable);
}

async fn a_silent_peer_is_an_unknown_outcome(bus: Bus) {
    let topic = Topic::any("adder");
    let silent = Handlers::new().on(async |_, _: Add| std::future::pending::<Result<i64>>().await);
    let _serving = bus.serve(topic.clone(), silent).await.unwrap();
    let error =
        bus.with_patience(Duration::from_millis(500)).call(&cx(), &topic, &Add(1, 2)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Timeout);
    assert_eq!(error.message, "adder did not answer add in 0.5 s");
}

async fn a_panic_is_an_error_of_ours(bus: Bus) {
    let topic = Topic::any("adder");
    let broken = Handlers::new().on(async |_, Add(a, b)| Ok(a / b));
    let _serving = bus.serve(topic.clone(), broken).await.unwrap();
    let error = bus.call(&cx(), &topic, &Add(1, 0)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Internal);
    assert_eq!(bus.call(&cx(), &topic, &Add(4, 2)).await.unwrap(), 2);
}

async fn a_caller_who_goes_away_stops_nothing(bus: Bus) {
    let topic = Topic::any("notes");
    let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let (begins, mut begun) = tokio::sync::mpsc::unbounded_channel();
    let slow = Handlers::new().on(move |_, Note(text, _)| {
        let (told, begins) = (told.clone(), begins.clone());
        async move {
            begins.send(()).unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
            told.send(text).map_err(|e| Error::internal(e.to_string()))
        }
    });
    let _serving = bus.serve(topic.clone(), slow).await.unwrap();
    let note = Note("a".into(), 1);
    let called = tokio::spawn({
        let (bus, topic) = (bus.clone(), topic.clone());
        async move { bus.call(&cx(), &topic, &note).await }
    });
    begun.recv().await.unwrap();
    called.abort();
    assert_eq!(heard.recv().await.as_deref(), Some("a"));
}

async fn messages_of_one_key_keep_their_order_and_others_pass(bus: Bus) {
    let topic = Topic::any("notes");
    let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let handlers = Handlers::new().on_in_order(
        |note: &Note| note.0.clone(),
        move |_, Note(key, n)| {
            let told = told.clone();
            async move {
                // The first of a takes longest.
                let wait = if key == "a" { 200 / (n as u64 + 1) } else { 0 };
                tokio::time::sleep(Duration::from_millis(wait)).await;
                told.send((key, n)).map_err(|e| Error::internal(e.to_string()))
            }
        },
    );
    let _serving = bus.serve(topic.clone(), handlers).await.unwrap();
    for n in 0..4 {
        bus.cast(&cx(), &topic, &Note("a".into(), n)).await.unwrap();
    }
    bus.cast(&cx(), &topic, &Note("b".into(), 9)).await.unwrap();
    let mut order = Vec::new();
    for _ in 0..5 {
        order.push(heard.recv().await.unwrap());
    }
    // b has passed a, wherever it came.
    assert!(order.contains(&("b".to_string(), 9)) && order[4].0 == "a");
    assert_eq!(order.iter().filter(|(key, _)| key == "a").map(|(_, n)| *n).collect::<Vec<_>>(), [0, 1, 2, 3]);
}

async fn fanout_reaches_all_and_calls_take_turns(bus: Bus) {
    let counts = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
    let mut servings = Vec::new();
    for n in 0..2 {
        let counts = counts.clone();
        let handlers = Handlers::new().on(move |_, _: Add| {
            counts[n].fetch_add(1, Ordering::SeqCst);
            async { Ok(0) }
        });
        servings.push(bus.serve(Topic::on("s", format!("h{n}")), handlers).await.unwrap());
    }
    bus.fanout(&cx(), "s", &Add(0, 0)).await.unwrap();
    for _ in 0..4 {
        bus.call(&cx(), &Topic::any("s"), &Add(0, 0)).await.unwrap();
    }
    comes(async || counts.iter().all(|count| count.load(Ordering::SeqCst) == 3)).await;
}

async fn many_at_once(bus: Bus) {
    let topic = Topic::on("adder", "host1");
    let _serving = bus.serve(topic.clone(), adder()).await.unwrap();
    let calls = (0..300).map(|n| {
        let (bus, topic) = (bus.clone(), topic.clone());
        tokio::spawn(async move { bus.call(&cx(), &topic, &Add(n, n)).await.unwrap() })
    });
    let calls: Vec<_> = calls.collect();
    for (n, call) in calls.into_iter().enumerate() {
        assert_eq!(call.await.unwrap(), 2 * n as i64);
    }
}

async fn what_runs_is_finished_when_the_serving_ends(bus: Bus) {
    let topic = Topic::any("adder");
    let (begins, mut begun) = tokio::sync::mpsc::unbounded_channel();
    let slow = Handlers::new().on(move |_, Add(a, b)| {
        let begins = begins.clone();
        async move {
            begins.send(()).unwrap();
            tokio::time::sleep(Duration::from_millis(300)).await;
            Ok(a + b)
        }
    });
    let serving = bus.serve(topic.clone(), slow).await.unwrap();
    let call = tokio::spawn({
        let bus = bus.clone();
        async move { bus.call(&cx(), &topic, &Add(1, 2)).await }
    });
    begun.recv().await.unwrap();
    drop(serving);
    assert_eq!(call.await.unwrap().unwrap(), 3);
}

#[tokio::test]
async fn in_the_test_mode_everything_comes_twice() {
    let (bus, topic, count) = (Bus::local_twice(), Topic::any("s"), Arc::new(AtomicUsize::new(0)));
    let counted = count.clone();
    let handlers = Handlers::new().on(move |_, Add(a, b)| {
        counted.fetch_add(1, Ordering::SeqCst);
        async move { Ok(a + b) }
    });
    let _serving = bus.serve(topic.clone(), handlers).await.unwrap();
    assert_eq!(bus.call(&cx(), &topic, &Add(1, 1)).await.unwrap(), 2);
    assert_eq!(count.load(Ordering::SeqCst), 2);
}

async fn notifications_reach_subscribers_while_they_listen(bus: Bus) {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hear = heard.clone();
    let listening =
        bus.subscribe(move |n| hear.lock().unwrap().push((n.event_type, n.payload))).await.unwrap();
    bus.notify(&cx(), "compute.instance.create.end", &serde_json::json!({"uuid": "x"})).await.unwrap();
    comes(async || !heard.lock().unwrap().is_empty()).await;
    drop(listening);
    tokio::time::sleep(Duration::from_millis(200)).await;
    bus.notify(&cx(), "compute.instance.delete.end", &()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let heard = heard.lock().unwrap();
    assert_eq!(*heard, [("compute.instance.create.end".to_string(), serde_json::json!({"uuid": "x"}))]);
}

#[bus::async_trait]
trait Agent: Send + Sync {
    async fn join(&self, cx: &Context, names: &[String], with: &str, times: u32) -> Result<String>;
    async fn fail(&self, cx: &Context) -> Result<()>;
}

bus::remote! {
    struct RemoteAgent: Agent as agent_handlers {
        join(names: &[String] = Vec<String>, with: &str = String, times: u32 = u32) -> String;
        fail() -> ();
    }
}

struct Here;

#[bus::async_trait]
impl Agent for Here {
    async fn join(&self, cx: &Context, names: &[String], with: &str, times: u32) -> Result<String> {
        Ok(format!("{}:{}", cx.user_id, names.join(with).repeat(times as usize)))
    }

    async fn fail(&self, _cx: &Context) -> Result<()> {
        Err(Error::not_found("no"))
    }
}

async fn a_trait_is_the_same_here_and_over_the_bus(bus: Bus) {
    let topic = Topic::on("agent", "h");
    let _serving = bus.serve(topic.clone(), agent_handlers(Arc::new(Here))).await.unwrap();
    let there = RemoteAgent::new(bus, topic);
    let agents: [&dyn Agent; 2] = [&Here, &there];
    for agent in agents {
        let names = ["a".to_string(), "b".to_string()];
        assert_eq!(agent.join(&cx(), &names, "-", 2).await.unwrap(), "u:a-ba-b");
        assert_eq!(agent.fail(&cx()).await.unwrap_err().kind, ErrorKind::NotFound);
    }
}
