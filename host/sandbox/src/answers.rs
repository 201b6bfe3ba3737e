//! The answers of other hosts as a recording has them: the way out of a re-execution, which leads nowhere.
//!
//! An answer belongs to the request that has the same method, URL and body. If a secret was taken out of the recording the
//! body is another one, so the first unused answer to the same method and path counts then.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Instant;

use bulkhead_domain::recording::Read;

use crate::capability::http;
use crate::outbound::Exchange;
use crate::outbound::Fault;
use crate::outbound::Outbound;
use crate::outbound::Reply;
use crate::outbound::Request;

/// All answers of one call.
#[derive(Clone, Default)]
pub(crate) struct Answers(Arc<Mutex<Shelf>>);

#[derive(Default)]
struct Shelf {
    /// By what was asked; in the order in which they were read.
    answers: Vec<(String, Option<Result<Reply, Fault>>)>,
    unrecorded: Vec<String>,
}

impl Answers {
    pub(crate) fn of(reads: &[Read]) -> Self {
        let answers = reads.iter().filter_map(|read| match read {
            Read::Http { request, status, headers, body } => {
                Some((request.clone(), Some(http::recorded(*status, headers, body))))
            }
            Read::State { .. } | Read::Keys { .. } | Read::Secret { .. } => None,
        });
        Self(Arc::new(Mutex::new(Shelf { answers: answers.collect(), unrecorded: Vec::new() })))
    }

    /// Requests that were made now and were not recorded.
    pub(crate) fn take_unrecorded(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner).unrecorded)
    }
}

impl Outbound for Answers {
    fn begin(&self, request: Request) -> Box<dyn Exchange> {
        Box::new(Recorded { answers: self.clone(), fingerprint: http::fingerprint(&request) })
    }
}

/// Looked up when the guest looks, as that is the order in which answers were kept.
struct Recorded {
    answers: Answers,
    fingerprint: String,
}

impl Exchange for Recorded {
    fn wait(&mut self, _: Instant, _: &dyn Fn() -> bool) -> Option<Result<Reply, Fault>> {
        let mut shelf = self.answers.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at =
            shelf.answers.iter().position(|(asked, answer)| answer.is_some() && *asked == self.fingerprint).or_else(
                || {
                    shelf
                        .answers
                        .iter()
                        .position(|(asked, answer)| answer.is_some() && place(asked) == place(&self.fingerprint))
                },
            );
        let found = at.and_then(|at| shelf.answers[at].1.take());
        Some(found.unwrap_or_else(|| {
            shelf.unrecorded.push(format!("http `{}`", self.fingerprint.escape_debug()));
            Err(Fault::Unrecorded)
        }))
    }
}

/// Of a fingerprint, the method and the URL without its query.
fn place(fingerprint: &str) -> &str {
    let asked = fingerprint.split_once(" blake3:").map_or(fingerprint, |(asked, _)| asked);
    asked.split('?').next().unwrap_or(asked)
}

#[cfg(test)]
mod tests {
    use bulkhead_domain::id::PluginId;
    use bytes::Bytes;

    use super::*;

    fn request(url: &str, body: &'static str) -> Request {
        Request {
            plugin: PluginId(1),
            method: "POST".into(),
            url: url.into(),
            headers: Vec::new(),
            body: Bytes::from_static(body.as_bytes()),
            timeout: std::time::Duration::from_secs(1),
            response_bytes: 10,
        }
    }

    fn kept(request: &Request, body: &'static str) -> Read {
        let body = Bytes::from_static(body.as_bytes());
        Read::Http { request: http::fingerprint(request), status: Some(200), headers: Vec::new(), body }
    }

    #[test]
    fn answers_are_found_by_what_was_asked_and_each_counts_once() {
        let (one, other) = (request("https://a/x", "1"), request("https://a/x", "2"));
        let answers = Answers::of(&[kept(&one, "to one"), kept(&other, "to other")]);
        let ask = |request: &Request| {
            answers.begin(request.clone()).wait(Instant::now(), &|| false).expect("because it never waits")
        };
        assert_eq!(ask(&other).map(|reply| reply.body), Ok("to other".into()));
        let redacted = request("https://a/x?token=[redacted]", "3");
        assert_eq!(ask(&redacted).map(|reply| reply.body), Ok("to one".into()), "the rest of the same path");
        assert_eq!(ask(&one), Err(Fault::Unrecorded));
        assert_eq!(answers.take_unrecorded().len(), 1);
    }
}
