//! URLs that let in whoever has them: signed with a key of the account or the container, for a method, until a time.

use crate::{
    Swift,
    answer::{Answer, Outcome, Refusal, refuse_with},
    call::{Call, Leave, quoted},
    signatures::{Scope, Signature, keys},
};
use base::Timestamp;
use web::{Method, StatusCode};

/// Headers with which a signed request could reach what was not signed.
const NOT_ALLOWED: [&str; 4] =
    ["x-object-manifest", "x-symlink-target", "x-symlink-target-account", "x-copy-from"];

/// What a signed GET is answered with, besides the object.
#[derive(Clone, Debug, Default)]
pub struct Signed {
    expires: i64,
    filename: Option<String>,
    inline: bool,
    name: String,
}

fn invalid() -> Refusal {
    Answer::with(StatusCode::UNAUTHORIZED, web::swob::HTML, "401 Unauthorized: Temp URL invalid\n").into()
}

impl Swift {
    /// Lets a signed request in; none: it is not signed.
    pub async fn admit_signed(&self, call: &mut Call) -> Outcome<Option<Signed>> {
        let (signature, expires) = (call.query.get("temp_url_sig"), call.query.get("temp_url_expires"));
        if (signature.is_none() && expires.is_none()) || call.method == Method::OPTIONS {
            return Ok(None);
        }
        let signature = signature.and_then(Signature::parse).ok_or_else(invalid)?;
        let expires =
            expires.and_then(time).filter(|at| *at >= call.now.unix_seconds()).ok_or_else(invalid)?;
        let prefix = call.query.get("temp_url_prefix").map(str::to_string);
        let allowed = |list: &[String], one: &str| list.iter().any(|known| known == one);
        let of_container = prefix.as_deref() == Some("") && call.reads();
        if !allowed(&self.options.allowed_digests, signature.digest)
            || !allowed(&self.options.tempurl_methods, call.method.as_str())
            || (call.place.object.trim_matches('/').is_empty() && !of_container)
            || prefix.as_ref().is_some_and(|prefix| !call.place.object.starts_with(prefix))
        {
            return Err(invalid());
        }
        let range = call.query.get("temp_url_ip_range").map(str::to_string);
        if let Some(range) = &range {
            let network =
                range.parse::<ipnet::IpNet>().or_else(|_| range.parse::<std::net::IpAddr>().map(Into::into));
            let inside = network.ok().zip(call.peer).is_some_and(|(network, peer)| network.contains(&peer));
            if !inside {
                return Err(invalid());
            }
        }
        let info = self.info(&call.place).await?;
        let place = &call.place;
        let path = match &prefix {
            Some(prefix) => format!("prefix:/v1/{}/{}/{prefix}", place.account, place.container),
            None => format!("/v1/{}/{}/{}", place.account, place.container, place.object),
        };
        let methods = match call.method.as_str() {
            "HEAD" => vec!["HEAD", "GET", "POST", "PUT"],
            method => vec![method],
        };
        let range = range.map(|range| format!("ip={range}\n")).unwrap_or_default();
        let messages: Vec<String> =
            methods.iter().map(|method| format!("{range}{method}\n{expires}\n{path}")).collect();
        let scope = keys(&info).into_iter().find_map(|(key, scope)| {
            messages.iter().any(|message| signature.is_of(&key, message)).then_some(scope)
        });
        let scope = scope.ok_or_else(invalid)?;
        if !call.reads()
            && let Some(name) = NOT_ALLOWED.iter().find(|name| call.headers.contains_key(**name))
        {
            return Err(refuse_with(
                400,
                format!("The header '{}' is not allowed in this tempurl", title(name)),
            ));
        }
        call.headers.remove("x-timestamp");
        let signed = Signed {
            expires,
            filename: call.query.get("filename").filter(|name| !name.is_empty()).map(str::to_string),
            inline: call.query.has("inline"),
            name: place.object.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_string(),
        };
        call.leave = Leave::Signed {
            account: place.account.clone(),
            container: (scope == Scope::Container).then(|| place.container.clone()),
        };
        call.who = None;
        call.query.0.retain(|(name, _)| {
            name.starts_with("temp_url_") || matches!(name.as_str(), "filename" | "inline")
        });
        Ok(Some(signed))
    }
}

impl Signed {
    /// How a browser is to take what it gets.
    pub fn dress(&self, call_reads: bool, answer: &mut Answer) {
        // What only the signature let in says nothing of the object's own metadata.
        let told: Vec<_> = answer
            .headers
            .keys()
            .filter(|name| name.as_str().starts_with("x-object-meta-"))
            .cloned()
            .collect();
        for name in told.iter().filter(|name| !name.as_str().starts_with("x-object-meta-public-")) {
            answer.headers.remove(name);
        }
        if !call_reads || !answer.is_success() {
            return;
        }
        let disposition = match (&self.filename, self.inline, answer.has("content-disposition")) {
            (None, true, _) => "inline".to_string(),
            (Some(name), true, _) => disposition("inline", name),
            (Some(name), false, _) => disposition("attachment", name),
            (None, false, true) => String::new(),
            (None, false, false) => disposition("attachment", &self.name),
        };
        if !disposition.is_empty() {
            answer.set("content-disposition", disposition);
        }
        let expires = Timestamp::from_unix_seconds(self.expires);
        answer.set("expires", crate::conditional::http_date(expires));
    }
}

fn disposition(kind: &str, name: &str) -> String {
    let encoded = quoted(name);
    format!("{kind}; filename=\"{}\"; filename*=UTF-8''{encoded}", encoded.replace("%20", " "))
}

/// `X-Object-Manifest` of `x-object-manifest`.
fn title(name: &str) -> String {
    let parts = name.split('-').map(|part| {
        let (first, rest) = part.split_at(1.min(part.len()));
        first.to_uppercase() + rest
    });
    parts.collect::<Vec<_>>().join("-")
}

/// Seconds since 1970, or a time in UTC.
fn time(text: &str) -> Option<i64> {
    if let Ok(seconds) = text.parse() {
        return Some(seconds).filter(|seconds| *seconds > 0);
    }
    let dated = matches!(text.len(), 10 | 19 | 20).then_some(text)?;
    let dated = if dated.len() == 10 { format!("{dated}T00:00:00Z") } else { dated.to_string() };
    Timestamp::parse(&dated).map(Timestamp::unix_seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (text, seconds) in [
            ("1763626530", Some(1_763_626_530)),
            ("2025-11-20T08:15:30Z", Some(1_763_626_530)),
            ("2025-11-20T08:15:30", Some(1_763_626_530)),
            ("2025-11-20", Some(1_763_596_800)),
            ("0", None),
            ("tomorrow", None),
            ("", None),
        ] {
            assert_eq!(time(text), seconds, "{text}");
        }
        assert_eq!(title("x-copy-from"), "X-Copy-From");
        let quoted = "inline; filename=\"a%22 %C3%A9/b\"; filename*=UTF-8''a%22%20%C3%A9/b";
        assert_eq!(disposition("inline", "a\" é/b"), quoted);
    }
}
