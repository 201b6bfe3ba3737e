//! Rule files: which there are, where one document ends, what it is called, and where a line came from.
//!
//! The host reads the documents; here they are only told apart, so that its remarks can be shown at the right place.

use std::path::Path;
use std::path::PathBuf;

use serde_json::Value;

use crate::cli::error::Error;
use crate::cli::error::Result;

/// One rule, as it stands in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// The file, as people call it.
    pub file: String,
    /// Lines of the file before this document.
    pub skipped: usize,
    /// The document.
    pub text: String,
}

/// The rule files that a path means, by name.
pub fn files(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let unreadable = |cause| Error::file(path, "read", &cause);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(unreadable)? {
        let file = entry.map_err(unreadable)?.path();
        let kind = file.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        if file.is_file() && matches!(kind.as_str(), "yaml" | "yml" | "json") {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

impl Document {
    /// The documents of a file; `---` stands between them.
    pub fn split(file: &str, text: &str) -> Vec<Self> {
        let mut documents = Vec::new();
        let mut current = Self { file: file.to_owned(), skipped: 0, text: String::new() };
        for (index, line) in text.split_inclusive('\n').enumerate() {
            if line.trim_end() == "---" {
                documents.push(std::mem::replace(
                    &mut current,
                    Self { file: file.to_owned(), skipped: index + 1, text: String::new() },
                ));
            } else {
                current.text.push_str(line);
            }
        }
        documents.push(current);
        let says_something = |line: &str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
        documents.retain(|document| document.text.lines().any(says_something));
        documents
    }

    /// True if it is JSON.
    pub fn is_json(&self) -> bool {
        self.text.trim_start().starts_with(['{', '['])
    }

    /// The rule's name.
    pub fn name(&self) -> Option<String> {
        if self.is_json() {
            let value: Value = serde_json::from_str(&self.text).ok()?;
            return value.get("name")?.as_str().map(str::to_owned);
        }
        let value = self.text.lines().find_map(|line| line.strip_prefix("name:"))?.trim();
        let value = match value.chars().next()? {
            quote @ ('"' | '\'') => value[1..].split(quote).next()?,
            _ => value.split(" #").next()?.trim(),
        };
        (!value.is_empty()).then(|| value.to_owned())
    }

    /// `rules.yaml:12`, where it begins.
    pub fn place(&self) -> String {
        format!("{}:{}", self.file, self.skipped + 1)
    }

    /// The place of one of its lines.
    pub fn at(&self, line: usize) -> (String, usize) {
        (self.file.clone(), if line == 0 { 0 } else { line + self.skipped })
    }

    /// A refusal, with its places in the file.
    pub fn placed(&self, error: Error) -> Error {
        match error {
            Error::Refused(mut problem) => {
                problem.file = Some(self.file.clone());
                for fault in problem.errors.iter_mut().filter(|fault| fault.line > 0) {
                    fault.line += self.skipped;
                }
                Error::Refused(problem)
            }
            other => other,
        }
    }
}

/// All documents as one text, and the line before which each begins there.
pub fn joined(documents: &[Document]) -> (String, Vec<usize>) {
    let mut text = String::new();
    let mut begins = Vec::new();
    for document in documents {
        if !text.is_empty() {
            text.push_str("---\n");
        }
        begins.push(text.lines().count());
        text.push_str(&document.text);
        if !text.ends_with('\n') {
            text.push('\n');
        }
    }
    (text, begins)
}

/// The file and line that a line of the joined text came from.
pub fn found(documents: &[Document], begins: &[usize], line: usize) -> (String, usize) {
    let index = begins.iter().rposition(|begin| *begin < line).unwrap_or_default();
    match documents.get(index) {
        Some(document) => document.at(line.saturating_sub(begins[index])),
        None => (String::new(), line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = "# all of them\n---\nname: one\non: [a]\n---\non: [b]\nname: \"two\" # really\n---\n\n";

    #[test]
    fn documents_are_told_apart_and_named() {
        let documents = Document::split("r.yaml", TWO);
        let names: Vec<_> = documents.iter().map(|it| (it.name(), it.place())).collect();
        let expected = [("one", "r.yaml:3"), ("two", "r.yaml:6")];
        assert_eq!(names, expected.map(|(name, place)| (Some(name.to_owned()), place.to_owned())));
        let check = |text: &str, expected: Option<&str>| {
            let documents = Document::split("x", text);
            assert_eq!(documents[0].name().as_deref(), expected, "{text}");
        };
        check(r#"{"on":["a"],"name":"j"}"#, Some("j"));
        check("name: plain # remark", Some("plain"));
        check("name: 'it''s'", Some("it"));
        check("rules:\n  - name: inner", None);
    }

    #[test]
    fn lines_are_found_again() {
        let mut documents = Document::split("r.yaml", TWO);
        documents.extend(Document::split("s.json", "{\n\"name\":\"three\"}"));
        let (text, begins) = joined(&documents);
        for (index, line) in text.lines().enumerate() {
            let place = found(&documents, &begins, index + 1);
            let expected = match line {
                "name: one" => ("r.yaml", 3),
                "on: [a]" => ("r.yaml", 4),
                "name: \"two\" # really" => ("r.yaml", 7),
                "\"name\":\"three\"}" => ("s.json", 2),
                _ => continue,
            };
            assert_eq!(place, (expected.0.to_owned(), expected.1), "{line}");
        }
    }
}
