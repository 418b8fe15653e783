//! Flows through everything that may happen to them. Afterwards placement's books and the ports say the same.

use crate::{Neutron, Options, Running, flows::reallocate::Change, model::*, qos_ports, store};
use async_trait::async_trait;
use base::{Clock, Context, Timestamp};
use bus::Bus;
use contracts::{
    fakes::placement::Books,
    networks::{Binding, Networks, NewPort},
};
use db::testing::TestDb;
use flow::{
    Flows,
    torture::{Ordeal, World, torture},
};
use serde_json::json;
use std::{collections::BTreeMap, sync::Arc};

const CLASS: &str = qos_ports::BANDWIDTH_EGRESS;
const PORT: &str = "aaaaaaaa-0000-4000-8000-000000000001";

struct Reallocating {
    database: TestDb,
    books: Arc<Books>,
    neutron: Arc<Neutron>,
    running: Option<Running>,
}

impl Reallocating {
    async fn begin(&mut self) {
        let bus = Bus::local();
        let clock = clock();
        let db = self.database.db.clone();
        self.neutron = Neutron::new(db, clock, Options::default(), bus, self.books.clone());
        self.running = Some(self.neutron.start().await.unwrap());
    }
}

fn clock() -> Clock {
    Clock::test(Timestamp::parse("2026-11-21T08:00:00Z").unwrap())
}

#[async_trait]
impl World for Reallocating {
    async fn build() -> Self {
        let database = db::testing::sqlite(crate::TABLES, crate::MIGRATIONS).await.unwrap();
        let books = Arc::new(Books::default());
        *books.most.lock() = 100;
        let options = Options::default();
        let neutron = Neutron::new(database.db.clone(), clock(), options, Bus::local(), books.clone());
        let mut world = Self { database, books, neutron, running: None };
        world.begin().await;
        world.neutron.bootstrap("p").await.unwrap();
        let network = world.neutron.write(|tx, _| {
            for (policy, rate) in [("first", 10), ("second", 20)] {
                tx.insert(&QosRule {
                    id: format!("rule of {policy}"),
                    qos_policy_id: policy.into(),
                    kind: qos_ports::MINIMUM_BANDWIDTH.into(),
                    rate,
                    burst: 0,
                    direction: Some("egress".into()),
                    dscp_mark: None,
                })?;
            }
            Ok(tx.list::<Network>(&db::List::all())?.remove(0).id)
        });
        let network_id = network.await.unwrap();
        let cx = Context { project_id: "p".into(), ..Context::internal() };
        let wanted = NewPort { id: PORT.into(), network_id, ..NewPort::default() };
        world.neutron.create_port(&cx, &wanted).await.unwrap();
        let given = json!({"qos_policy_id": "first"}).as_object().cloned().unwrap();
        world.neutron.change(&cx, Change::Port { id: PORT.into(), given }).await.unwrap();
        let groups = world.neutron.port(&cx.elevated(), PORT).await.unwrap().resource_request;
        let binding = Binding {
            port_id: PORT.into(),
            device_id: "server".into(),
            device_owner: "compute:nova".into(),
            host: "h".into(),
            dns_name: None,
            allocation: groups.into_iter().map(|group| (group.id, "eth1".to_string())).collect(),
        };
        world.neutron.bind_port(&cx, &binding).await.unwrap();
        let first = BTreeMap::from([(CLASS.to_string(), 10)]);
        world.books.held.lock().insert("eth1".into(), first);
        world
    }

    fn flows(&self) -> &Flows {
        &self.neutron.flows
    }

    async fn start(&mut self) {
        let given = json!({"qos_policy_id": "second"}).as_object().cloned().unwrap();
        let change = Change::Port { id: PORT.into(), given };
        assert!(self.neutron.begin_change(&Context::internal(), change).await.unwrap().is_some());
    }

    async fn restart(&mut self) {
        self.running = None;
        self.begin().await;
    }

    async fn check(&mut self, ordeal: &Ordeal) {
        let port = self.neutron.read(|tx| store::get::<Port>(tx, store::PORT, PORT)).await.unwrap();
        let (policy, amount) = if ordeal.fails() { ("first", 10) } else { ("second", 20) };
        assert_eq!(port.qos_policy_id.as_deref(), Some(policy), "{ordeal}");
        assert_eq!(self.books.held.lock()["eth1"][CLASS], amount, "{ordeal}");
        let flows = self.database.db.read(|tx| tx.query(db::sql!("SELECT id FROM flow"), db::params![]));
        assert!(flows.await.unwrap().is_empty(), "{ordeal}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reallocating() {
    assert!(torture::<Reallocating>().await > 15);
}
