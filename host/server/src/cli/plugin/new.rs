//! `bulkhead plugin new`: a folder that builds, from templates that this binary carries.
//!
//! A template is a folder below `templates/plugin/`; `{{ name }}` in its files becomes the plugin's name, `{{ module }}`
//! the same with underscores. The SDK of the language comes along, and the schemas of what the author will write, so that
//! only public packages have to be asked of a server.

use std::io::BufRead as _;
use std::io::IsTerminal as _;
use std::io::Write as _;
use std::path::Path;
use std::path::PathBuf;

use clap::Args;
use clap::ValueEnum;
use include_dir::Dir;
use include_dir::DirEntry;
use include_dir::include_dir;

use crate::cli::error::Error;
use crate::cli::error::Result;
use crate::cli::paint::Paint;
use crate::cli::plugin::schema;
use crate::cli::screen;
use crate::manifest::is_plain_name;

static TEMPLATES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/templates/plugin");

/// An SDK: where it goes in the plugin's folder, its folders there, and its single files.
struct Sdk {
    place: &'static str,
    folders: &'static [(&'static str, &'static Dir<'static>)],
    files: &'static [(&'static str, &'static str)],
}

static RUST: Sdk = Sdk {
    place: "vendor/bulkhead-plugin",
    folders: &[
        ("src", &include_dir!("$CARGO_MANIFEST_DIR/../../plugin-sdk/rust/src")),
        ("macros", &include_dir!("$CARGO_MANIFEST_DIR/../../plugin-sdk/rust/macros")),
        ("wit", &include_dir!("$CARGO_MANIFEST_DIR/../../plugin-sdk/rust/wit")),
    ],
    files: &[
        ("Cargo.toml", include_str!("../../../../../plugin-sdk/rust/Cargo.toml")),
        ("README.md", include_str!("../../../../../plugin-sdk/rust/README.md")),
    ],
};

static SCRIPT: Sdk = Sdk {
    place: "vendor/bulkhead-plugin",
    folders: &[
        ("bin", &include_dir!("$CARGO_MANIFEST_DIR/../../plugin-sdk/js/bin")),
        ("build", &include_dir!("$CARGO_MANIFEST_DIR/../../plugin-sdk/js/build")),
        ("src", &include_dir!("$CARGO_MANIFEST_DIR/../../plugin-sdk/js/src")),
        ("types", &include_dir!("$CARGO_MANIFEST_DIR/../../plugin-sdk/js/types")),
        ("wit", &include_dir!("$CARGO_MANIFEST_DIR/../../plugin-sdk/js/wit")),
    ],
    files: &[
        ("package.json", include_str!("../../../../../plugin-sdk/js/package.json")),
        ("README.md", include_str!("../../../../../plugin-sdk/js/README.md")),
    ],
};

static PYTHON: Sdk = Sdk {
    place: "bulkhead_plugin",
    folders: &[("", &include_dir!("$CARGO_MANIFEST_DIR/../../plugin-sdk/python/src/bulkhead_plugin"))],
    files: &[("README.md", include_str!("../../../../../plugin-sdk/python/README.md"))],
};

/// What Python leaves beside its sources, also where a binary is built.
const LEFT_BEHIND: &str = "__pycache__";

const EXAMPLES: &str = "Examples:
  bulkhead plugin new fraud-score -t rust
  bulkhead plugin new plugins/enrich -t ts
  bulkhead plugin new enrich                # asks for the language";

/// What is begun.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct New {
    /// The plugin's name, or a path that ends in it: small letters, digits and dashes
    path: PathBuf,
    /// The language: rust, ts, js or python; asked for on a terminal unless it is given
    #[arg(short, long, value_enum, hide_possible_values = true)]
    template: Option<Template>,
    /// Ask nothing: Rust, unless -t says otherwise
    #[arg(short, long)]
    yes: bool,
}

/// The languages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Template {
    /// Rust: the smallest and fastest components
    Rust,
    /// TypeScript
    #[value(alias = "typescript")]
    Ts,
    /// JavaScript
    #[value(alias = "javascript")]
    Js,
    /// Python
    #[value(alias = "py")]
    Python,
}

impl Template {
    const ALL: [Self; 4] = [Self::Rust, Self::Ts, Self::Js, Self::Python];

    /// Its folder, which is also how it is called on the command line.
    const fn folder(self) -> &'static str {
        match self {
            Self::Rust => "rust",
            Self::Ts => "ts",
            Self::Js => "js",
            Self::Python => "python",
        }
    }

    const fn sdk(self) -> &'static Sdk {
        match self {
            Self::Rust => &RUST,
            Self::Ts | Self::Js => &SCRIPT,
            Self::Python => &PYTHON,
        }
    }

    fn files(self) -> Option<&'static Dir<'static>> {
        TEMPLATES.get_dir(self.folder())
    }

    /// Those that this binary carries.
    fn carried() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|template| template.files().is_some())
    }
}

impl New {
    /// Does it.
    pub fn run(&self) -> Result<()> {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !is_plain_name(&name) {
            return Err(Error::Usage(format!(
                "`{name}` is no name of a plugin: write small letters, digits and dashes, such as fraud-score"
            )));
        }
        let template = self.template.map_or_else(|| self.ask(), Ok)?;
        let Some(files) = template.files() else {
            let carried: Vec<&str> = Template::carried().map(Template::folder).collect();
            let what = format!("this build of bulkhead carries no template for {}", template.folder());
            return Err(Error::hinted(what, format!("it carries {}", carried.join(", "))));
        };
        make(&self.path, &name, template, files)?;
        let paint = Paint::stdout();
        let path = self.path.display();
        screen::line(&format!("{} {path}  a plugin in {}", paint.green("made"), template.folder()))?;
        screen::line("next:")?;
        for command in [format!("cd {path}"), "bulkhead plugin build".into(), "bulkhead plugin test".into()] {
            screen::line(&format!("  {}", paint.bold(&command)))?;
        }
        Ok(())
    }

