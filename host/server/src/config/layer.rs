//! Layers: the same settings from several places, the later one goes before.

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;

use toml::Table;
use toml::Value;

use crate::config::DEFAULTS;
use crate::config::FILE;
use crate::config::Flags;
use crate::config::error::Error;
use crate::config::error::Problem;
use crate::config::raw;
use crate::toml_text;

/// Settings that have no default, all of them texts.
const OPTIONAL: [&str; 5] = ["plugins_dir", "redis", "store_owner", "keys_dir", "node"];

/// Variables that are ours, but no settings.
const FOREIGN: [&str; 4] = ["BULKHEAD_URL", "BULKHEAD_KEY", "BULKHEAD_PROFILE", "BULKHEAD_CONFIG"];

/// The variable that sets the operator's key.
pub const OPERATOR_KEY: &str = "BULKHEAD_OPERATOR_KEY";

/// A setting as it came out. Its value may hold a password, so it is not shown by `Debug`.
#[derive(Clone)]
pub struct Setting {
    /// `limits.plugin.time`
    pub path: String,
    /// Its value.
    pub value: Value,
    /// Where it comes from; none is the default.
    pub origin: Option<String>,
}

impl std::fmt::Debug for Setting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Setting").field("path", &self.path).field("origin", &self.origin).finish_non_exhaustive()
    }
}

/// All layers, one on top of the other.
#[derive(Debug)]
pub struct Layers {
    /// In the order of the default file.
    pub settings: Vec<Setting>,
    /// The operator's key, from the environment.
    pub operator_key: Option<String>,
    /// Worth telling the operator.
    pub warnings: Vec<String>,
}

impl Layers {
    /// Reads all of them.
    pub fn read(
        file: Option<PathBuf>,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: &Flags,
    ) -> Result<Self, Error> {
        let environment: BTreeMap<String, String> =
            environment.into_iter().filter(|(name, _)| name.starts_with("BULKHEAD_")).collect();
        let mut layers = Self::defaults();
        let named = file.or_else(|| environment.get("BULKHEAD_CONFIG").map(PathBuf::from));
        layers.file(named.as_deref())?;
        layers.environment(&environment)?;
        layers.flags(flags)?;
        Ok(layers)
    }

    fn defaults() -> Self {
        let table: Table = DEFAULTS.parse().expect("because a test reads the same text");
        let mut settings = Vec::new();
        flatten("", &table, &mut |path, value| settings.push(Setting { path, value, origin: None }));
        Self { settings, operator_key: None, warnings: Vec::new() }
    }

