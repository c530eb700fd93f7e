//! How many tokens an answer says that it cost, read while it passes: the `usage` of the OpenAI and the Anthropic forms, as one JSON
//! document or as server-sent events. Needs some hundred bytes, however large the answer is.
//! What is no such document costs nothing and breaks nothing.

/// Longest name of a member that is of interest.
const NAME_BYTES: usize = 32;
/// Members are looked at this deep: `response.usage.total_tokens`.
const DEPTH: usize = 3;
/// No answer costs more: what says so is broken, or lies.
const MAX_TOKENS: u64 = 1 << 32;
const DATA: &[u8] = b"data:";

/// Reads one answer.
#[derive(Debug, Default)]
pub struct Meter {
    form: Form,
    scan: Scan,
    usage: Usage,
}

#[derive(Debug, Default, Clone, Copy)]
enum Form {
    #[default]
    Other,
    Json,
    /// Where in its line: so many bytes of `data:` seen, within the data, or in a line of something else.
    Events(Line),
}

#[derive(Debug, Clone, Copy)]
enum Line {
    Begin(usize),
    Data,
    Other,
}

/// The largest that was said of each: what is said again in a stream includes what was said before.
#[derive(Debug, Default, Clone, Copy)]
struct Usage {
    total: u64,
    input: u64,
    output: u64,
    /// Beside the input, where a cache was read and where one was filled.
    read: u64,
    filled: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    Other,
    /// `usage`.
    Usage,
    /// What a usage may be a member of: an event's `message`, an event's `response`.
    Around,
    Count(Count),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Count {
    Total,
    Input,
    Output,
    Read,
    Filled,
}

/// A JSON document, byte by byte: where we are, and nothing of what it says.
#[derive(Debug, Default)]
struct Scan {
    depth: usize,
    /// Of the containers down to [`DEPTH`]: the member that is being read, none in a list.
    members: [Option<Name>; DEPTH],
    in_text: bool,
    escaped: bool,
    /// Whether the next text is a member's name.
    names: bool,
    name: Vec<u8>,
    number: Option<u64>,
}

impl Meter {
    /// For an answer of this media type. One that is encoded says nothing.
    pub fn new(media_type: &str, is_encoded: bool) -> Self {
        let essence = media_type.split(';').next().unwrap_or_default().trim();
        let essence = essence.to_ascii_lowercase();
        let form = match essence.as_str() {
            _ if is_encoded => Form::Other,
            "text/event-stream" => Form::Events(Line::Begin(0)),
            "application/json" => Form::Json,
            other if other.ends_with("+json") => Form::Json,
            _ => Form::Other,
        };
        Self { form, ..Self::default() }
    }

    /// Reads on.
    pub fn read(&mut self, bytes: &[u8]) {
        match &mut self.form {
            Form::Other => {}
            Form::Json => bytes.iter().for_each(|byte| self.scan.take(*byte, &mut self.usage)),
            Form::Events(line) => {
                for byte in bytes {
                    *line = match (*line, *byte) {
                        // A blank line ends an event; `\r` alone ends no line that we know of.
                        (Line::Begin(0), b'\n') => {
                            self.scan = Scan::default();
                            Line::Begin(0)
                        }
                        (Line::Begin(0), b'\r') => Line::Begin(0),
                        (_, b'\n') => {
                            self.scan.take(b'\n', &mut self.usage);
                            Line::Begin(0)
                        }
                        (Line::Begin(seen), byte) if DATA.get(seen) == Some(&byte) => {
                            if seen + 1 == DATA.len() { Line::Data } else { Line::Begin(seen + 1) }
                        }
                        (Line::Begin(_) | Line::Other, _) => Line::Other,
                        (Line::Data, byte) => {
                            self.scan.take(byte, &mut self.usage);
                            Line::Data
                        }
                    };
                }
            }
        }
    }

    /// What was said so far.
    pub fn tokens(&self) -> u64 {
        let Usage { total, input, output, read, filled } = self.usage;
        // Each is at most [`MAX_TOKENS`].
        let parts = input + output + read + filled;
        (if total > 0 { total } else { parts }).min(MAX_TOKENS)
    }
}

// === impl Scan ===

impl Scan {
    fn take(&mut self, byte: u8, usage: &mut Usage) {
        if self.in_text {
            return self.text(byte);
        }
        if let b'0'..=b'9' = byte {
            self.digit(byte - b'0');
            return;
        }
        match byte {
            // A sign, a fraction, a power: no count.
            b'-' | b'+' | b'.' | b'e' | b'E' => self.number = Some(u64::MAX),
            _ => self.end_number(usage),
        }
        match byte {
            b'"' => {
                self.in_text = true;
                self.name.clear();
            }
            b'{' | b'[' => {
                if let Some(member) = self.members.get_mut(self.depth) {
                    *member = (byte == b'{').then_some(Name::Other);
                }
                self.depth = self.depth.saturating_add(1);
                self.names = byte == b'{';
            }
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                self.names = false;
            }
            b',' => self.names = self.member().is_some(),
            b':' => self.names = false,
            _ => {}
        }
    }

    fn text(&mut self, byte: u8) {
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' => {
                self.escaped = true;
                // A name with escapes is none of those that are looked for.
                self.name.resize(NAME_BYTES, 0);
            }
            b'"' => {
                self.in_text = false;
                let name = Name::of(&self.name);
                let at = self.depth.wrapping_sub(1);
                if let (true, Some(member)) = (self.names, self.members.get_mut(at)) {
                    *member = Some(name);
                }
            }
            _ if self.names && self.name.len() < NAME_BYTES => self.name.push(byte),
            _ => {}
        }
    }

    /// What is being read of the innermost container, where that is an object within [`DEPTH`].
    fn member(&self) -> Option<Name> {
        self.members.get(self.depth.wrapping_sub(1)).copied().flatten()
    }

    fn digit(&mut self, digit: u8) {
        let so_far = self.number.unwrap_or_default();
        self.number = Some(so_far.saturating_mul(10).saturating_add(digit.into()));
    }

    fn end_number(&mut self, usage: &mut Usage) {
        let Some(number) = self.number.take().filter(|number| *number <= MAX_TOKENS) else {
            return;
        };
        let path = self.members.get(..self.depth).unwrap_or_default();
        let count = match path {
            [Some(Name::Usage), Some(Name::Count(count))]
            | [Some(Name::Around), Some(Name::Usage), Some(Name::Count(count))] => *count,
            _ => return,
        };
        let place = match count {
            Count::Total => &mut usage.total,
            Count::Input => &mut usage.input,
            Count::Output => &mut usage.output,
            Count::Read => &mut usage.read,
            Count::Filled => &mut usage.filled,
        };
        *place = number.max(*place);
    }
}

impl Name {
    fn of(name: &[u8]) -> Self {
        match name {
            b"usage" => Self::Usage,
            b"message" | b"response" => Self::Around,
            b"total_tokens" => Self::Count(Count::Total),
            b"prompt_tokens" | b"input_tokens" => Self::Count(Count::Input),
            b"completion_tokens" | b"output_tokens" => Self::Count(Count::Output),
            // Anthropic's input tokens are those beside the cached ones.
            b"cache_read_input_tokens" => Self::Count(Count::Read),
            b"cache_creation_input_tokens" => Self::Count(Count::Filled),
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests;
