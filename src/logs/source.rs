//! A log that is read line by line, plain or compressed with gzip.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;

/// The most that is read of a line, bytes: what tells of a request stands at its beginning.
const MAX_LINE: u64 = 64 << 10;

const BUFFER: usize = 64 << 10;

/// How much of a log's text tells it apart from others, bytes.
const BEGINNING: u64 = 4096;

const GZIP: [u8; 2] = [0x1f, 0x8b];

/// A log, and how far it is read.
pub struct Source {
    name: String,
    input: Box<dyn BufRead>,
    line: Vec<u8>,
    number: u64,
}

impl Source {
    /// Of bytes, whatever the name says of them: those of gzip are told by their beginning.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn of(name: &str, input: impl Read + 'static) -> io::Result<Source> {
        let mut input = BufReader::with_capacity(BUFFER, input);
        let input: Box<dyn BufRead> = if input.fill_buf()?.starts_with(&GZIP) {
            Box::new(BufReader::with_capacity(BUFFER, MultiGzDecoder::new(input)))
        } else {
            Box::new(input)
        };
        Ok(Source { name: name.to_owned(), input, line: Vec::new(), number: 0 })
    }

    /// The first of its text, as far as it can be read.
    pub fn beginning(self) -> Vec<u8> {
        let mut text = Vec::new();
        // What cannot be read is told when the log is.
        self.input.take(BEGINNING).read_to_end(&mut text).ok();
        text
    }

    /// The next line, cut where it is too long; none at the end.
    pub(super) fn next_line(&mut self) -> Result<Option<&[u8]>, String> {
        let read = self.read_line().map_err(|error| {
            format!("{} is the last line that could be read ({error}); no later day is counted", self.place())
        })?;
        self.number += u64::from(read > 0);
        Ok((read > 0).then_some(&self.line))
    }

    fn read_line(&mut self) -> io::Result<usize> {
        self.line.clear();
        let read = self.input.by_ref().take(MAX_LINE).read_until(b'\n', &mut self.line)?;
        if read as u64 == MAX_LINE && !self.line.ends_with(b"\n") {
            self.input.skip_until(b'\n')?;
        }
        Ok(read)
    }

    /// The place of the line that was read last, for people.
    pub(super) fn place(&self) -> String {
        format!("{}:{}", self.name, self.number)
    }
}
