//! Server-sent events, read from a stream of bytes.

/// The most that one message may hold; the host's events are smaller.
const MESSAGE_MAX: usize = 16 << 20;

/// A message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// Its name; empty means `message`.
    pub event: String,
    /// Its lines of data.
    pub data: String,
}

/// Puts messages together from pieces of any size.
#[derive(Debug, Default)]
pub struct Parser {
    buffer: Vec<u8>,
    current: Message,
    last_id: Option<String>,
    pending_id: Option<String>,
    retry_ms: Option<u64>,
}

/// A message that exceeds every limit.
#[derive(Debug, PartialEq, Eq)]
pub struct TooLarge;

impl Parser {
    /// The id of the last whole message: where to go on after a break.
    pub fn last_id(&self) -> Option<&str> {
        self.last_id.as_deref()
    }

    /// How long the host asks to wait before connecting again.
    pub fn retry_ms(&self) -> Option<u64> {
        self.retry_ms
    }

    /// Forgets a message that was cut off. Its id was never taken over, so nothing is skipped.
    pub fn reconnected(&mut self) {
        self.buffer.clear();
        self.current = Message::default();
        self.pending_id = None;
    }

    /// Takes a piece; gives the messages that it completes.
    pub fn feed(&mut self, piece: &[u8]) -> Result<Vec<Message>, TooLarge> {
        self.buffer.extend_from_slice(piece);
        let mut messages = Vec::new();
        let mut start = 0;
        while let Some(length) = self.buffer[start..].iter().position(|byte| *byte == b'\n') {
            let line = String::from_utf8_lossy(&self.buffer[start..start + length]).into_owned();
            start += length + 1;
            if let Some(message) = self.line(line.strip_suffix('\r').unwrap_or(&line)) {
                messages.push(message);
            }
        }
        self.buffer.drain(..start);
        if self.buffer.len() + self.current.data.len() > MESSAGE_MAX { Err(TooLarge) } else { Ok(messages) }
    }

    fn line(&mut self, line: &str) -> Option<Message> {
        if line.is_empty() {
            if let Some(id) = self.pending_id.take() {
                self.last_id = Some(id);
            }
            let message = std::mem::take(&mut self.current);
            return (!message.data.is_empty()).then_some(message);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.current.event),
            "data" => {
                if !self.current.data.is_empty() {
                    self.current.data.push('\n');
                }
                self.current.data.push_str(value);
            }
            "id" if !value.contains('\0') => self.pending_id = Some(value.to_owned()),
            "retry" => self.retry_ms = value.parse().ok().or(self.retry_ms),
            // Comments (an empty field) keep the connection open; unknown fields are to be passed over.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str =
        ": hello\n\nid: 1\nevent: event\ndata: {\"a\":1}\n\nretry: 250\nid:2\ndata: x\ndata: ü\r\n\r\nid: 3\ndata: cut";

    #[test]
    fn pieces_of_any_size_give_the_same_messages() {
        for size in 1..STREAM.len() {
            let mut parser = Parser::default();
            let mut messages = Vec::new();
            for piece in STREAM.as_bytes().chunks(size) {
                messages.extend(parser.feed(piece).expect("because it is small"));
            }
            let expected = [("event", "{\"a\":1}"), ("", "x\nü")];
            let expected = expected.map(|(event, data)| Message { event: event.into(), data: data.into() });
            assert_eq!(messages, expected, "{size}");
            // The third was cut off: the host has to send it again.
            assert_eq!((parser.last_id(), parser.retry_ms()), (Some("2"), Some(250)), "{size}");
            parser.reconnected();
            assert_eq!(parser.feed(b"data: y\n\n").expect("because it is small")[0].data, "y");
            assert_eq!(parser.last_id(), Some("2"));
        }
    }

    #[test]
    fn an_endless_message_ends() {
        let mut parser = Parser::default();
        let piece = vec![b'x'; 1 << 20];
        assert!((0..20).any(|_| parser.feed(&piece) == Err(TooLarge)));
    }
}
