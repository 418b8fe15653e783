//! One connection to the broker: what is declared on it and published through it.

use super::{RabbitOptions, RabbitTls};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer, ErrorKind,
    ExchangeKind,
    options::{
        BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions,
        QueueBindOptions, QueueDeclareOptions,
    },
    tcp::{OwnedIdentity, OwnedTLSConfig},
    types::{AMQPValue, FieldTable},
    uri::AMQPUri,
};
use parking_lot::Mutex;
use std::{collections::HashSet, str::FromStr, sync::Arc, time::Duration};
use tokio::{net::TcpStream, time::timeout};

/// A peer that says nothing for twice as long is dead.
const HEARTBEAT_SECONDS: u16 = 5;
/// Queues that nobody serves or asks for this long go.
const QUEUE_EXPIRES_MS: i64 = 600_000;
/// A message that so many processes died of is dropped.
const DELIVERIES_MAX: i64 = 5;
const PERSISTENT: u8 = 2;

pub struct Link {
    connection: Connection,
    /// In confirm mode.
    publisher: Channel,
    /// Exchanges that are known to be there.
    exchanges: Mutex<HashSet<String>>,
}

/// A message for the broker.
pub struct Post {
    pub id: String,
    /// Empty: straight to the queue of the routing key.
    pub exchange: String,
    pub routing_key: String,
    pub reply_to: Option<String>,
    pub expires_in: Option<Duration>,
    /// Comes back when no queue takes it.
    pub mandatory: bool,
    pub bytes: Vec<u8>,
}

impl Post {
    pub fn new(id: &str, bytes: Vec<u8>) -> Self {
        Self {
            id: id.into(),
            exchange: String::new(),
            routing_key: String::new(),
            reply_to: None,
            expires_in: None,
            mandatory: false,
            bytes,
        }
    }
}

pub enum Sent {
    Taken,
    /// No queue took it.
    Returned,
}

impl Link {
    pub async fn open(url: &str, options: &RabbitOptions) -> lapin::Result<Self> {
        let mut uri = AMQPUri::from_str(url)
            .map_err(|e| ErrorKind::IOError(Arc::new(std::io::Error::other(format!("address: {e}")))))?;
        uri.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
        let (host, port) = (uri.authority.host.clone(), uri.authority.port);
        let reached = timeout(super::REACHED_WITHIN, TcpStream::connect((host, port))).await;
        reached.map_err(|_| io_error(std::io::ErrorKind::TimedOut.into()))?.map_err(io_error)?;
        let properties = ConnectionProperties::default().with_connection_name(options.name.clone().into());
        let tls = options.tls.as_ref().map_or_else(|| Ok(OwnedTLSConfig::default()), tls_config)?;
        let runtime = lapin::runtime::default_runtime()?;
        let connection = Connection::connect_uri_with_config(uri, properties, tls, runtime).await?;
        let publisher = connection.create_channel().await?;
        publisher.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(Self { connection, publisher, exchanges: Mutex::default() })
    }

    pub async fn channel(&self) -> lapin::Result<Channel> {
        self.connection.create_channel().await
    }

    /// Makes the queue if it is not there. Answers how many serve it.
    pub async fn declare(&self, queue: &str) -> lapin::Result<u32> {
        declare(&self.publisher, queue).await
    }

    /// A queue that this process alone reads, message by message.
    pub async fn consume_alone(&self, queue: &str) -> lapin::Result<Consumer> {
        let channel = self.channel().await?;
        declare(&channel, queue).await?;
        channel
            .basic_consume(queue.into(), "".into(), BasicConsumeOptions::default(), FieldTable::default())
            .await
    }

