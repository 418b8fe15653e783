//! What callers and servers may rely on, whichever carrier it is.

use base::{Context, Error, ErrorKind, Result};
use bus::{Bus, Handlers, Message, Topic};
use serde::{Deserialize, Serialize};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

#[derive(Serialize, Deserialize)]
struct Add(i64, i64);

impl Message for Add {
    const NAME: &'static str = "add";
    type Reply = i64;
}

#[derive(Serialize, Deserialize)]
struct Note(String, u32);

impl Message for Note {
    const NAME: &'static str = "note";
    type Reply = ();
}

fn cx() -> Context {
    Context { request_id: "req-1".into(), user_id: "u".into(), ..Context::default() }
}

fn adder() -> Handlers {
    Handlers::new().on(async |cx: Context, Add(a, b)| {
        assert_eq!((cx.request_id.as_str(), cx.user_id.as_str()), ("req-1", "u"));
        assert!(cx.deadline.is_some());
        a.checked_add(b).ok_or_else(|| Error::conflict("too much").code("sum"))
    })
}

#[tokio::test]
async fn answers_and_errors_cross_intact() {
    let (bus, host1) = (Bus::local(), Topic::on("adder", "host1"));
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
    let gone = bus.call(&cx(), &host1, &Add(1, 2)).await.unwrap_err();
    assert_eq!(gone.kind, ErrorKind::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_an_unknown_outcome() {
    let (bus, topic) = (Bus::local(), Topic::any("adder"));
    let silent = Handlers::new().on(async |_, _: Add| std::future::pending::<Result<i64>>().await);
    let _serving = bus.serve(topic.clone(), silent).await.unwrap();
    let error = bus.with_patience(Duration::from_secs(2)).call(&cx(), &topic, &Add(1, 2)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Timeout);
    assert_eq!(error.message, "adder did not answer add in 2 s");
}

#[tokio::test]
async fn a_panic_is_an_error_of_ours() {
    let (bus, topic) = (Bus::local(), Topic::any("adder"));
    let broken = Handlers::new().on(async |_, Add(a, b)| Ok(a / b));
    let _serving = bus.serve(topic.clone(), broken).await.unwrap();
    let error = bus.call(&cx(), &topic, &Add(1, 0)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Internal);
    assert_eq!(bus.call(&cx(), &topic, &Add(4, 2)).await.unwrap(), 2);
}

#[tokio::test]
async fn a_caller_who_goes_away_stops_nothing() {
    let (bus, topic) = (Bus::local(), Topic::any("notes"));
    let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let slow = Handlers::new().on(move |_, Note(text, _)| {
        let told = told.clone();
        async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            told.send(text).map_err(|e| Error::internal(e.to_string()))
        }
    });
    let _serving = bus.serve(topic.clone(), slow).await.unwrap();
    let note = Note("a".into(), 1);
    let called = tokio::time::timeout(Duration::from_millis(1), bus.call(&cx(), &topic, &note)).await;
    assert!(called.is_err());
    assert_eq!(heard.recv().await.as_deref(), Some("a"));
}

#[tokio::test]
async fn messages_of_one_key_keep_their_order_and_others_pass() {
    let (bus, topic) = (Bus::local(), Topic::any("notes"));
    let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let handlers = Handlers::new().on_in_order(
        |note: &Note| note.0.clone(),
        move |_, Note(key, n)| {
            let told = told.clone();
            async move {
                // The first of a takes longest.
                let wait = if key == "a" { 20 / (n as u64 + 1) } else { 0 };
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
    assert_eq!(order[0], ("b".to_string(), 9));
    assert_eq!(order[1..].iter().map(|(_, n)| *n).collect::<Vec<_>>(), [0, 1, 2, 3]);
}

#[tokio::test]
async fn fanout_reaches_all_and_calls_take_turns() {
    let (bus, counts) = (Bus::local(), Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]));
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
    assert_eq!(counts.iter().map(|c| c.load(Ordering::SeqCst)).collect::<Vec<_>>(), [3, 3]);
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

#[tokio::test]
async fn notifications_reach_subscribers_while_they_listen() {
    let (bus, heard) = (Bus::local(), Arc::new(Mutex::new(Vec::new())));
    let hear = heard.clone();
    let listening =
        bus.subscribe(move |n| hear.lock().unwrap().push((n.event_type, n.payload))).await.unwrap();
    bus.notify(&cx(), "compute.instance.create.end", &serde_json::json!({"uuid": "x"})).await.unwrap();
    drop(listening);
    bus.notify(&cx(), "compute.instance.delete.end", &()).await.unwrap();
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

#[tokio::test]
async fn a_trait_is_the_same_here_and_over_the_bus() {
    let (bus, topic) = (Bus::local(), Topic::on("agent", "h"));
    let _serving = bus.serve(topic.clone(), agent_handlers(Arc::new(Here))).await.unwrap();
    let there = RemoteAgent::new(bus, topic);
    let agents: [&dyn Agent; 2] = [&Here, &there];
    for agent in agents {
        let names = ["a".to_string(), "b".to_string()];
        assert_eq!(agent.join(&cx(), &names, "-", 2).await.unwrap(), "u:a-ba-b");
        assert_eq!(agent.fail(&cx()).await.unwrap_err().kind, ErrorKind::NotFound);
    }
}
