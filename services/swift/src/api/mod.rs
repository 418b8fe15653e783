//! The route table of swift, and the way of a request through it.

mod accounts;
mod bulk;
mod containers;
mod extract;
mod formpost;
mod info;
mod large;
mod object_copy;
mod object_delete;
mod object_put;
mod objects;
mod staticweb;

pub use objects::Found;

use crate::{
    Swift,
    answer::{Answer, Outcome, either, refuse_page},
    auth::Info,
    call::{Call, Place, quoted},
    constraints, cors, forms, store,
};
use base::Result;
use futures::future::BoxFuture;
use std::sync::Arc;
use web::{Mark, Method, Reply, Request, Routes, copy, delete, get, head, options, post, put};

const OF_ACCOUNT: &str = "/v1/{account}";
const OF_CONTAINER: &str = "/v1/{account}/{container}";
const OF_OBJECT: &str = "/v1/{account}/{container}/{*object}";

/// Every route is open: tokens, access lists and signatures are asked below.
#[rustfmt::skip]
pub fn routes() -> Routes<Swift> {
    let mut routes = vec![
        get("/healthcheck", "", info::healthcheck), head("/healthcheck", "", info::healthcheck),
        get("/info", "", info::info), head("/info", "", info::info),
        get("/crossdomain.xml", "", info::crossdomain),
        get("/v1", "", info::nowhere), head("/v1", "", info::nowhere),
    ];
    for path in [OF_ACCOUNT, OF_CONTAINER, OF_OBJECT] {
        routes.extend([
            get(path, "", serve), head(path, "", serve), put(path, "", serve),
            post(path, "", serve), delete(path, "", serve), options(path, "", serve),
        ]);
    }
    routes.push(copy(OF_OBJECT, "", serve));
    routes.into_iter().map(|route| route.marks(&[Mark::Open, Mark::Stream])).collect()
}

async fn serve(swift: Arc<Swift>, request: Request) -> Result<Reply> {
    let answer = match Call::read(request, swift.clock.now()) {
        Ok(call) => either(swift.handle(call).await),
        Err(refusal) => *refusal.0,
    };
    Ok(answer.into_reply())
}

impl Swift {
    /// A request of a client, from its signature to what its page may read.
    async fn handle(self: &Arc<Self>, mut call: Call) -> Outcome {
        constraints::check_account(&self.options, &call)?;
        let signed = self.admit_signed(&mut call).await?;
        let reads = call.reads();
        let origin = call.header("origin").map(str::to_string);
        let (place, is_options) = (call.place.clone(), call.method == Method::OPTIONS);
        let is_head = call.method == Method::HEAD;
        let mut answer = either(self.route(call).await);
        if let Some(signed) = signed {
            signed.dress(reads, &mut answer);
        }
        if answer.status.as_u16() == 401 && !is_options {
            answer.set("www-authenticate", format!("Swift realm=\"{}\"", quoted(&place.account)));
        }
        if is_head && !answer.is_success() {
            answer.length = Some(0);
        }
        if let Some(origin) = origin.filter(|_| !place.is_account() && !is_options) {
            let info = self.info(&place).await?;
            cors::tell(&self.options, &mut answer, &info, &origin);
        }
        Ok(answer)
    }

    /// What only a client can ask for, before what parts of requests ask for, too.
    async fn route(self: &Arc<Self>, call: Call) -> Outcome {
        let method = call.method.as_str();
        if method == "PUT" && call.query.has("extract-archive") {
            return extract::put(self, call).await;
        }
        if matches!(method, "POST" | "DELETE") && call.query.has("bulk-delete") {
            return bulk::delete(self, call).await;
        }
        let form = call.header("content-type").and_then(forms::boundary).filter(|_| method == "POST");
        if let Some(boundary) = form {
            return formpost::post(self, call, &boundary).await;
        }
        match staticweb::is_web(&call) {
            true if call.place.is_object() => staticweb::object(self, call).await,
            true => staticweb::container(self, call).await,
            false => self.dispatch(call).await,
        }
    }

    /// A part of a request. Boxed, for it may have parts itself.
    pub fn part(self: &Arc<Self>, call: Call) -> BoxFuture<'static, Answer> {
        let swift = self.clone();
        Box::pin(async move { either(swift.dispatch(call).await) })
    }

    /// A request whose origin does not matter, or a part of one.
    async fn dispatch(self: &Arc<Self>, call: Call) -> Outcome {
        let method = call.method.as_str().to_string();
        if call.place.is_object() {
            return match method.as_str() {
                "GET" | "HEAD" => objects::get(self, call).await,
                "PUT" => object_put::put(self, call).await,
                "POST" => object_put::post(self, call).await,
                "DELETE" => object_delete::delete(self, call).await,
                "COPY" => object_copy::copy(self, call).await,
                _ => self.preflight(&call, "COPY, DELETE, GET, HEAD, OPTIONS, POST, PUT").await,
            };
        }
        if call.place.is_account() {
            return accounts::dispatch(self, call).await;
        }
        match method.as_str() {
            "GET" | "HEAD" => containers::get(self, call).await,
            "PUT" => containers::put(self, call).await,
            "POST" => containers::post(self, call).await,
            "DELETE" => containers::delete(self, call).await,
            _ => self.preflight(&call, "DELETE, GET, HEAD, OPTIONS, POST, PUT").await,
        }
    }

    async fn preflight(&self, call: &Call, allowed: &str) -> Outcome {
        cors::preflight(&self.options, call, &self.info(&call.place).await?, allowed)
    }

    /// What is there of a place.
    pub async fn info(&self, place: &Place) -> Result<Info> {
        let Place { account, container, .. } = place.clone();
        self.db
            .read(move |tx| {
                let found = tx.find(&account)?;
                let container = match container.as_str() {
                    "" => None,
                    name => store::container(tx, &account, name)?,
                };
                Ok(Info { account: found, container })
            })
            .await
    }
}

/// 204 as swob has it.
fn nothing() -> Answer {
    Answer::with(web::StatusCode::NO_CONTENT, web::swob::HTML, "")
}

/// 201 without a word.
fn created() -> Answer {
    Answer::with(web::StatusCode::CREATED, web::swob::HTML, "")
}

fn bad(text: &str) -> crate::answer::Refusal {
    refuse_page(400, text)
}
