//! `bulkhead store`: the tables on Postgres, and the way there from SQLite. Works on databases, not by way of a host.

use std::io::IsTerminal as _;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use bulkhead_store::copy;
use bulkhead_store::copy::Compared;
use bulkhead_store::postgres::Step;
use clap::Args;
use clap::Subcommand;
use indicatif::ProgressBar;
use secrecy::ExposeSecret as _;
use secrecy::SecretString;
use serde_json::Value;
use serde_json::json;

use crate::cli::error::Error;
use crate::cli::error::Result;
use crate::cli::host::environment;
use crate::cli::host::load;
use crate::cli::screen;
use crate::cli::screen::Cell;
use crate::cli::screen::Column;
use crate::cli::screen::Format;
use crate::cli::value;
use crate::config;
use crate::config::Flags;
use crate::store;

const EXAMPLES: &str = "Examples:
  bulkhead store migrate --config bulkhead.toml --plan
  bulkhead store migrate --config bulkhead.toml
  bulkhead store copy --from sqlite:bulkhead.db --config bulkhead.toml
  bulkhead store copy --from sqlite:bulkhead.db --config bulkhead.toml --verify-only

Addresses with passwords belong into the configuration, or into BULKHEAD_STORE and BULKHEAD_STORE_OWNER:
others on the machine can see what a command is called with.";

const COLUMNS: &[Column] = &[
    ("WHAT", "/what", Cell::Text),
    ("SQLITE", "/source", Cell::Count),
    ("POSTGRES", "/target", Cell::Count),
    ("DIGESTS", "/digests", Cell::Text),
];

/// A store's tables on Postgres: migrate, copy
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Store {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make the tables on Postgres, or bring them up to date
    Migrate(Migrate),
    /// Copy everything from SQLite into an empty store on Postgres, and check that it is the same; hosts are stopped
    Copy(Copy),
}

#[derive(Debug, Args)]
struct Migrate {
    /// The configuration file [default: ./bulkhead.toml if it is there]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The database, with the role that hosts use: made if it is not there [env: BULKHEAD_STORE]
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// The same database, with the role that owns the tables [env: BULKHEAD_STORE_OWNER]
    #[arg(long, value_name = "URL")]
    store_owner: Option<String>,
    /// How many shards a new store has; one that is there keeps its own
    #[arg(long, value_name = "COUNT", default_value_t = store::SHARDS, value_parser = clap::value_parser!(u16).range(1..=1024))]
    shards: u16,
    /// Change nothing, only tell what would be done to the tables, and what that asks of nodes at work
    #[arg(long)]
    plan: bool,
}

#[derive(Debug, Args)]
struct Copy {
    /// The store that is left, sqlite:PATH; it stays as it is
    #[arg(long, value_name = "URL")]
    from: String,
    /// The database, with the role that owns its tables [default: `store_owner` of the configuration]
    #[arg(long, value_name = "URL")]
    to: Option<String>,
    /// Where `store_owner` is looked for [default: ./bulkhead.toml if it is there]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Copy nothing, only compare; before a host has worked on the copy
    #[arg(long)]
    verify_only: bool,
    #[command(flatten)]
    format: Format,
}

impl Store {
    /// Does it.
    pub async fn run(self) -> Result<()> {
        match self.action {
            Action::Migrate(migrate) => migrate.run().await,
            Action::Copy(copy) => copy.run().await,
        }
    }
}

impl Migrate {
    async fn run(self) -> Result<()> {
        let (host, owner) = postgres(self.config, self.store, self.store_owner)?;
        // Looked at once, so that a wrong address is not tried for a minute.
        let before = copy::version(owner.expose_secret()).await.map_err(failed)?;
        if self.plan {
            screen::line(&plan(before)?)?;
            return screen::note("nothing was changed");
        }
        // Whoever waits wants to know for what; if that cannot be shown, it is done all the same.
        let tell = |told: &str| _ = screen::note(told);
        store::migrate(&owner, &host, self.shards, tell).await.map_err(|error| Error::chain(&error))?;
        let after = copy::version(owner.expose_secret()).await.map_err(failed)?;
        screen::line(&match before {
            0 => format!("tables made: version {after}, {} shards", self.shards),
            before if before == after => format!("tables are up to date: version {after}"),
            before => format!("tables brought from version {before} to version {after}"),
        })
    }
}

/// Tells what is to be done with tables of that version.
fn plan(version: i64) -> Result<String> {
    let steps = Step::after(version).map_err(|error| Error::chain(&anyhow::Error::new(error)))?;
    let Some(Step { version: newest, .. }) = steps.last() else {
        return Ok(format!("tables are up to date: version {version}"));
    };
    if version == 0 {
        return Ok(format!("there are no tables: they would be made, version {newest}"));
    }
    let mut text = format!("tables would be brought from version {version} to version {newest}:\n");
    for step in &steps {
        text.push_str(&format!("\n{} {}\n", step.version, step.name));
        for line in step.about.lines() {
            text.push_str(format!("  {}", line.trim_start_matches('-')).trim_end());
            text.push('\n');
        }
    }
    Ok(text.trim_end().to_owned())
}

