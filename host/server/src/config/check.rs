//! From what was written to what holds: each value by itself, then all against each other.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bulkhead_domain::policy::ceiling::Ceiling;
use bulkhead_domain::policy::limits::HttpLimits;
use bulkhead_domain::policy::origin::Origin;
use bulkhead_domain::policy::proof::ReleasePolicy;
use bulkhead_domain::policy::proof::RequirePreview;
use bulkhead_domain::policy::quota::Quotas;
use bulkhead_domain::policy::quota::Rate;
use bulkhead_flow::dispatch::recorder;
use bulkhead_flow::inbox;
use bulkhead_flow::keeper::Retention;
use bulkhead_flow::outbound::Origins;
use bulkhead_flow::source::Spec;
use bulkhead_sandbox::Compiler;
use bulkhead_store::catalogue::Room;
use ipnet::IpNet;
use secrecy::SecretString;

use crate::auth::text::OPERATOR_PREFIX;
use crate::config::ApiLimits;
use crate::config::Causation;
use crate::config::Config;
use crate::config::Limits;
use crate::config::Log;
use crate::config::LogFormat;
use crate::config::Sandbox;
use crate::config::Store;
use crate::config::Synchronous;
use crate::config::error::Error;
use crate::config::error::Problem;
use crate::config::layer::Layers;
use crate::config::layer::OPERATOR_KEY;
use crate::config::raw;
use crate::config::source;
use crate::measure::Bytes;
use crate::measure::Span;
use crate::signature::Public;
use crate::signature::Trust;

/// The shortest operator's key that is taken from outside: 128 bits in hexadecimal digits.
const OPERATOR_KEY_MIN: usize = 32;

/// What is kept for less is not kept.
const RETENTION_MIN: Duration = Duration::from_secs(1);

/// Checks everything; all problems come back together.
pub fn check(layers: Layers) -> Result<Config, Error> {
    let raw: raw::Config = serde_path_to_error::deserialize(layers.whole())
        .map_err(|error| Problem::setting("the configuration", &error.path().to_string(), error.inner().message()))?;
    let mut checker = Checker { layers: &layers, problems: Vec::new(), warnings: layers.warnings.clone() };
    let listen = checker.listen(&raw.listen);
    let store = checker.store(&raw);
    let redis = checker.redis(raw.redis.as_deref());
    let sources = checker.sources(&raw);
    let egress_allow = checker.subnets(&raw.egress.allow);
    let egress_plugins = checker.origins(&raw.egress.plugins);
    let operator_key = checker.operator_key(layers.operator_key.as_deref());
    checker.log(&raw.log.level);
    checker.events(&raw.limits.event);
    checker.plugins(&raw.limits.plugin);
    checker.tenants(&raw.limits.tenant);
    checker.retention(raw.retention);
    checker.recorder(&raw.recorder);
    checker.ceiling(&raw.ceiling);
    let signatures = checker.signatures(&raw.signatures);
    let asks = checker.previews(raw.previews);
    checker.together(&raw);
    let (problems, warnings) = (checker.problems, checker.warnings);
    match (listen, store, problems.is_empty()) {
        (Some(listen), Some(store), true) => Ok(Config {
            listen,
            store,
            redis,
            node: raw.node.clone().filter(|text| !text.is_empty()),
            synchronous: match raw.synchronous {
                raw::Synchronous::Full => Synchronous::Full,
                raw::Synchronous::Normal => Synchronous::Normal,
            },
            data_dir: PathBuf::from(&raw.data_dir),
            keys_dir: PathBuf::from(raw.keys_dir.as_ref().unwrap_or(&raw.data_dir)),
            plugins_dir: raw.plugins_dir.as_deref().filter(|text| !text.is_empty()).map(PathBuf::from),
            drain_grace: raw.drain_grace.0,
            log: Log {
                format: match raw.log.format {
                    raw::Format::Text => LogFormat::Text,
                    raw::Format::Json => LogFormat::Json,
                },
                level: raw.log.level.clone(),
            },
            egress_allow,
            egress_plugins,
            causation: Causation { hops: raw.causation.hops, descendants: raw.causation.descendants },
            limits: limits(&raw.limits),
            sandbox: sandbox(&raw.sandbox),
            retention: retention(raw.retention),
            recorder: recorder(&raw.recorder),
            ceiling: raw.ceiling.clone(),
            signatures,
            asks,
            sources,
            operator_key,
            compiler: Compiler::default(),
            warnings,
            settled: layers.settings,
        }),
        _ => Err(Error { problems }),
    }
}

