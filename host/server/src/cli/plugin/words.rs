//! What a component is and needs, as lines on the screen: the same after a build and after an upload.

use crate::cli::error::Result;
use crate::cli::paint::clean;
use crate::cli::screen;

/// Prints a name with what it stands for, line by line; nothing if there is nothing.
pub fn lines<T: AsRef<str>>(name: &str, lines: &[T]) -> Result<()> {
    for (at, line) in lines.iter().enumerate() {
        screen::line(&format!("  {:9}  {}", if at == 0 { name } else { "" }, clean(line.as_ref())))?;
    }
    Ok(())
}

/// The same in one line, with commas.
pub fn list<T: AsRef<str>>(name: &str, items: &[T]) -> Result<()> {
    let items: Vec<&str> = items.iter().map(AsRef::as_ref).collect();
    if items.is_empty() { Ok(()) } else { lines(name, &[items.join(", ")]) }
}
