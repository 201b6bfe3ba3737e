//! Tests of the configuration as a whole.

use crate::config::Config;
use crate::config::DEFAULTS;
use crate::config::Error;
use crate::config::Flags;
use crate::config::Retention;
use crate::config::Store;
use crate::toml_text;

/// Loads a file with this text, in an environment, with flags.
fn load(file: &str, environment: &[(&str, &str)], flags: &Flags) -> Result<Config, Error> {
    let folder = tempfile::tempdir().expect("because a temporary folder can be made");
    let path = folder.path().join("bulkhead.toml");
    std::fs::write(&path, file).expect("because the folder is there");
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::load(Some(path), environment, flags)
}

fn wrong(file: &str, environment: &[(&str, &str)]) -> String {
    load(file, environment, &Flags::default()).expect_err("because it is wrong").to_string()
}

#[test]
fn the_default_file_is_whole_and_says_what_the_parts_say() {
    let raw: crate::config::raw::Config = toml_text::read(DEFAULTS).expect("because the reference reads");
    assert_eq!(raw.listen, "127.0.0.1:8080");
    let config = load("", &[], &Flags::default()).expect("because the defaults are right");
    assert_eq!(config.limits.plugin, bulkhead_domain::policy::limits::Limits::default());
    assert_eq!(config.limits.tenant, bulkhead_domain::policy::quota::Quotas::default(), "nobody is limited");
    let inbox = bulkhead_flow::inbox::Limits::default();
    assert_eq!(format!("{:?}", config.limits.event), format!("{inbox:?}"));
    let sandbox = bulkhead_sandbox::Options::new("x", [0; 32]);
    assert_eq!((config.sandbox.cache_bytes, config.sandbox.disk_bytes), (sandbox.cache_bytes, sandbox.disk_bytes));
    assert_eq!((config.sandbox.instances, config.sandbox.memories), (sandbox.pool.instances, sandbox.pool.memories));
    assert!(matches!(&config.store, Store::Sqlite(path) if path.to_str() == Some("bulkhead.db")));
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
}

#[test]
fn tenants_have_limits_if_the_operator_says_so() {
    let file = "[limits.tenant]\nevents_per_second = 100\nstorage_bytes = \"1MiB\"\n";
    let config = load(file, &[("BULKHEAD_LIMITS_TENANT_CONCURRENCY", "4")], &Flags::default());
    let quotas = config.expect("because it is right").limits.tenant;
    assert_eq!(quotas.events_per_second.map(|rate| (rate.rate, rate.burst)), Some((100, None)));
    assert_eq!((quotas.concurrency, quotas.storage_bytes, quotas.backlog_events), (Some(4), Some(1 << 20), None));
    let text = wrong("[limits.tenant]\nevents_burst = 5\nfuel_per_minute = 9_000_000_000_000_000_000\n", &[]);
    for part in ["limits.tenant.events_burst", "limits.tenant.fuel_per_minute"] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
}

#[test]
fn flags_go_before_the_environment_and_that_before_the_file() {
    let file =
        "listen = \"127.0.0.1:1\"\nstore = \"sqlite:file.db\"\n[log]\nlevel = \"debug\"\n[limits.plugin]\nfuel = 5\n";
    let environment = [
        ("BULKHEAD_LISTEN", "127.0.0.1:2"),
        ("BULKHEAD_STORE", "sqlite:env.db"),
        ("BULKHEAD_LIMITS_PLUGIN_FUEL", "1_000"),
        ("BULKHEAD_LIMITS_PLUGIN_STATE_KEY", "1KiB"),
        ("BULKHEAD_EGRESS_ALLOW", "127.0.0.0/8, 10.0.0.1"),
        ("PATH", "/bin"),
    ];
    let flags = Flags { listen: Some("127.0.0.1:3".into()), ..Flags::default() };
    let config = load(file, &environment, &flags).expect("because it is right");
    assert_eq!(config.listen.port(), 3);
    assert!(matches!(&config.store, Store::Sqlite(path) if path.to_str() == Some("env.db")));
    assert_eq!(config.log.level, "debug");
    assert_eq!((config.limits.plugin.fuel, config.limits.plugin.state_key), (1_000, 1_024));
    assert_eq!(config.egress_allow.len(), 2);
    let text = config.render();
    for line in ["listen = \"127.0.0.1:3\"", "# --listen", "# BULKHEAD_STORE", "bulkhead.toml", "time = \"2s\""] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    let again = load(&text, &[], &Flags::default()).expect("because what is printed reads back");
    assert_eq!(again.limits.plugin, config.limits.plugin);
}