fn limits(raw: &raw::Limits) -> Limits {
    let (event, plugin, api) = (&raw.event, &raw.plugin, &raw.api);
    Limits {
        event: inbox::Limits {
            event_bytes: event.bytes.get(),
            batch_bytes: event.batch_bytes.get(),
            batch_events: count(event.batch_events),
            stream_bytes: event.stream_bytes.get(),
            depth: count(event.depth),
            under_way_bytes: event.under_way_bytes.get(),
        },
        plugin: bulkhead_domain::policy::limits::Limits {
            fuel: plugin.fuel,
            time: plugin.time.0,
            memory: plugin.memory.get(),
            table_elements: count(plugin.table_elements),
            host_calls: plugin.host_calls,
            log_bytes: plugin.log_bytes.get(),
            log_lines: count(plugin.log_lines),
            log_line: plugin.log_line.get(),
            effects: count(plugin.effects),
            effect_bytes: plugin.effect_bytes.get(),
            effect_body: plugin.effect_body.get(),
            state_writes: count(plugin.state_writes),
            state_bytes: plugin.state_bytes.get(),
            state_key: plugin.state_key.get(),
            state_value: plugin.state_value.get(),
            http: HttpLimits {
                requests: plugin.http_requests,
                request_bytes: plugin.http_request_bytes.get(),
                response_bytes: plugin.http_response_bytes.get(),
                time: plugin.http_time.0,
                wait: plugin.http_wait.0,
            },
        },
        tenant: quotas(&raw.tenant),
        api: ApiLimits {
            upload_bytes: api.upload_bytes.get(),
            uploads: count(api.uploads),
            room: Room {
                plugins: api.plugins,
                versions: api.plugin_versions,
                retired: api.retired_versions,
                storage: None,
            },
            document_bytes: api.document_bytes.get(),
            streams: count(api.streams),
            requests: count(api.requests),
        },
    }
}

fn quotas(raw: &raw::TenantLimits) -> Quotas {
    let some = |number: u64| (number > 0).then_some(number);
    Quotas {
        events_per_second: some(raw.events_per_second).map(|rate| Rate { rate, burst: some(raw.events_burst) }),
        concurrency: (raw.concurrency > 0).then_some(raw.concurrency),
        backlog_events: some(raw.backlog_events),
        storage_bytes: some(raw.storage_bytes.0),
        fuel_per_minute: some(raw.fuel_per_minute),
    }
}

fn recorder(raw: &raw::Recorder) -> recorder::Options {
    recorder::Options { sample: raw.sample, bytes: raw.bytes.get(), count_max: raw.kept, bytes_max: raw.kept_bytes.0 }
}

fn retention(raw: raw::Retention) -> Retention {
    let kept = |keep: raw::Keep| keep.0.map(|span| span.0);
    Retention { events: kept(raw.events), parked: kept(raw.parked), usage: kept(raw.usage) }
}

fn sandbox(raw: &raw::Sandbox) -> Sandbox {
    Sandbox {
        instances: raw.instances,
        memories: raw.memories,
        cache_bytes: raw.cache_bytes.0,
        disk_bytes: raw.disk_bytes.0,
        compilers: count(raw.compilers),
    }
}

fn count(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

pub(super) fn is_postgres(text: &str) -> bool {
    text.starts_with("postgres://") || text.starts_with("postgresql://")
}

struct Checker<'l> {
    layers: &'l Layers,
    problems: Vec<Problem>,
    warnings: Vec<String>,
}

