//! `[[sources]]`: what each of them must say, and what it gets if it does not.

use std::collections::BTreeSet;

use bulkhead_domain::id::TenantId;
use bulkhead_flow::link;
use bulkhead_flow::source::Spec;
use bulkhead_flow::source::outbox;
use bulkhead_flow::source::redis;
use bulkhead_store::outbox::Outbox;
use secrecy::SecretString;

use crate::config::check::is_postgres;
use crate::config::raw;
use crate::config::render::masked;

/// Who reads a stream, if one node at a time does: whoever takes over goes on with what the one before had begun.
const CONSUMER: &str = "bulkhead";
const NAME_MAX: usize = 64;

/// Reads all of them; `redis` is the installation's own. What is wrong comes as path and message.
pub fn check(sources: &[raw::Source], redis: Option<&str>) -> Result<Vec<Spec>, Vec<(String, String)>> {
    let (mut specs, mut wrong, mut names) = (Vec::new(), Vec::new(), BTreeSet::new());
    for (number, source) in sources.iter().enumerate() {
        let path = |field: &str| format!("sources[{number}].{field}");
        match one(source, redis) {
            Ok(spec) if !is_name(spec.name()) => {
                let message = format!("a name has 1 to {NAME_MAX} lower-case letters, digits, `-` or `_`");
                wrong.push((path("name"), message));
            }
            Ok(spec) if !names.insert(spec.name().to_owned()) => {
                wrong.push((path("name"), format!("there are two sources called `{}`", spec.name())));
            }
            Ok(spec) => specs.push(spec),
            Err((field, message)) => wrong.push((path(field), message)),
        }
    }
    if wrong.is_empty() { Ok(specs) } else { Err(wrong) }
}

fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_';
    (1..=NAME_MAX).contains(&name.len()) && name.bytes().all(plain)
}

fn one(source: &raw::Source, redis: Option<&str>) -> Result<Spec, (&'static str, String)> {
    match source {
        raw::Source::RedisStream {
            name,
            tenant,
            stream,
            url,
            group,
            format,
            batch,
            claim_idle,
            gone_after,
            rejected_max,
            parallel,
        } => {
            let nowhere = || ("url", "it names no Redis, and there is no `redis` setting either".to_owned());
            let url = url.as_deref().or(redis).ok_or_else(nowhere)?;
            link::check(url).map_err(|error| ("url", error.to_string()))?;
            for (field, text) in [("tenant", tenant), ("stream", stream)] {
                if text.is_empty() {
                    return Err((field, "it must not be empty".to_owned()));
                }
            }
            // Which tenant that is, is looked up at the start.
            let of_nobody = TenantId(0);
            let url = SecretString::from(url.to_owned());
            let mut options = redis::Options::new(name.clone(), url, stream.clone(), of_nobody, CONSUMER);
            options.format = *format;
            options.group = group.clone().unwrap_or(options.group);
            options.batch = above_zero("batch", *batch)?.unwrap_or(options.batch);
            options.claim_idle = claim_idle.map_or(options.claim_idle, |span| span.0);
            options.gone_after = gone_after.map_or(options.gone_after, |span| span.0);
            options.rejected_max = rejected_max.unwrap_or(options.rejected_max);
            Ok(Spec::RedisStream { tenant: tenant.clone(), options: Box::new(options), parallel: *parallel })
        }
        raw::Source::Outbox { name, url, table, batch, poll } => {
            let secret = SecretString::from(url.clone());
            let mut options = outbox::Options::new(name.clone(), secret);
            if let Some(table) = table {
                options.table = table.parse().map_err(|error| ("table", format!("{error}")))?;
            }
            if !is_postgres(url) || Outbox::new(url, options.table.clone(), name).is_err() {
                return Err(("url", format!("`{}` is no address of a Postgres database", masked(url))));
            }
            options.batch = above_zero("batch", *batch)?.unwrap_or(options.batch);
            options.poll = poll.map_or(options.poll, |span| span.0);
            Ok(Spec::Outbox(Box::new(options)))
        }
    }
}

fn above_zero(field: &'static str, number: Option<u32>) -> Result<Option<u32>, (&'static str, String)> {
    if number == Some(0) { Err((field, "it must be at least 1".to_owned())) } else { Ok(number) }
}
