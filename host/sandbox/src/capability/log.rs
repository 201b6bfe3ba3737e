//! The plugin's log: bounded, on single lines, without secrets. What does not fit is dropped and counted; a guest
//! never waits for it and never fails because of it.

use bulkhead_domain::effect::Level;
use bulkhead_domain::effect::LogLine;
use bulkhead_domain::policy::limits::Limits;

use super::redact;
use super::redact::Redactor;

/// Fields of one line.
const FIELDS_MAX: usize = 32;
/// Bytes of a field's name.
const FIELD_NAME_MAX: usize = 64;

/// Error lines that are kept to say why a guest ended itself.
const LAST_WORDS: usize = 4;
/// Bytes of each of them.
const LAST_WORD_MAX: usize = 512;

/// One of the guest's standard streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Becomes lines of level info.
    Out,
    /// Becomes lines of level warn; where a runtime writes its last words.
    Err,
}

/// What one call wrote.
#[derive(Debug, Default)]
pub(crate) struct Log {
    lines: Vec<LogLine>,
    bytes: usize,
    dropped: u32,
    out: Vec<u8>,
    err: Vec<u8>,
    last_words: Vec<String>,
}

impl Log {
    /// Writes a line.
    pub(crate) fn write(
        &mut self,
        limits: &Limits,
        redactor: &Redactor,
        level: Level,
        message: &str,
        fields: &[(String, String)],
    ) {
        if level == Level::Error {
            self.remember(redactor, message);
        }
        // A line that cannot be kept is not worked on: a flood costs the guest, not the host.
        if self.lines.len() >= limits.log_lines || self.bytes >= limits.log_bytes {
            self.dropped = self.dropped.saturating_add(1);
            return;
        }
        let message = redact::escape(&redactor.redact(message), limits.log_line);
        let mut room = limits.log_line - message.len().min(limits.log_line);
        let mut kept = Vec::new();
        for (name, value) in fields.iter().take(FIELDS_MAX) {
            let name = redact::escape(&redactor.redact(name), FIELD_NAME_MAX);
            let value = redact::escape(&redactor.redact(value), room.saturating_sub(name.len()));
            let Some(rest) = room.checked_sub(name.len() + value.len()) else { break };
            room = rest;
            kept.push((name, value));
        }
        let size = message.len() + kept.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        if self.bytes + size > limits.log_bytes {
            self.dropped = self.dropped.saturating_add(1);
            return;
        }
        self.bytes += size;
        self.lines.push(LogLine { level, message, fields: kept });
    }

    /// Takes what the guest wrote to a standard stream; each line becomes a line.
    pub(crate) fn stream(&mut self, limits: &Limits, redactor: &Redactor, stream: Stream, bytes: &[u8]) {
        let mut pieces = bytes.split(|byte| *byte == b'\n').peekable();
        while let Some(piece) = pieces.next() {
            let buffer = self.buffer(stream);
            // The rest of a line that is longer than a line may be is of no use.
            let room = limits.log_line.saturating_sub(buffer.len());
            buffer.extend_from_slice(&piece[..piece.len().min(room)]);
            if pieces.peek().is_some() {
                self.end_line(limits, redactor, stream);
            }
        }
    }

    /// Writes what stands in the standard streams without a line's end.
    pub(crate) fn flush(&mut self, limits: &Limits, redactor: &Redactor) {
        for stream in [Stream::Out, Stream::Err] {
            if !self.buffer(stream).is_empty() {
                self.end_line(limits, redactor, stream);
            }
        }
    }

    /// The last things it said that sound like a reason, oldest first.
    pub(crate) fn last_words(&self) -> Option<String> {
        (!self.last_words.is_empty()).then(|| self.last_words.join(" / "))
    }

    /// The lines, and how many were dropped.
    pub(crate) fn into_parts(self) -> (Vec<LogLine>, u32) {
        (self.lines, self.dropped)
    }

    fn buffer(&mut self, stream: Stream) -> &mut Vec<u8> {
        match stream {
            Stream::Out => &mut self.out,
            Stream::Err => &mut self.err,
        }
    }

    fn end_line(&mut self, limits: &Limits, redactor: &Redactor, stream: Stream) {
        let bytes = std::mem::take(self.buffer(stream));
        let text = String::from_utf8_lossy(&bytes);
        let text = text.trim_end_matches('\r');
        if text.is_empty() {
            return;
        }
        let level = match stream {
            Stream::Out => Level::Info,
            Stream::Err => {
                self.remember(redactor, text);
                Level::Warn
            }
        };
        self.write(limits, redactor, level, text, &[]);
    }

    fn remember(&mut self, redactor: &Redactor, text: &str) {
        // Rust says this after every panic, and here nobody can follow the advice.
        if text.starts_with("note: run with `RUST_BACKTRACE") {
            return;
        }
        if self.last_words.len() == LAST_WORDS {
            self.last_words.remove(0);
        }
        self.last_words.push(redact::escape(&redactor.redact(text), LAST_WORD_MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits { log_bytes: 100, log_lines: 5, log_line: 20, ..Limits::default() }
    }

    #[test]
    fn a_flood_is_dropped_and_counted() {
        let mut log = Log::default();
        for _ in 0..1_000 {
            log.write(&limits(), &Redactor::default(), Level::Info, "1234567890", &[]);
        }
        let (lines, dropped) = log.into_parts();
        assert_eq!((lines.len(), dropped), (5, 995));

        let mut log = Log::default();
        for _ in 0..10 {
            log.write(&limits(), &Redactor::default(), Level::Info, &"x".repeat(1_000), &[]);
        }
        let (lines, dropped) = log.into_parts();
        assert!(lines.iter().map(|line| line.message.len()).sum::<usize>() <= 100);
        assert_eq!(lines.len() + dropped as usize, 10);
    }

    #[test]
    fn fields_share_the_line_s_room() {
        let mut log = Log::default();
        let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        log.write(
            &limits(),
            &Redactor::default(),
            Level::Info,
            "12345",
            &[field("a", "\n"), field("b", &"x".repeat(100)), field("c", "dropped")],
        );
        let (lines, _) = log.into_parts();
        let size: usize = lines[0].fields.iter().map(|(name, value)| name.len() + value.len()).sum();
        assert!(lines[0].message.len() + size <= 20, "{lines:?}");
        assert_eq!(lines[0].fields[0], field("a", "\\n"));
        assert!(lines[0].fields.iter().all(|(name, _)| name != "c"));
    }

    #[test]
    fn streams_become_lines() {
        let mut log = Log::default();
        for piece in ["one\ntw", "o\r\n\n", "three"] {
            log.stream(&limits(), &Redactor::default(), Stream::Out, piece.as_bytes());
        }
        log.stream(&limits(), &Redactor::default(), Stream::Err, b"panicked at\nboom\xff\n");
        log.flush(&limits(), &Redactor::default());
        assert_eq!(log.last_words().as_deref(), Some("panicked at / boom\u{fffd}"));
        let (lines, _) = log.into_parts();
        let texts: Vec<_> = lines.iter().map(|line| (line.level, line.message.as_str())).collect();
        assert_eq!(
            texts,
            [
                (Level::Info, "one"),
                (Level::Info, "two"),
                (Level::Warn, "panicked at"),
                (Level::Warn, "boom\u{fffd}"),
                (Level::Info, "three"),
            ]
        );
    }
}
