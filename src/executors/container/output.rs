//! A run's output as its engine gives it, after a cursor. Engines tell of a line's time only, Podman to the second,
//! and a line longer than their buffer comes in pieces of one time: the cursor is a time and how many pieces of it
//! are taken.

use bollard::Docker;
use bollard::container::LogOutput;
use bollard::query_parameters::LogsOptions;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::words;
use crate::ports::OutputPiece;

/// A place in an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cursor {
    at: OffsetDateTime,
    taken: u64,
}

impl Cursor {
    fn parse(text: &str) -> Option<Self> {
        let (at, taken) = text.split_once(' ')?;
        Some(Self { at: OffsetDateTime::parse(at, &Rfc3339).ok()?, taken: taken.parse().ok()? })
    }

    fn text(&self) -> String {
        format!("{} {}", self.at.format(&Rfc3339).unwrap_or_default(), self.taken)
    }
}

/// Tells pieces that were taken before from new ones.
#[derive(Debug)]
struct Reader {
    old: Option<Cursor>,
    last: Option<Cursor>,
}

impl Reader {
    fn after(cursor: Option<&str>) -> Self {
        Self { old: cursor.and_then(Cursor::parse), last: None }
    }

    /// A piece with its time in front; none if it was taken before.
    fn take(&mut self, piece: &Bytes) -> Option<OutputPiece> {
        let blank = piece.iter().position(|byte| *byte == b' ')?;
        let at = std::str::from_utf8(&piece[..blank]).ok()?;
        let at = OffsetDateTime::parse(at, &Rfc3339).ok()?;
        let taken = self.last.filter(|last| last.at == at).map_or(0, |last| last.taken) + 1;
        let cursor = Cursor { at, taken };
        self.last = Some(cursor);
        if self.old.is_some_and(|old| at < old.at || (at == old.at && taken <= old.taken)) {
            return None;
        }
        Some(OutputPiece { bytes: piece.slice(blank + 1..), cursor: cursor.text() })
    }
}

/// All output of a container after a cursor, and on as it comes.
pub(super) fn follow(
    docker: Docker,
    name: &str,
    after: Option<&str>,
) -> BoxStream<'static, Result<OutputPiece, String>> {
    let mut reader = Reader::after(after);
    // A second earlier: an engine may leave out the very second that is named.
    let since = reader.old.map_or(0, |old| i32::try_from(old.at.unix_timestamp() - 1).unwrap_or(0));
    let options = LogsOptions {
        follow: true,
        stdout: true,
        stderr: true,
        timestamps: true,
        since,
        tail: "all".to_owned(),
        ..LogsOptions::default()
    };
    let pieces = docker.logs(name, Some(options));
    let pieces = pieces.filter_map(move |piece| {
        let piece = match piece {
            Ok(
                LogOutput::StdOut { message }
                | LogOutput::StdErr { message }
                | LogOutput::Console { message },
            ) => reader.take(&message).map(Ok),
            Ok(LogOutput::StdIn { .. }) => None,
            // Gone with all it wrote.
            Err(error) if words::status(&error) == Some(404) => None,
            Err(error) => Some(Err(words::plain(&error))),
        };
        std::future::ready(piece)
    });
    pieces.boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(reader: &mut Reader, lines: &[&str]) -> Vec<(String, String)> {
        let taken = lines.iter().filter_map(|line| reader.take(&Bytes::copy_from_slice(line.as_bytes())));
        taken.map(|one| (String::from_utf8(one.bytes.to_vec()).unwrap(), one.cursor)).collect()
    }

    #[test]
    fn what_was_taken_is_neither_lost_nor_given_twice() {
        let lines = [
            "2026-01-02T03:04:05.100000000Z a\n",
            "2026-01-02T03:04:06Z b\n",
            "2026-01-02T03:04:06Z c d\n",
            "2026-01-02T03:04:06Z \n",
            "2026-01-02T05:04:07+02:00 e\n",
        ];
        let all = read(&mut Reader::after(None), &lines);
        assert_eq!(all.iter().map(|one| one.0.as_str()).collect::<String>(), "a\nb\nc d\n\ne\n");
        for (at, (_, cursor)) in all.iter().enumerate() {
            assert_eq!(read(&mut Reader::after(Some(cursor)), &lines), all[at + 1..]);
        }
    }
}
