//! How messages look on the wire: a line of JSON about the message, then its bytes.

use crate::Envelope;
use base::{Context, Error, Result};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Head {
    id: String,
    name: String,
    context: Context,
}

#[derive(Serialize, Deserialize)]
struct AnswerHead {
    error: Option<Error>,
}

pub fn envelope(envelope: &Envelope) -> Result<Vec<u8>> {
    let Envelope { id, name, context, body } = envelope.clone();
    framed(&Head { id, name, context }, &body)
}

pub fn read_envelope(bytes: &[u8]) -> Result<Envelope> {
    let (Head { id, name, context }, body) = unframed(bytes)?;
    Ok(Envelope { id, name, context, body })
}

pub fn answer(answer: &Result<Vec<u8>>) -> Result<Vec<u8>> {
    match answer {
        Ok(body) => framed(&AnswerHead { error: None }, body),
        Err(error) => framed(&AnswerHead { error: Some(error.clone()) }, &[]),
    }
}

pub fn read_answer(bytes: &[u8]) -> Result<Vec<u8>> {
    let (head, body): (AnswerHead, _) = unframed(bytes)?;
    head.error.map_or(Ok(body), Err)
}

fn framed(head: &impl Serialize, body: &[u8]) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(head)?;
    bytes.push(b'\n');
    bytes.extend_from_slice(body);
    Ok(bytes)
}

fn unframed<H: for<'a> Deserialize<'a>>(bytes: &[u8]) -> Result<(H, Vec<u8>)> {
    let line = bytes.iter().position(|byte| *byte == b'\n');
    let line = line.ok_or_else(|| Error::internal("a message without a head"))?;
    Ok((serde_json::from_slice(&bytes[..line])?, bytes[line + 1..].to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let context = Context { user_id: "a\nb".into(), ..Context::default() };
        let sent = Envelope { id: "1".into(), name: "n".into(), context, body: b"x\ny".to_vec() };
        let came = read_envelope(&envelope(&sent).unwrap()).unwrap();
        assert_eq!((came.id, came.name, came.context.user_id), ("1".into(), "n".into(), "a\nb".into()));
        assert_eq!(came.body, b"x\ny");
        assert_eq!(read_answer(&answer(&Ok(b"\n".to_vec())).unwrap()).unwrap(), b"\n");
        let error = read_answer(&answer(&Err(Error::conflict("c").code("d"))).unwrap()).unwrap_err();
        assert_eq!((error.message.as_str(), error.code.as_deref()), ("c", Some("d")));
        assert!(
            read_envelope(b"{}").is_err() && read_answer(b"\xff\n").is_err() && read_answer(b"").is_err()
        );
    }
}