    fn file(&mut self, named: Option<&Path>) -> Result<(), Error> {
        let path = named.unwrap_or(Path::new(FILE));
        let origin = path.display().to_string();
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => {
                return Err(Problem::setting(origin, "", format!("the file cannot be read: {error}")).into());
            }
        };
        let fault = |fault| Error::from(Problem { origin: origin.clone(), fault });
        toml_text::read::<raw::Config>(&text).map_err(fault)?;
        let table: Table = toml_text::read(&text).map_err(fault)?;
        flatten("", &table, &mut |path, value| self.set(&path, value, &origin));
        Ok(())
    }

    fn environment(&mut self, environment: &BTreeMap<String, String>) -> Result<(), Error> {
        let known: BTreeMap<String, String> = self.paths().map(|path| (variable(&path), path)).collect();
        let mut problems = Vec::new();
        for (name, text) in environment {
            if name == OPERATOR_KEY {
                self.operator_key = Some(text.clone());
            } else if let Some(path) = known.get(name) {
                problems.extend(self.text(path, text, name).err().map(|problem| *problem));
            } else if !FOREIGN.contains(&name.as_str())
                && let Some(near) = toml_text::nearest(&name.to_lowercase(), known.values().map(String::as_str))
                    .map(variable)
                    .or_else(|| nearest_variable(name, known.keys()))
            {
                // No error: a cluster's scheduler may define such variables for its own purposes.
                self.warnings.push(format!("the variable {name} is no setting; did you mean {near}?"));
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(Error { problems }) }
    }

    fn flags(&mut self, flags: &Flags) -> Result<(), Error> {
        let folder = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        let given = [
            ("listen", "--listen", flags.listen.clone()),
            ("store", "--store", flags.store.clone()),
            ("redis", "--redis", flags.redis.clone()),
            ("plugins_dir", "--plugins-dir", folder(&flags.plugins_dir)),
            ("data_dir", "--data-dir", folder(&flags.data_dir)),
            ("log.format", "--log-format", flags.log_format.clone()),
        ];
        let mut problems = Vec::new();
        for (path, flag, text) in given {
            problems.extend(text.and_then(|text| self.text(path, &text, flag).err()).map(|problem| *problem));
        }
        for (path, text) in &flags.others {
            problems.extend(self.text(path, text, path).err().map(|problem| *problem));
        }
        if problems.is_empty() { Ok(()) } else { Err(Error { problems }) }
    }

    /// Sets a setting from a text, as variables and flags have it.
    fn text(&mut self, path: &str, text: &str, origin: &str) -> Result<(), Box<Problem>> {
        let known = self.settings.iter().find(|setting| setting.path == path).map(|setting| &setting.value);
        let value = match known {
            None if OPTIONAL.contains(&path) => Value::String(text.to_owned()),
            None => return Err(Box::new(Problem::setting(origin, path, "there is no such setting"))),
            Some(Value::Integer(_)) => match text.trim().replace('_', "").parse() {
                Ok(number) => Value::Integer(number),
                // Sizes are numbers or texts; what this is not, the check below says.
                Err(_) => Value::String(text.to_owned()),
            },
            Some(Value::Boolean(_)) => match text.trim().parse() {
                Ok(truth) => Value::Boolean(truth),
                Err(_) => Value::String(text.to_owned()),
            },
            Some(Value::Float(_)) => match text.trim().parse() {
                Ok(number) => Value::Float(number),
                Err(_) => Value::String(text.to_owned()),
            },
            Some(Value::Array(_)) => {
                let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
                Value::Array(items.map(|item| Value::String(item.to_owned())).collect())
            }
            Some(_) => Value::String(text.to_owned()),
        };
        let alone = nest([(path, value.clone())].into_iter());
        serde_path_to_error::deserialize::<_, raw::Config>(alone)
            .map_err(|error| Box::new(Problem::setting(origin, path, error.inner().message().trim())))?;
        self.set(path, value, origin);
        Ok(())
    }

    fn set(&mut self, path: &str, value: Value, origin: &str) {
        let origin = Some(origin.to_owned());
        match self.settings.iter_mut().find(|setting| setting.path == path) {
            Some(setting) => (setting.value, setting.origin) = (value, origin),
            // Before the tables, or TOML would read it as a part of the last one.
            None => self.settings.insert(0, Setting { path: path.to_owned(), value, origin }),
        }
    }

    fn paths(&self) -> impl Iterator<Item = String> {
        let known = self.settings.iter().map(|setting| setting.path.as_str());
        known.chain(OPTIONAL).map(str::to_owned)
    }

    /// All settings as one document.
    pub fn whole(&self) -> Table {
        nest(self.settings.iter().map(|setting| (setting.path.as_str(), setting.value.clone())))
    }

    /// Where a setting comes from, as people say it.
    pub fn origin(&self, path: &str) -> String {
        let setting = self.settings.iter().find(|setting| setting.path == path);
        setting.and_then(|setting| setting.origin.clone()).unwrap_or_else(|| "the default".to_owned())
    }
}

/// `limits.plugin.time` is set by `BULKHEAD_LIMITS_PLUGIN_TIME`.
pub fn variable(path: &str) -> String {
    format!("BULKHEAD_{}", path.replace('.', "_").to_uppercase())
}

fn nearest_variable<'a>(name: &str, known: impl Iterator<Item = &'a String>) -> Option<String> {
    // A quarter of the letters, because the beginning is the same for all.
    let allowed = name.len().saturating_sub("BULKHEAD_".len()) / 4;
    known
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate.clone())
}

fn flatten(prefix: &str, table: &Table, take: &mut impl FnMut(String, Value)) {
    for (name, value) in table {
        let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        match value {
            Value::Table(inner) => flatten(&path, inner, take),
            value => take(path, value.clone()),
        }
    }
}

fn nest<'a>(settings: impl Iterator<Item = (&'a str, Value)>) -> Table {
    let mut root = Table::new();
    for (path, value) in settings {
        let mut table = &mut root;
        let mut parts: Vec<&str> = path.split('.').collect();
        let last = parts.pop().unwrap_or_default();
        for part in parts {
            let inner = table.entry(part).or_insert_with(|| Value::Table(Table::new()));
            match inner {
                Value::Table(inner) => table = inner,
                // Two settings where one is the other's table cannot be: the raw form has been checked.
                _ => return root,
            }
        }
        table.insert(last.to_owned(), value);
    }
    root
}
