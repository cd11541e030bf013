//! A run's output as its engine gives it, after a cursor. Engines tell of a line's time only, Podman to the second,
//! and a line longer than their buffer comes in pieces of one time: the cursor is a time and how many pieces of it
//! are taken.

use std::sync::{Arc, Mutex, PoisonError};

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
///
/// An engine that follows may end before the last words of a run that is over. They are read once more: by then
/// all of them are written.
pub(super) fn follow(
    docker: Docker,
    name: &str,
    after: Option<&str>,
) -> BoxStream<'static, Result<OutputPiece, String>> {
    let taken = Arc::new(Mutex::new(after.and_then(Cursor::parse)));
    let first = read(&docker, name, true, &taken);
    let name = name.to_owned();
    let rest = futures::stream::once(async move { read(&docker, &name, false, &taken) }).flatten();
    first.chain(rest).boxed()
}

type Taken = Arc<Mutex<Option<Cursor>>>;

fn read(
    docker: &Docker,
    name: &str,
    follow: bool,
    taken: &Taken,
) -> BoxStream<'static, Result<OutputPiece, String>> {
    let old = *taken.lock().unwrap_or_else(PoisonError::into_inner);
    let (mut reader, taken) = (Reader { old, last: None }, taken.clone());
    // A second earlier: an engine may leave out the very second that is named.
    let since = old.map_or(0, |old| i32::try_from(old.at.unix_timestamp() - 1).unwrap_or(0));
    let options = LogsOptions {
        follow,
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
            ) => {
                let piece = reader.take(&message);
                if piece.is_some() {
                    *taken.lock().unwrap_or_else(PoisonError::into_inner) = reader.last;
                }
                piece.map(Ok)
            }
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
        let all = read(&mut Reader { old: None, last: None }, &lines);
        assert_eq!(all.iter().map(|one| one.0.as_str()).collect::<String>(), "a\nb\nc d\n\ne\n");
        for (at, (_, cursor)) in all.iter().enumerate() {
            assert_eq!(read(&mut Reader { old: Cursor::parse(cursor), last: None }, &lines), all[at + 1..]);
        }
    }
}