#[test]
fn what_is_not_known_is_an_error_with_a_place_and_a_guess() {
    let text = wrong("listen = \"127.0.0.1:0\"\n[limits.plugn]\nfuel = 1\n", &[]);
    assert!(text.contains("bulkhead.toml:2:"), "{text}");
    assert!(text.contains("did you mean `plugin`?"), "{text}");
    assert!(text.contains("2 | [limits.plugn]"), "{text}");
    let text = wrong("[limits.plugin]\ntime = \"fast\"", &[]);
    assert!(text.contains(":2:8: limits.plugin.time: `fast` is no duration"), "{text}");
    let text = wrong("", &[("BULKHEAD_LIMITS_EVENT_DEPTH", "deep")]);
    assert!(text.contains("BULKHEAD_LIMITS_EVENT_DEPTH: limits.event.depth: invalid type"), "{text}");
    let config = load("", &[("BULKHEAD_LISEN", "x"), ("BULKHEAD_SERVICE_HOST", "y")], &Flags::default());
    let warnings = config.expect("because schedulers define such variables").warnings;
    assert_eq!(warnings, ["the variable BULKHEAD_LISEN is no setting; did you mean BULKHEAD_LISTEN?"]);
}

#[test]
fn contradictions_name_both_numbers_and_come_all_at_once() {
    let text = wrong(
        "drain_grace = \"1s\"\n[limits.event]\nbytes = \"8MiB\"\n[sandbox]\nmemories = 10\n[causation]\nhops = 20\ndescendants = 5\n",
        &[],
    );
    for part in [
        "the configuration has 4 problems",
        "drain_grace: 1s is less than `limits.plugin.time` (2s)",
        "limits.event.bytes: 8MiB is more than `limits.event.batch_bytes` (4MiB)",
        "sandbox.memories: 10 is less than `sandbox.instances` (256)",
        "causation.descendants: 5 is less than `causation.hops` (20)",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
}

#[test]
fn what_is_kept_and_for_how_long_is_said() {
    let days = |days: u64| Some(std::time::Duration::from_secs(days * 86_400));
    let config = load("", &[], &Flags::default()).expect("because the defaults are right");
    assert_eq!(config.retention, Retention { events: days(30), parked: days(21), usage: days(400) });
    assert_eq!(config.warnings, [""; 0]);
    let file = "[retention]\nevents = \"forever\"\nparked = 0\nusage = \"36h\"";
    let config = load(file, &[("BULKHEAD_RETENTION_PARKED", "7d")], &Flags::default()).expect("because it is right");
    let hours = Some(std::time::Duration::from_secs(36 * 3_600));
    assert_eq!(config.retention, Retention { events: None, parked: days(7), usage: hours });
    let config = load("", &[("BULKHEAD_RETENTION_EVENTS", "0")], &Flags::default()).expect("because that is for ever");
    assert_eq!(config.retention.events, None);
    let config = load("[retention]\nevents = \"20d\"", &[], &Flags::default()).expect("because it can be meant so");
    let text = "retention.parked: 21d is no less than `retention.events` (20d)";
    assert!(config.warnings.iter().any(|warning| warning.contains(text)), "{:?}", config.warnings);
    let check = |file: &str, part: &str| {
        let text = wrong(file, &[]);
        assert!(text.contains(part), "{part} is not in\n{text}");
    };
    check("[retention]\nevents = \"200ms\"", "retention.events: 200ms is less than the shortest time");
    check("[retention]\nparked = \"a month\"", "`a month` is no duration; write 30d, 12h or forever");
    check("[retention]\nparked = 30", "a duration has a unit");
    check("[retention]\nruns = \"30d\"", "runs");
}

#[test]
fn stores_and_addresses_are_checked() {
    let check = |file: &str, part: &str| {
        let text = wrong(file, &[]);
        assert!(text.contains(part), "{part} is not in\n{text}");
    };
    check(
        "store = \"postgres://user:secret@db:port/x\"",
        "`postgres://user:***@db:port/x` is no address of a Postgres",
    );
    check("store = \"postgres://user:sec/secret@db/x\"", "`postgres://user:***@db/x` is no address of a Postgres");
    check("store = \"mysql://db/x?password=secret&a=b\"", "`mysql://db/x?password=***&a=b` is no store");
    check("store_owner = \"postgres://user:secret@db/x\"", "only Postgres has owners");
    check("store = \"postgres://db/x\"\nstore_connections = 0", "at least 1");
    check("store = \"mysql://user:secret@db/x\"", "`mysql://user:***@db/x` is no store that is known");
    check("store = \"sqlite:\"", "names no file");
    check("redis = \"http://localhost\"", "no address of a Redis");
    check("listen = \"8080\"", "is no address to listen on");
    check("[egress]\nallow = [\"example.com\"]", "`example.com` is no subnet");
    check("[egress]\nallow = [\"0.0.0.0/0\"]", "every address there is");
    check("[log]\nlevel = \"loud=loud\"", "is no level");
    let config = load("listen = \"localhost:0\"", &[], &Flags::default()).expect("because everybody writes it so");
    assert!(config.listen.ip().is_loopback());
    let config = load("listen = \"0.0.0.0:0\"", &[], &Flags::default()).expect("because it is an address");
    assert!(config.warnings[0].contains("without TLS"), "{:?}", config.warnings);
}

#[test]
fn passwords_of_stores_are_never_shown() {
    let file = "store = \"postgres://host:secret@db/x\"\nstore_owner = \"postgres://owner:secret@db/x\"\n\
                redis = \"redis://:secret@cache\"\n";
    let config = load(file, &[], &Flags::default()).expect("because all are addresses");
    assert!(matches!(&config.store, Store::Postgres { owner: Some(_), connections: 16, .. }));
    for text in [config.render(), format!("{config:?}")] {
        assert!(!text.contains("secret@") && !text.contains("\"secret"), "{text}");
    }
    assert!(config.render().contains("postgres://owner:***@db/x"), "{}", config.render());
}

#[test]
fn sources_are_checked_one_by_one() {
    let source = |fields: &str| format!("[[sources]]\nkind = \"redis-stream\"\n{fields}\n");
    let check = |file: &str, part: &str| {
        let text = wrong(file, &[]);
        assert!(text.contains(part), "{part} is not in\n{text}");
    };
    check("[[sources]]\nkind = \"kafka\"", "known here: redis-stream, outbox");
    check(&source("name = \"a\"\ntenant = \"t\"\nstream = \"s\""), "there is no `redis` setting either");
    let whole = "name = \"a\"\ntenant = \"t\"\nstream = \"s\"\nurl = \"redis://:secret@localhost\"";
    check(&source(&format!("{whole}\nfoo = 1")), "`foo` is not known here");
    check(&source(&format!("{whole}\nbatch = 0")), "sources[0].batch");
    check(&format!("{}{}", source(whole), source(whole)), "two sources called `a`");
    check("[[sources]]\nkind = \"outbox\"\nname = \"A\"\nurl = \"postgres://db/x\"", "lower-case letters");
    check("[[sources]]\nkind = \"outbox\"\nname = \"a\"\nurl = \"mysql://u:secret@db/x\"", "mysql://u:***@db/x");
    let config = load(&source(whole), &[], &Flags::default()).expect("because it says all that it must");
    assert_eq!(config.sources.len(), 1);
    for text in [config.render(), format!("{config:?}")] {
        assert!(!text.contains("secret@"), "{text}");
    }
}

#[test]
fn the_operators_key_is_checked_and_never_shown() {
    for short in ["bho_short", "bhk_0123456789abcdef0123456789abcdef0123456789abcdef", "x"] {
        assert!(wrong("", &[("BULKHEAD_OPERATOR_KEY", short)]).contains("the operator's key must be"), "{short}");
    }
    let key = "bho_tests_0123456789abcdef0123456789abcdef";
    let config = load("", &[("BULKHEAD_OPERATOR_KEY", key)], &Flags::default()).expect("because it is long enough");
    for text in [config.render(), format!("{config:?}")] {
        assert!(!text.contains("0123456789abcdef"), "{text}");
    }
}

#[test]
fn signatures_are_asked_for_with_keys_that_can_sign() {
    let none = load("", &[], &Flags::default()).expect("because the defaults are right").signatures;
    assert_eq!((none.required, none.keys.len()), (false, 0));
    let key = "bhp_iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w";
    let environment = [("BULKHEAD_SIGNATURES_REQUIRED", "true"), ("BULKHEAD_SIGNATURES_TRUSTED", key)];
    let asked = load("", &environment, &Flags::default()).expect("because it is right").signatures;
    assert_eq!((asked.required, asked.keys[0].to_string().as_str()), (true, key));
    let text = wrong("[signatures]\nrequired = true\n", &[]);
    assert!(text.contains("signatures.required") && text.contains("no plugin could ever be uploaded"), "{text}");
    let text = wrong("[signatures]\ntrusted = [\"bhp_AAAA\"]\n", &[]);
    assert!(text.contains("signatures.trusted") && text.contains("bhp_AAAA"), "{text}");
    let text = wrong("", &[("BULKHEAD_SIGNATURES_REQUIRED", "maybe")]);
    assert!(text.contains("BULKHEAD_SIGNATURES_REQUIRED"), "{text}");
}

#[test]
fn previews_are_asked_for_with_what_a_preview_can_show() {
    let none = load("", &[], &Flags::default()).expect("because the defaults are right").asks;
    assert_eq!(none.require_preview, None);
    let file = "[previews]\nrequired = true\nmin_runs = 50\nmax_changed_percent = 5\n";
    let asked = load(file, &[], &Flags::default()).expect("because it is right").asks.require_preview;
    let asked = asked.expect("because it is required");
    assert_eq!((asked.min_runs, asked.max_new_failures, asked.within_hours), (50, 0, 24));
    assert_eq!(asked.max_changed_percent, Some(5.0));
    let text = wrong("[previews]\nmin_runs = 0\n", &[]);
    assert!(text.contains("previews") && text.contains("`min_runs` is at least 1"), "{text}");
}
