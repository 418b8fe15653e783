//! Messages to send, a broker to send them over, and waiting for what comes.
#![allow(dead_code, reason = "each test file uses its part")]

use base::{Context, id};
use bus::{Bus, Message, RabbitOptions};
use serde::{Deserialize, Serialize};
use std::time::Duration;

#[derive(Serialize, Deserialize)]
pub struct Add(pub i64, pub i64);

impl Message for Add {
    const NAME: &'static str = "add";
    type Reply = i64;
}

#[derive(Serialize, Deserialize)]
pub struct Note(pub String, pub u32);

impl Message for Note {
    const NAME: &'static str = "note";
    type Reply = ();
}

pub fn cx() -> Context {
    Context { request_id: "req-1".into(), user_id: "u".into(), ..Context::default() }
}

/// The broker that the environment names, `amqp://user:password@host:port`.
pub fn broker() -> String {
    std::env::var("FERROSTACK_TEST_RABBITMQ").expect("FERROSTACK_TEST_RABBITMQ names a broker")
}

/// What two processes of one cloud share; another one's queues are others.
pub fn options(url: &str, prefix: &str) -> RabbitOptions {
    RabbitOptions {
        urls: vec![url.into()],
        prefix: prefix.into(),
        name: "test".into(),
        tls: None,
        patience: Duration::from_secs(30),
    }
}

pub fn new_prefix() -> String {
    format!("test-{}", id::uuid())
}

pub async fn rabbit() -> Bus {
    Bus::rabbit(options(&broker(), &new_prefix())).await.unwrap()
}

/// Panics when it does not come to be so.
pub async fn comes(is_so: impl AsyncFn() -> bool) {
    for _ in 0..600 {
        if is_so().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("it did not come to be so");
}
