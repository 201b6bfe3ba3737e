//! Input: files, standard input, and prompts.

use std::io::BufRead as _;
use std::io::Write as _;
use std::path::Path;

use tokio::io::AsyncReadExt as _;

use crate::cli::error::Error;
use crate::cli::error::Result;

/// The most that is read into memory from one file that is not a stream.
const SIZE_MAX: u64 = 256 << 20;

/// All bytes of a file; `-` is standard input.
pub async fn bytes(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = if path == Path::new("-") {
        tokio::io::stdin().take(SIZE_MAX + 1).read_to_end(&mut bytes).await
    } else {
        let file = tokio::fs::File::open(path).await.map_err(|cause| Error::file(path, "opened", &cause))?;
        file.take(SIZE_MAX + 1).read_to_end(&mut bytes).await
    };
    read.map_err(|cause| Error::file(path, "read", &cause))?;
    if bytes.len() as u64 > SIZE_MAX {
        return Err(Error::failed(format!("{} is larger than {} MiB", path.display(), SIZE_MAX >> 20)));
    }
    Ok(bytes)
}

/// All text of a file; `-` is standard input.
pub async fn text(path: &Path) -> Result<String> {
    String::from_utf8(bytes(path).await?).map_err(|_| Error::failed(format!("{} is not UTF-8 text", path.display())))
}

/// Asks for a line on the terminal without showing what is typed.
pub fn hidden(prompt: &str) -> Result<String> {
    let failed = |cause: std::io::Error| Error::failed(format!("the terminal cannot be read: {cause}"));
    let silence = Silence::begin();
    let mut errors = std::io::stderr().lock();
    write!(errors, "{prompt}").and_then(|()| errors.flush()).map_err(failed)?;
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line);
    drop(silence);
    let _ = writeln!(errors);
    read.map_err(failed)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// Asks whether to go on; without a terminal nobody can say yes.
pub fn confirmed(question: &str) -> Result<bool> {
    use std::io::IsTerminal as _;
    if !std::io::stdin().is_terminal() {
        return Err(Error::Usage("this needs --yes where nobody can be asked".to_owned()));
    }
    let mut errors = std::io::stderr().lock();
    write!(errors, "{question} [y/N] ").and_then(|()| errors.flush()).map_err(Error::Output)?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).map_err(|cause| Error::failed(cause.to_string()))?;
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}

/// The terminal's echo is off while this lives.
struct Silence(bool);

impl Silence {
    /// `stty` is asked because the terminal's own calls are not safe code. Without it the value is shown while typed.
    fn begin() -> Self {
        Self(Self::stty("-echo"))
    }

    fn stty(argument: &str) -> bool {
        std::process::Command::new("stty")
            .arg(argument)
            .stderr(std::process::Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        if self.0 {
            Self::stty("echo");
        }
    }
}