impl Checker<'_> {
    fn wrong(&mut self, path: &str, message: impl Into<String>) -> &mut Problem {
        let origin = self.layers.origin(path);
        self.problems.push(Problem::setting(origin, path, message));
        self.problems.last_mut().expect("because it was pushed just now")
    }

    fn wrong_with(&mut self, path: &str, message: impl Into<String>, hint: &str) {
        let problem = self.wrong(path, message).clone().hint(hint);
        self.problems.pop();
        self.problems.push(problem);
    }

    fn listen(&mut self, text: &str) -> Option<SocketAddr> {
        let local = text.strip_prefix("localhost:").and_then(|port| port.parse().ok());
        let address = local.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port))).or_else(|| text.parse().ok());
        match address {
            None => {
                let hint = "write 127.0.0.1:8080, 0.0.0.0:8080 or [::1]:8080; port 0 is any free port";
                self.wrong_with("listen", format!("`{text}` is no address to listen on"), hint);
            }
            Some(address) if !address.ip().is_loopback() => self.warnings.push(format!(
                "listening on {address} without TLS: whoever reads along has the keys; put a proxy with TLS in front"
            )),
            Some(_) => {}
        }
        address
    }

    fn store(&mut self, raw: &raw::Config) -> Option<Store> {
        let text = raw.store.as_str();
        if is_postgres(text) {
            return self.postgres(raw);
        }
        if raw.store_owner.is_some() {
            self.wrong_with("store_owner", "only Postgres has owners", "leave it out beside an SQLite store");
        }
        match text.strip_prefix("sqlite:") {
            Some(path) if !path.is_empty() && path != ":memory:" => {
                let path = path.strip_prefix("//").unwrap_or(path);
                Some(Store::Sqlite(PathBuf::from(path)))
            }
            Some(_) => {
                self.wrong_with("store", format!("`{text}` names no file"), "write sqlite:bulkhead.db");
                None
            }
            None => {
                let shown = super::render::masked(text);
                let hint = "write sqlite:PATH or postgres://ROLE@SERVER/DATABASE";
                self.wrong_with("store", format!("`{shown}` is no store that is known"), hint);
                None
            }
        }
    }

    fn postgres(&mut self, raw: &raw::Config) -> Option<Store> {
        self.above_zero("store_connections", u64::from(raw.store_connections));
        let owner = raw.store_owner.as_deref().filter(|text| !text.is_empty());
        for (path, text) in [("store", Some(raw.store.as_str())), ("store_owner", owner)] {
            let Some(text) = text else { continue };
            if !is_postgres(text) || bulkhead_store::postgres::check_url(text).is_err() {
                let shown = super::render::masked(text);
                let hint = "write postgres://ROLE:PASSWORD@SERVER/DATABASE";
                self.wrong_with(path, format!("`{shown}` is no address of a Postgres database"), hint);
                return None;
            }
        }
        let secret = |text: &str| SecretString::from(text.to_owned());
        let connections = raw.store_connections;
        Some(Store::Postgres { url: secret(&raw.store), owner: owner.map(secret), connections })
    }

    fn redis(&mut self, text: Option<&str>) -> Option<SecretString> {
        let text = text.filter(|text| !text.is_empty())?;
        if let Err(error) = bulkhead_flow::link::check(text) {
            self.wrong("redis", error.to_string());
            return None;
        }
        Some(SecretString::from(text.to_owned()))
    }

    fn sources(&mut self, raw: &raw::Config) -> Vec<Spec> {
        source::check(&raw.sources, raw.redis.as_deref()).unwrap_or_else(|wrong| {
            let origin = self.layers.origin("sources");
            self.problems.extend(wrong.into_iter().map(|(path, text)| Problem::setting(origin.clone(), &path, text)));
            Vec::new()
        })
    }

    fn subnets(&mut self, texts: &[String]) -> Vec<IpNet> {
        let mut subnets = Vec::new();
        for text in texts {
            let subnet = text.parse::<IpNet>().ok().or_else(|| text.parse().ok().map(|ip: std::net::IpAddr| ip.into()));
            match subnet {
                Some(subnet) if subnet.prefix_len() == 0 => {
                    self.wrong("egress.allow", format!("`{text}` is every address there is, this machine's included"));
                }
                Some(subnet) => subnets.push(subnet),
                None => self.wrong_with(
                    "egress.allow",
                    format!("`{text}` is no subnet"),
                    "write addresses, not names: 10.1.0.0/16, 127.0.0.1, fd00::/8",
                ),
            }
        }
        subnets
    }

    fn origins(&mut self, texts: &[String]) -> Origins {
        if texts.iter().any(|text| text == "*") {
            return Origins::All;
        }
        let mut origins = BTreeSet::new();
        for text in texts {
            match Origin::parse(text) {
                Some(origin) => {
                    origins.insert(origin);
                }
                None => self.wrong_with(
                    "egress.plugins",
                    format!("`{text}` is no host"),
                    "write api.example.com, api.example.com:8443, http://10.1.0.7:8080, or * for every host",
                ),
            }
        }
        Origins::Only(origins)
    }

    fn operator_key(&mut self, text: Option<&str>) -> Option<SecretString> {
        let text = text.map(str::trim).filter(|text| !text.is_empty())?;
        let secret = text.strip_prefix(OPERATOR_PREFIX).unwrap_or_default();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if secret.len() < OPERATOR_KEY_MIN || secret.len() > 256 || !secret.bytes().all(plain) {
            let message = format!(
                "the operator's key must be `{OPERATOR_PREFIX}` and {OPERATOR_KEY_MIN} to 256 letters, digits, `-` or `_`"
            );
            let problem = Problem::setting(OPERATOR_KEY, "", message);
            self.problems.push(problem.hint("leave it out, and the first start makes one and prints it"));
            return None;
        }
        Some(SecretString::from(text.to_owned()))
    }

    fn log(&mut self, level: &str) {
        if let Err(error) = tracing_subscriber::EnvFilter::builder().parse(level) {
            let hint = "write error, warn, info, debug or trace, or `info,bulkhead_flow=debug`";
            self.wrong_with("log.level", format!("`{level}` is no level: {error}"), hint);
        }
    }

    fn events(&mut self, limits: &raw::EventLimits) {
        for (path, number) in [
            ("limits.event.bytes", limits.bytes.0),
            ("limits.event.batch_events", u64::from(limits.batch_events)),
            ("limits.event.depth", u64::from(limits.depth)),
        ] {
            self.above_zero(path, number);
        }
        if limits.depth > 96 {
            self.wrong(
                "limits.event.depth",
                format!("{} levels are more than the parser's own limit, 96", limits.depth),
            );
        }
        let event = "an event of full size could never be sent in a batch";
        self.not_above(("limits.event.bytes", limits.bytes), ("limits.event.batch_bytes", limits.batch_bytes), event);
        let stream = "a streamed body would be smaller than a batch";
        let (batch, whole) = (limits.batch_bytes, limits.stream_bytes);
        self.not_above(("limits.event.batch_bytes", batch), ("limits.event.stream_bytes", whole), stream);
        let under_way = "a full batch could never be taken in";
        let all = limits.under_way_bytes;
        self.not_above(("limits.event.batch_bytes", batch), ("limits.event.under_way_bytes", all), under_way);
    }

    fn plugins(&mut self, limits: &raw::PluginLimits) {
        self.above_zero("limits.plugin.fuel", limits.fuel);
        self.above_zero("limits.plugin.host_calls", u64::from(limits.host_calls));
        if limits.time < Span(std::time::Duration::from_millis(10)) {
            self.wrong(
                "limits.plugin.time",
                format!("{} is less than the shortest time that is measured, 10ms", limits.time),
            );
        }
        if limits.memory < Bytes(64 << 10) {
            self.wrong("limits.plugin.memory", format!("{} is less than one page, 64KiB", limits.memory));
        }
        if limits.memory > Bytes(4 << 30) {
            self.wrong(
                "limits.plugin.memory",
                format!("{} is more than a 32-bit plugin can have, 4GiB", limits.memory),
            );
        }
        for (one, all, what) in [
            (
                ("log_line", limits.log_line),
                ("log_bytes", limits.log_bytes),
                "a line of full length never fits the log",
            ),
            (
                ("effect_body", limits.effect_body),
                ("effect_bytes", limits.effect_bytes),
                "an effect of full size never fits a run",
            ),
            (
                ("state_value", limits.state_value),
                ("state_bytes", limits.state_bytes),
                "a value of full size can never be written",
            ),
        ] {
            let path = |name: &str| format!("limits.plugin.{name}");
            self.not_above((&path(one.0), one.1), (&path(all.0), all.1), what);
        }
    }

    fn tenants(&mut self, limits: &raw::TenantLimits) {
        for error in quotas(limits).check().err().unwrap_or_default() {
            let name = match error.field {
                "events_per_second.rate" => "events_per_second",
                "events_per_second.burst" => "events_burst",
                name => name,
            };
            self.wrong(&format!("limits.tenant.{name}"), error.reason);
        }
        if limits.events_burst > 0 && limits.events_per_second == 0 {
            let path = "limits.tenant.events_burst";
            self.wrong(path, "it means nothing without `limits.tenant.events_per_second`");
        }
    }

    fn ceiling(&mut self, raw: &Ceiling) {
        if let Some((list, entry)) = raw.fault() {
            self.wrong(
                &format!("ceiling.{list}"),
                format!("`{}` is nothing that can be granted", entry.escape_debug()),
            );
        }
    }

    fn signatures(&mut self, raw: &raw::Signatures) -> Trust {
        let mut keys = Vec::new();
        for text in &raw.trusted {
            match Public::parse(text) {
                Some(key) => keys.push(key),
                None => self.wrong_with(
                    "signatures.trusted",
                    format!("`{}` is no public key", text.escape_debug()),
                    "write what `bulkhead plugin keygen` printed: bhp_ and 43 more signs",
                ),
            }
        }
        if raw.required && raw.trusted.is_empty() {
            self.wrong("signatures.required", "`signatures.trusted` is empty: no plugin could ever be uploaded");
        }
        Trust { required: raw.required, keys }
    }

    fn previews(&mut self, raw: raw::Previews) -> ReleasePolicy {
        let raw::Previews { required, min_runs, max_new_failures, max_changed_percent, within_hours } = raw;
        let max_changed_percent = Some(max_changed_percent);
        let wanted = RequirePreview { min_runs, max_new_failures, max_changed_percent, within_hours };
        if let Some(fault) = wanted.fault() {
            self.wrong("previews", fault);
        }
        // As many as do is no limit.
        let max_changed_percent = wanted.max_changed_percent.filter(|percent| *percent < 100.0);
        ReleasePolicy { require_preview: required.then_some(RequirePreview { max_changed_percent, ..wanted }) }
    }

    fn recorder(&mut self, raw: &raw::Recorder) {
        if !(0.0..=1.0).contains(&raw.sample) {
            self.wrong("recorder.sample", format!("{} is no part; it is from 0 to 1", raw.sample));
        }
        if raw.kept_bytes < raw.bytes {
            let message =
                format!("{} is less than `recorder.bytes` ({}): not one would fit", raw.kept_bytes, raw.bytes);
            self.wrong("recorder.kept_bytes", message);
        }
    }

    fn retention(&mut self, kept: raw::Retention) {
        for (path, keep) in
            [("retention.events", kept.events), ("retention.parked", kept.parked), ("retention.usage", kept.usage)]
        {
            if let Some(span) = keep.0
                && span.0 < RETENTION_MIN
            {
                self.wrong_with(
                    path,
                    format!("{span} is less than the shortest time that anything is kept, 1s"),
                    "write forever to keep it all",
                );
            }
        }
        if let (Some(events), Some(parked)) = (kept.events.0, kept.parked.0)
            && parked >= events
        {
            self.warnings.push(format!(
                "retention.parked: {parked} is no less than `retention.events` ({events}): when a parked run is dropped, \
                 its event goes at once, and nobody sees what became of it"
            ));
        }
    }

    fn together(&mut self, raw: &raw::Config) {
        if raw.data_dir.is_empty() {
            self.wrong("data_dir", "it names no folder");
        }
        for (path, number) in [
            ("causation.hops", u64::from(raw.causation.hops)),
            ("limits.api.requests", u64::from(raw.limits.api.requests)),
            ("limits.api.uploads", u64::from(raw.limits.api.uploads)),
            ("limits.api.plugins", u64::from(raw.limits.api.plugins)),
            ("limits.api.plugin_versions", u64::from(raw.limits.api.plugin_versions)),
            ("limits.api.retired_versions", u64::from(raw.limits.api.retired_versions)),
            ("sandbox.instances", u64::from(raw.sandbox.instances)),
        ] {
            self.above_zero(path, number);
        }
        if raw.causation.descendants < u32::from(raw.causation.hops) {
            let (few, hops) = (raw.causation.descendants, raw.causation.hops);
            let message = format!("{few} is less than `causation.hops` ({hops}): a chain ends before it is that long");
            self.wrong("causation.descendants", message);
        }
        if raw.sandbox.memories < raw.sandbox.instances {
            let (memories, instances) = (raw.sandbox.memories, raw.sandbox.instances);
            let message = format!("{memories} is less than `sandbox.instances` ({instances}): each has at least one");
            self.wrong("sandbox.memories", message);
        }
        if raw.drain_grace < raw.limits.plugin.time {
            let (grace, time) = (raw.drain_grace, raw.limits.plugin.time);
            let message = format!(
                "{grace} is less than `limits.plugin.time` ({time}): a plugin that is running would be cut off"
            );
            self.wrong("drain_grace", message);
        }
        let upload = "a plugin of full size could never be uploaded";
        let component = Bytes(bulkhead_sandbox::inspect::SIZE_MAX as u64);
        if raw.limits.api.upload_bytes < component {
            let message =
                format!("{} is less than a component may have ({component}): {upload}", raw.limits.api.upload_bytes);
            self.warnings.push(format!("limits.api.upload_bytes: {message}"));
        }
        if matches!(raw.synchronous, raw::Synchronous::Normal) {
            self.warnings.push(
                "synchronous = \"normal\": a power cut can take events whose acceptance was answered already"
                    .to_owned(),
            );
        }
    }

    fn above_zero(&mut self, path: &str, number: u64) {
        if number == 0 {
            self.wrong(path, "it must be at least 1");
        }
    }

    /// The first must not be larger than the second, or `consequence`.
    fn not_above(&mut self, one: (&str, Bytes), other: (&str, Bytes), consequence: &str) {
        if one.1 > other.1 {
            self.wrong(one.0, format!("{} is more than `{}` ({}): {consequence}", one.1, other.0, other.1));
        }
    }
}
