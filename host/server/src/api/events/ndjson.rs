//! Lines out of pieces of any size, without holding more than one line.

use bulkhead_flow::inbox::Rejection;
use bytes::Bytes;
use bytes::BytesMut;

/// A line that is not blank.
#[derive(Debug, PartialEq, Eq)]
pub struct Line {
    /// Which one, from 0; blank lines count.
    pub index: u32,
    /// What stands in it, without its end.
    pub content: Result<Bytes, Rejection>,
}

/// Cuts pieces into lines.
#[derive(Debug)]
pub struct Lines {
    longest: usize,
    /// The beginning of a line whose end has not come yet.
    begun: BytesMut,
    /// The line is too long: what is left of it is passed over.
    over: bool,
    index: u32,
}

impl Lines {
    /// Of lines that may have `longest` bytes.
    pub fn new(longest: usize) -> Self {
        Self { longest, begun: BytesMut::new(), over: false, index: 0 }
    }

    /// Takes a piece; gives the lines that it ends.
    pub fn feed(&mut self, mut piece: Bytes) -> Vec<Line> {
        let mut lines = Vec::new();
        while let Some(length) = piece.iter().position(|byte| *byte == b'\n') {
            let part = piece.split_to(length + 1).slice(..length);
            lines.extend(self.end_with(part));
        }
        if self.begun.len() + piece.len() > self.longest {
            self.over = true;
            self.begun.clear();
        }
        if !self.over {
            self.begun.extend_from_slice(&piece);
        }
        lines
    }

    /// The last line, if it has no end of its own.
    pub fn end(mut self) -> Option<Line> {
        self.end_with(Bytes::new())
    }

    fn end_with(&mut self, part: Bytes) -> Option<Line> {
        let index = self.index;
        self.index = self.index.saturating_add(1);
        let begun = std::mem::take(&mut self.begun);
        if std::mem::take(&mut self.over) || begun.len() + part.len() > self.longest {
            let detail = format!("the line has more than {} bytes", self.longest);
            return Some(Line { index, content: Err(Rejection::new("event:too-large", detail)) });
        }
        let whole = if begun.is_empty() {
            part
        } else {
            let mut whole = begun;
            whole.extend_from_slice(&part);
            whole.freeze()
        };
        let text = whole.trim_ascii();
        (!text.is_empty()).then(|| Line { index, content: Ok(whole.slice_ref(text)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_any_size_give_the_same_lines() {
        let text = b"{\"a\":1}\r\n\n  \n{\"b\":\"0123456789\"}\n{\"c\":3}\nlast";
        for size in 1..=text.len() {
            let mut lines = Lines::new(12);
            let mut found = Vec::new();
            for piece in text.chunks(size) {
                found.extend(lines.feed(Bytes::copy_from_slice(piece)));
            }
            found.extend(lines.end());
            let shown: Vec<(u32, &str)> = found
                .iter()
                .map(|line| match &line.content {
                    Ok(text) => (line.index, std::str::from_utf8(text).expect("because it went in so")),
                    Err(rejection) => (line.index, rejection.code),
                })
                .collect();
            assert_eq!(shown, [(0, "{\"a\":1}"), (3, "event:too-large"), (4, "{\"c\":3}"), (5, "last")], "{size}");
        }
    }

    #[test]
    fn a_line_without_end_is_not_kept() {
        let mut lines = Lines::new(10);
        for _ in 0..1_000 {
            assert!(lines.feed(Bytes::from_static(b"0123456789")).is_empty());
        }
        assert!(lines.begun.is_empty());
        assert_eq!(lines.feed(Bytes::from_static(b"x\n{}\n")).len(), 2);
        assert_eq!(lines.end(), None);
    }
}