impl Copy {
    async fn run(self) -> Result<()> {
        let from = path(&self.from)?;
        let to = match self.to {
            Some(to) => SecretString::from(to),
            None => postgres(self.config, None, None)?.1,
        };
        let bar = std::io::stderr().is_terminal().then(ProgressBar::new_spinner);
        if let Some(bar) = &bar {
            bar.enable_steady_tick(Duration::from_millis(100));
        }
        let mut show = |doing: &'static str, what: &'static str, rows: u64| {
            if let Some(bar) = &bar {
                let rows = if rows == 0 { String::new() } else { format!(": {} rows", value::count(rows)) };
                bar.set_message(format!("{doing} {what}{rows}"));
            }
        };
        let begun = Instant::now();
        let compared = if self.verify_only {
            copy::verify(from, to.expose_secret(), &mut show).await
        } else {
            copy::copy(from, to.expose_secret(), &mut show).await
        };
        if let Some(bar) = bar {
            bar.finish_and_clear();
        }
        let compared = compared.map_err(failed)?;
        screen::list(compared.iter().map(item).collect(), self.format.output, COLUMNS, "")?;
        let rows = value::count(compared.iter().map(|table| table.source).sum());
        let took = begun.elapsed().as_secs_f64();
        let is_equal = compared.iter().all(|table| table.is_equal);
        match (is_equal, self.verify_only) {
            (true, true) => screen::note(&format!("both are the same: {rows} rows, compared in {took:.1} s")),
            (true, false) => screen::note(&format!(
                "copied and compared: {rows} rows in {took:.1} s\n\
                 next: give the new hosts the old one's folder of keys, and the new store"
            )),
            (false, true) => Err(Error::hinted(
                "the two stores differ",
                "once a host has worked on either, that is as it should be; else copy again into an empty database",
            )),
            (false, false) => Err(Error::failed("the copy was not the same, so nothing was copied")),
        }
    }
}

/// The two addresses, as the configuration, the environment and the flags have them.
fn postgres(
    file: Option<PathBuf>,
    store: Option<String>,
    store_owner: Option<String>,
) -> Result<(SecretString, SecretString)> {
    let others = store_owner.map(|owner| ("store_owner".to_owned(), owner)).into_iter().collect();
    let flags = Flags { store, others, ..Flags::default() };
    match load(file, environment(), &flags)?.store {
        config::Store::Postgres { url, owner: Some(owner), .. } => Ok((url, owner)),
        config::Store::Postgres { owner: None, .. } => Err(Error::hinted(
            "there is no address with the role that owns the tables",
            "give `store_owner` in the configuration, or BULKHEAD_STORE_OWNER",
        )),
        config::Store::Sqlite(_) => Err(Error::hinted(
            "the store is one on SQLite, whose tables are brought up to date at every start",
            "give the one on Postgres: `store` in the configuration, or BULKHEAD_STORE",
        )),
    }
}

/// The file that an address of an SQLite store names.
fn path(url: &str) -> Result<&Path> {
    let path = url.strip_prefix("sqlite:").map(|path| path.strip_prefix("//").unwrap_or(path));
    path.filter(|path| !path.is_empty()).map(Path::new).ok_or_else(|| {
        // It may be an address with a password.
        Error::Usage("--from names no file: write sqlite:PATH".to_owned())
    })
}

fn item(table: &Compared) -> Value {
    let digests = if table.is_equal { "equal" } else { "different" };
    json!({"what": table.what, "source": table.source, "target": table.target, "digests": digests})
}

fn failed(error: copy::Error) -> Error {
    Error::chain(&anyhow::Error::new(error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::paint::Paint;

    #[test]
    fn files_are_told_from_addresses() {
        assert_eq!(path("sqlite:a/b.db").ok(), Some(Path::new("a/b.db")));
        assert_eq!(path("sqlite:///a.db").ok(), Some(Path::new("/a.db")));
        for wrong in ["sqlite:", "a.db", "postgres://role:hunter2@db/x"] {
            let error = path(wrong).expect_err("because that names no file").render(Paint::plain());
            assert!(error.contains("write sqlite:PATH") && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_plan_tells_each_step_that_is_left() {
        let text = plan(16).expect("because these tables can be brought up to date");
        assert!(text.starts_with("tables would be brought from version 16 to version "), "{text}");
        assert!(text.contains("\n17 long_company\n   What somebody's long transaction keeps"), "{text}");
        assert!(text.contains("\n18 state_keys\n") && !text.contains("16 in_vain"), "{text}");
        assert!(plan(0).expect("because tables can be made").contains("would be made"));
        let steps = Step::after(0).expect("because nobody made these tables");
        let newest = steps.last().expect("because there are migrations").version;
        assert!(plan(newest).expect("because there is nothing to do").contains("up to date"));
        let error = plan(newest + 1).expect_err("because these are not this program's");
        assert!(error.render(Paint::plain()).contains("made by a newer program"));
    }

    #[test]
    fn the_owner_has_to_be_given() {
        let file = || Some("/dev/null".into());
        let (host, owner) = ("postgres://host:hunter2@db/x", "postgres://owner:hunter2@db/x");
        let error = postgres(file(), Some(host.into()), None).expect_err("because nobody owns it");
        assert!(error.render(Paint::plain()).contains("give `store_owner`"), "{error}");
        let error = postgres(file(), Some("sqlite:a.db".into()), None).expect_err("because it is on SQLite");
        assert!(error.render(Paint::plain()).contains("give the one on Postgres"), "{error}");
        let error = postgres(file(), Some(host.into()), Some("mysql://owner:hunter2@db/x".into()))
            .expect_err("because it is none");
        assert!(!error.render(Paint::plain()).contains("hunter2"), "{error}");
        let both = postgres(file(), Some(host.into()), Some(owner.into())).expect("because both are given");
        assert_eq!((both.0.expose_secret(), both.1.expose_secret()), (host, owner));
    }
}