    /// Returns when the broker has confirmed it.
    pub async fn publish(&self, post: &Post) -> lapin::Result<Sent> {
        if !post.exchange.is_empty() && !self.exchanges.lock().contains(&post.exchange) {
            declare_exchange(&self.publisher, &post.exchange).await?;
            self.exchanges.lock().insert(post.exchange.clone());
        }
        let mut properties = BasicProperties::default()
            .with_delivery_mode(PERSISTENT)
            .with_correlation_id(post.id.clone().into());
        if let Some(reply_to) = &post.reply_to {
            properties = properties.with_reply_to(reply_to.clone().into());
        }
        if let Some(expires_in) = post.expires_in {
            properties = properties.with_expiration(expires_in.as_millis().max(1).to_string().into());
        }
        let options = BasicPublishOptions { mandatory: post.mandatory, ..BasicPublishOptions::default() };
        let (exchange, key) = (post.exchange.clone().into(), post.routing_key.clone().into());
        let confirm =
            self.publisher.basic_publish(exchange, key, options, &post.bytes, properties).await?.await?;
        let refused = confirm.is_nack();
        // Of several under way, the broker may return another one with this one's confirmation.
        let returned = matches!(&confirm, Confirmation::Ack(Some(back)) | Confirmation::Nack(Some(back))
            if back.properties.correlation_id().as_ref().is_some_and(|id| id.as_str() == post.id));
        match (returned, refused) {
            (true, _) => Ok(Sent::Returned),
            (false, false) => Ok(Sent::Taken),
            (false, true) => Err(io_error(std::io::Error::other("the broker refused a message"))),
        }
    }

    /// After an error: a connection that does not do what it is asked is ended, so that a new one is made.
    pub async fn is_of_no_use(&self, error: &lapin::Error) {
        tracing::warn!(%error, "the message broker failed; connecting anew");
        let _ = self.connection.close(200, "".into()).await;
        tokio::time::sleep(super::FIRST_PAUSE).await;
    }
}

/// A quorum queue. Answers how many consume it.
pub async fn declare(channel: &Channel, queue: &str) -> lapin::Result<u32> {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    arguments.insert("x-expires".into(), AMQPValue::LongLongInt(QUEUE_EXPIRES_MS));
    arguments.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(DELIVERIES_MAX));
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    Ok(channel.queue_declare(queue.into(), options, arguments).await?.consumer_count())
}

pub async fn declare_exchange(channel: &Channel, exchange: &str) -> lapin::Result<()> {
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    channel.exchange_declare(exchange.into(), ExchangeKind::Fanout, options, FieldTable::default()).await
}

pub async fn bind(channel: &Channel, queue: &str, exchange: &str) -> lapin::Result<()> {
    declare_exchange(channel, exchange).await?;
    let options = QueueBindOptions::default();
    channel.queue_bind(queue.into(), exchange.into(), "".into(), options, FieldTable::default()).await
}

fn tls_config(tls: &RabbitTls) -> lapin::Result<OwnedTLSConfig> {
    let read = |path: &std::path::Path| {
        std::fs::read(path).map_err(|e| io_error(std::io::Error::other(format!("{}: {e}", path.display()))))
    };
    let authority = String::from_utf8_lossy(&read(&tls.authority)?).into_owned();
    let identity = OwnedIdentity::PKCS8 { pem: read(&tls.certificate)?, key: read(&tls.key)? };
    Ok(OwnedTLSConfig { identity: Some(identity), cert_chain: Some(authority) })
}

fn io_error(error: std::io::Error) -> lapin::Error {
    ErrorKind::IOError(Arc::new(error)).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::{io::AsyncReadExt, net::TcpListener};

    /// The TLS of the broker's client is a feature of a crate below it, and missing it says nothing.
    #[tokio::test]
    async fn an_amqps_address_is_never_spoken_to_plainly() {
        const HANDSHAKE: u8 = 0x16;
        let broker = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("amqps://user:password@{}", broker.local_addr().unwrap());
        let (key, files) = (rcgen::KeyPair::generate().unwrap(), tempfile::tempdir().unwrap());
        let own = rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap().self_signed(&key).unwrap();
        let file = |name: &str, text: String| {
            let path = files.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let certificate = file("certificate.pem", own.pem());
        let key = file("key.pem", key.serialize_pem());
        let options = RabbitOptions {
            urls: vec![url.clone()],
            prefix: String::new(),
            name: String::new(),
            tls: Some(RabbitTls { authority: certificate.clone(), certificate, key }),
            patience: Duration::ZERO,
        };
        let opening = tokio::spawn(async move { Link::open(&url, &options).await.map(drop) });
        broker.accept().await.unwrap();
        let (mut stream, _) = broker.accept().await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), HANDSHAKE);
        opening.abort();
    }
}
