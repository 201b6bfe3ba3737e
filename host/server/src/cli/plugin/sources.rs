//! Which files a component is made of: `watch` waits for changes of them, `test` says when the component is older.

use std::path::Path;
use std::path::PathBuf;
use std::time::SystemTime;

use notify::RecursiveMode;

use crate::cli::error::Error;
use crate::cli::error::Result;
use crate::cli::plugin::local::MANIFEST;
use crate::cli::plugin::local::Project;
use crate::cli::plugin::test::FOLDER;

/// What counts where the manifest names nothing.
const USUAL: [&str; 6] = ["src/**", "*.rs", "*.py", "*.ts", "*.js", "*.mjs"];

/// What a file is to a plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The component is made of it: a file of `watch`, or the manifest.
    Source,
    /// `test` runs it.
    Fixture,
}

/// The files of a plugin's folder.
#[derive(Debug)]
pub struct Sources {
    root: PathBuf,
    patterns: Vec<glob::Pattern>,
    artifact: Option<PathBuf>,
}

impl Sources {
    /// As the manifest names them.
    pub fn of(project: &Project) -> Result<Self> {
        let root = real(&project.folder)?;
        let artifact = project.build.artifact.as_ref().map(|artifact| root.join(artifact));
        Ok(Self { patterns: globs(&project.build.watch), artifact, root })
    }

    /// What a file is, by its whole path; none if it is nothing to the plugin.
    pub fn part(&self, path: &Path) -> Option<Part> {
        if Some(path) == self.artifact.as_deref() {
            return None;
        }
        let place = path.strip_prefix(&self.root).ok()?;
        let is_fixture =
            place.parent() == Some(Path::new(FOLDER)) && place.extension().is_some_and(|ending| ending == "json");
        if is_fixture {
            return Some(Part::Fixture);
        }
        let is_source = place == Path::new(MANIFEST) || self.patterns.iter().any(|it| it.matches_path(place));
        is_source.then_some(Part::Source)
    }

    /// The folders in which all of them lie.
    pub fn folders(&self) -> Vec<(PathBuf, RecursiveMode)> {
        // A pattern that begins with a star reaches every folder, if it reaches any.
        let is_deep =
            |pattern: &glob::Pattern| pattern.as_str().contains('/') && base(pattern.as_str()) == Path::new("");
        let mode =
            if self.patterns.iter().any(is_deep) { RecursiveMode::Recursive } else { RecursiveMode::NonRecursive };
        let mut folders = vec![(self.root.clone(), mode), (self.root.join(FOLDER), RecursiveMode::NonRecursive)];
        let named = self.patterns.iter().map(|pattern| base(pattern.as_str())).filter(|it| it != Path::new(""));
        folders.extend(named.map(|folder| (self.root.join(folder), RecursiveMode::Recursive)));
        folders
    }

    /// The source that was changed last, from the plugin's folder, if that was after this time.
    pub fn newer(&self, than: SystemTime) -> Option<PathBuf> {
        let mut newest: Option<(SystemTime, PathBuf)> = None;
        let mut todo = self.folders();
        while let Some((folder, mode)) = todo.pop() {
            // What cannot be read is a matter of the build.
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                let path = entry.path();
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    todo.extend((mode == RecursiveMode::Recursive).then_some((path, mode)));
                    continue;
                }
                if self.part(&path) != Some(Part::Source) {
                    continue;
                }
                let Ok(changed) = path.metadata().and_then(|about| about.modified()) else { continue };
                if changed > newest.as_ref().map_or(than, |(newest, _)| *newest) {
                    newest = Some((changed, path));
                }
            }
        }
        newest.map(|(_, path)| path.strip_prefix(&self.root).map(Path::to_path_buf).unwrap_or(path))
    }
}

/// The whole path of what is there.
pub fn real(path: &Path) -> Result<PathBuf> {
    path.canonicalize().map_err(|cause| Error::file(path, "found", &cause))
}

fn globs(named: &[String]) -> Vec<glob::Pattern> {
    let usual = USUAL.map(str::to_owned);
    let named = if named.is_empty() { &usual[..] } else { named };
    named.iter().filter_map(|pattern| glob::Pattern::new(pattern).ok()).collect()
}

/// The folder of a glob in which all that it matches lies.
fn base(pattern: &str) -> PathBuf {
    let parts: Vec<&str> = pattern.split('/').collect();
    let fixed = parts.iter().take(parts.len() - 1).take_while(|part| !part.contains(['*', '?', '[']));
    fixed.collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::manifest::Build;
    use crate::manifest::Manifest;

    #[test]
    fn only_the_folders_of_globs_are_looked_at() {
        for (pattern, folder) in [
            ("src/**", "src"),
            ("src/a/*.rs", "src/a"),
            ("Cargo.toml", ""),
            ("*.py", ""),
            ("a/b[12]/c", "a"),
            ("**", ""),
        ] {
            assert_eq!(base(pattern), Path::new(folder), "{pattern}");
        }
    }

    #[test]
    fn a_glob_takes_what_lies_below() {
        let patterns = globs(&["src/**".to_owned(), "Cargo.toml".to_owned()]);
        let matches = |path: &str| patterns.iter().any(|pattern| pattern.matches_path(Path::new(path)));
        assert!(matches("src/lib.rs") && matches("src/a/b.rs") && matches("Cargo.toml"));
        assert!(!matches("target/release/x") && !matches("README.md"));
    }

    #[test]
    fn the_newest_source_is_found_and_nothing_else() {
        let folder = tempfile::tempdir().expect("because a temporary folder can be made");
        let built = SystemTime::now();
        let write = |name: &str, seconds: i64| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().expect("because it is in the folder")).expect("because it is ours");
            let file = std::fs::File::create(path).expect("because the folder is there");
            let span = Duration::from_secs(seconds.unsigned_abs());
            let time = if seconds < 0 { built - span } else { built + span };
            file.set_modified(time).expect("because the file is ours");
        };
        let project = |watch: &[&str]| Project {
            folder: folder.path().to_path_buf(),
            manifest: Manifest::bare("p"),
            build: Build {
                artifact: Some("out/p.wasm".to_owned()),
                watch: watch.iter().map(|glob| (*glob).to_owned()).collect(),
                ..Build::default()
            },
        };
        let newer = |watch: &[&str]| Sources::of(&project(watch)).expect("because the folder is there").newer(built);
        write("plugin.toml", -9);
        write("src/lib.rs", -9);
        write("src/deep/part.rs", -9);
        write("README.md", 9);
        write("tests/first.json", 9);
        write("out/p.wasm", 9);
        for watch in [&[] as &[&str], &["src/**"], &["**/*.rs"], &["**"]] {
            let found = newer(watch);
            let expected = if watch == ["**"] { Some(Path::new("README.md")) } else { None };
            assert_eq!(found.as_deref(), expected, "{watch:?}");
        }
        write("plugin.toml", 1);
        assert_eq!(newer(&["src/**"]).as_deref(), Some(Path::new("plugin.toml")));
        write("src/deep/part.rs", 5);
        write("src/lib.rs", 3);
        for watch in [&[] as &[&str], &["src/**"], &["**/*.rs"]] {
            assert_eq!(newer(watch).as_deref(), Some(Path::new("src/deep/part.rs")), "{watch:?}");
        }
        assert_eq!(newer(&["src/*.nothing"]).as_deref(), Some(Path::new("plugin.toml")));
    }
}