    fn ask(&self) -> Result<Template> {
        if self.yes {
            return Ok(Template::Rust);
        }
        let carried: Vec<Template> = Template::carried().collect();
        let words: Vec<&str> = carried.iter().map(|template| template.folder()).collect();
        if !std::io::stdin().is_terminal() {
            return Err(Error::Usage(format!("say which language: -t {}", words.join(" | "))));
        }
        let mut errors = std::io::stderr().lock();
        for (at, word) in words.iter().enumerate() {
            writeln!(errors, "  {}  {word}", at + 1).map_err(Error::Output)?;
        }
        write!(errors, "Which language? [1] ").and_then(|()| errors.flush()).map_err(Error::Output)?;
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line).map_err(|cause| Error::failed(cause.to_string()))?;
        let said = line.trim();
        let number: Option<usize> = if said.is_empty() { Some(1) } else { said.parse().ok() };
        let by_number = number.and_then(|number| carried.get(number.checked_sub(1)?).copied());
        let by_word = carried.iter().copied().find(|template| template.folder() == said);
        by_number.or(by_word).ok_or_else(|| Error::Usage(format!("`{said}` is none of them")))
    }
}

/// Writes the folder, which must be empty or not there.
fn make(path: &Path, name: &str, template: Template, files: &Dir<'_>) -> Result<()> {
    let is_taken = match std::fs::read_dir(path) {
        Ok(mut entries) => entries.next().is_some(),
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => false,
        Err(cause) => return Err(Error::file(path, "used", &cause)),
    };
    if is_taken {
        let what = format!("{} is there already and not empty", path.display());
        return Err(Error::hinted(what, "choose another name, or empty the folder first"));
    }
    write_all(files, files.path(), path, &|text| {
        text.replace("{{ name }}", name).replace("{{ module }}", &name.replace('-', "_"))
    })?;
    let sdk = template.sdk();
    let place = path.join(sdk.place);
    for (folder, files) in sdk.folders {
        write_all(files, files.path(), &place.join(folder), &str::to_owned)?;
    }
    for (file, text) in sdk.files {
        write(&place.join(file), text.as_bytes())?;
    }
    for (file, schema) in [("plugin.json", schema::manifest()), ("fixture.json", schema::fixture())] {
        write(&path.join(".schema").join(file), format!("{schema:#}\n").as_bytes())?;
    }
    Ok(())
}

/// Writes a carried folder; texts are changed on the way.
fn write_all(from: &Dir<'_>, root: &Path, to: &Path, change: &dyn Fn(&str) -> String) -> Result<()> {
    for entry in from.entries() {
        match entry {
            DirEntry::Dir(folder) if folder.path().ends_with(LEFT_BEHIND) => {}
            DirEntry::Dir(folder) => write_all(folder, root, to, change)?,
            DirEntry::File(file) => {
                let place = file.path().strip_prefix(root).unwrap_or(file.path());
                match file.contents_utf8() {
                    Some(text) => write(&to.join(place), change(text).as_bytes())?,
                    None => write(&to.join(place), file.contents())?,
                }
            }
        }
    }
    Ok(())
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().unwrap_or(path);
    std::fs::create_dir_all(folder).map_err(|cause| Error::file(folder, "made", &cause))?;
    std::fs::write(path, bytes).map_err(|cause| Error::file(path, "written", &cause))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Fixture;
    use crate::manifest::Document;

    #[test]
    fn every_template_is_a_plugin_with_a_fixture() {
        let folder = tempfile::tempdir().expect("because a temporary folder can be made");
        let mut made = 0;
        for template in Template::carried() {
            let path = folder.path().join(template.folder()).join("my-plugin");
            make(&path, "my-plugin", template, template.files().expect("because it is carried")).expect("written");
            let text = std::fs::read_to_string(path.join("plugin.toml")).expect("because each has a manifest");
            assert!(text.starts_with("#:schema ./.schema/plugin.json\n"), "{text}");
            let document = Document::parse(&text).unwrap_or_else(|faults| panic!("{template:?}: {faults:?}"));
            assert_eq!(document.manifest.plugin.name, "my-plugin");
            assert!(document.build.command.is_some() && document.build.artifact.is_some(), "{template:?}");
            let mut fixtures = 0;
            for entry in std::fs::read_dir(path.join("tests")).expect("because each has fixtures").flatten() {
                if entry.path().extension().is_none_or(|ending| ending != "json") {
                    continue;
                }
                let text = std::fs::read_to_string(entry.path()).expect("because it was written");
                let fixture = Fixture::parse(&text).unwrap_or_else(|fault| panic!("{fault}"));
                assert!(fixture.expect.is_some(), "{template:?}");
                fixtures += 1;
            }
            assert!(fixtures > 0, "{template:?}");
            made += 1;
        }
        assert!(made > 0);
    }

    #[test]
    fn a_folder_with_something_in_it_is_left_alone() {
        let folder = tempfile::tempdir().expect("because a temporary folder can be made");
        std::fs::write(folder.path().join("mine"), "x").expect("because it is ours");
        let files = Template::Rust.files().expect("because it is carried");
        let error = make(folder.path(), "a", Template::Rust, files).expect_err("because it is not empty");
        assert!(error.to_string().contains("not empty"), "{error}");
        assert_eq!(std::fs::read_dir(folder.path()).expect("because it is there").count(), 1);
    }
}
