//! An instance's output: it writes straight to a file opened for appending, so no death of guard or node
//! ever blocks it. Here that file is rotated, and read by offsets that count from the first byte written.
//! Does not know whose output it is.
//!
//! In a folder: `current`, rotated parts named by the offset of their first byte, and `lock`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::Context;
use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock};

use crate::ports::{LogChunk, LogFrom, LogQuery};

/// How much output is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogPolicy {
    /// A file grown beyond this is rotated.
    pub max_bytes: u64,
    /// Rotated files kept.
    pub keep: usize,
}

/// File systems remove whole blocks only; all common block sizes divide this.
const BLOCK: u64 = 64 * 1024;

/// Opens the file that an instance writes to.
pub fn open_output(folder: &Path) -> io::Result<File> {
    fs::create_dir_all(folder)?;
    OpenOptions::new().create(true).append(true).open(folder.join("current"))
}

/// A rotated part.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    start: u64,
    length: u64,
    path: PathBuf,
}

fn parts(folder: &Path) -> io::Result<Vec<Part>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if let Some(start) = name.to_str().and_then(|name| name.strip_suffix(".log")?.parse().ok()) {
            all.push(Part { start, length: entry.metadata()?.len(), path: entry.path() });
        }
    }
    all.sort_by_key(|part| part.start);
    Ok(all)
}

/// The offset of the first byte of `current`.
fn base(parts: &[Part]) -> u64 {
    parts.last().map_or(0, |part| part.start + part.length)
}

fn lock(folder: &Path, how: FlockOperation) -> io::Result<File> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(folder.join("lock"))?;
    flock(&file, how)?;
    Ok(file)
}

/// Rotates the output in `folder` if it has grown beyond the policy. Nothing written is lost where the file
/// system can cut off a file's front; elsewhere, what is written between copy and cut is.
pub fn rotate(folder: &Path, policy: LogPolicy) -> anyhow::Result<()> {
    let path = folder.join("current");
    let Ok(meta) = fs::metadata(&path) else { return Ok(()) };
    if meta.len() <= policy.max_bytes {
        return Ok(());
    }
    let _held = lock(folder, FlockOperation::LockExclusive)?;
    let mut current = OpenOptions::new().read(true).write(true).open(&path)?;
    settle_pending(folder, &mut current)?;
    let all = parts(folder)?;
    let size = current.metadata()?.len();
    // The front can be cut off only if something is left behind it.
    let cut = size.saturating_sub(1) / BLOCK * BLOCK;
    let most = policy.max_bytes.max(BLOCK) * policy.keep.max(1) as u64;
    let skip = cut.saturating_sub(most);
    let pending = folder.join("pending");
    copy(&mut current, skip, cut - skip, &pending)?;
    let collapsed = cut > 0 && fallocate(&current, FallocateFlags::COLLAPSE_RANGE, 0, cut).is_ok();
    if !collapsed {
        let size = current.metadata()?.len();
        copy(&mut current, skip, size - skip, &pending)?;
        current.set_len(0)?;
    }
    fs::rename(&pending, folder.join(format!("{:020}.log", base(&all) + skip)))
        .with_context(|| format!("cannot name the rotated output in {}", folder.display()))?;
    let kept = parts(folder)?;
    for part in kept.iter().take(kept.len().saturating_sub(policy.keep.max(1))) {
        fs::remove_file(&part.path)?;
    }
    Ok(())
}

/// A rotation that was interrupted: finished if the front had been cut off already, else undone.
fn settle_pending(folder: &Path, current: &mut File) -> io::Result<()> {
    let pending = folder.join("pending");
    let Ok(mut copied) = File::open(&pending) else { return Ok(()) };
    let (mut a, mut b) = (Vec::new(), Vec::new());
    current.seek(SeekFrom::Start(0))?;
    current.take(BLOCK).read_to_end(&mut a)?;
    (&mut copied).take(BLOCK).read_to_end(&mut b)?;
    if a.starts_with(&b) {
        return fs::remove_file(&pending);
    }
    let start = base(&parts(folder)?);
    fs::rename(&pending, folder.join(format!("{start:020}.log")))
}

fn copy(from: &mut File, start: u64, length: u64, to: &Path) -> io::Result<()> {
    from.seek(SeekFrom::Start(start))?;
    io::copy(&mut from.take(length), &mut File::create(to)?)?;
    Ok(())
}

/// Reads a piece of the output in `folder`.
pub fn read(folder: &Path, query: LogQuery) -> io::Result<LogChunk> {
    let held = lock(folder, FlockOperation::LockShared);
    let held = match held {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(LogChunk::default()),
        other => other?,
    };
    let mut all = parts(folder)?;
    let current = folder.join("current");
    let length = fs::metadata(&current).map(|meta| meta.len()).unwrap_or(0);
    let start = base(&all);
    all.push(Part { start, length, path: current });
    let oldest = all[0].start;
    let end = start + length;
    let from = match query.from {
        LogFrom::Oldest => oldest,
        LogFrom::Offset(offset) => offset.clamp(oldest, end),
        LogFrom::Tail(lines) => tail(&all, lines, query.max_bytes)?,
    };
    let mut bytes = Vec::new();
    for part in &all {
        let at = from + bytes.len() as u64;
        let room = (query.max_bytes - bytes.len()) as u64;
        if room > 0 && at >= part.start && at < part.start + part.length {
            let mut file = File::open(&part.path)?;
            file.seek(SeekFrom::Start(at - part.start))?;
            file.take(room.min(part.start + part.length - at)).read_to_end(&mut bytes)?;
        }
    }
    drop(held);
    let end = from + bytes.len() as u64;
    Ok(LogChunk { start: from, bytes, end })
}

/// Where the last `lines` lines begin, looking back at most `most` bytes.
fn tail(parts: &[Part], lines: u32, most: usize) -> io::Result<u64> {
    let end = parts.last().map_or(0, |part| part.start + part.length);
    let mut wanted = u64::from(lines);
    let mut seen = 0_u64;
    for part in parts.iter().rev() {
        let length = part.length.min((most as u64).saturating_sub(seen));
        let mut file = File::open(&part.path)?;
        file.seek(SeekFrom::Start(part.length - length))?;
        let mut bytes = Vec::new();
        file.take(length).read_to_end(&mut bytes)?;
        for (at, byte) in bytes.iter().enumerate().rev() {
            let offset = part.start + part.length - length + at as u64 + 1;
            // The newline that ends the last line begins none.
            if *byte == b'\n' && offset < end {
                if wanted <= 1 {
                    return Ok(if lines == 0 { end } else { offset });
                }
                wanted -= 1;
            }
        }
        seen += bytes.len() as u64;
        if seen >= most as u64 {
            break;
        }
    }
    Ok(if lines == 0 { end } else { end - seen })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const POLICY: LogPolicy = LogPolicy { max_bytes: 100_000, keep: 2 };

    fn line(number: usize) -> String {
        format!("line {number:020}\n")
    }

    #[test]
    fn a_follower_sees_every_byte_across_rotations() {
        let folder = tempfile::tempdir().unwrap();
        let mut output = open_output(folder.path()).unwrap();
        let (mut seen, mut next) = (Vec::new(), 0);
        for number in 0..40_000 {
            output.write_all(line(number).as_bytes()).unwrap();
            if number % 1_000 == 0 {
                rotate(folder.path(), POLICY).unwrap();
                let query = LogQuery { from: LogFrom::Offset(next), max_bytes: 1 << 20 };
                let chunk = read(folder.path(), query).unwrap();
                assert_eq!(chunk.start, next);
                seen.extend(chunk.bytes);
                next = chunk.end;
            }
        }
        let whole: String = (0..=39_000).map(line).collect();
        assert!(seen == whole.as_bytes(), "{} of {} bytes came through", seen.len(), whole.len());
        assert_eq!(parts(folder.path()).unwrap().len(), 2);
    }

    #[test]
    fn the_tail_counts_lines_back_into_rotated_parts() {
        let folder = tempfile::tempdir().unwrap();
        let mut output = open_output(folder.path()).unwrap();
        for number in 0..10_000 {
            output.write_all(line(number).as_bytes()).unwrap();
        }
        rotate(folder.path(), POLICY).unwrap();
        let tail = |lines| {
            let query = LogQuery { from: LogFrom::Tail(lines), max_bytes: 1 << 20 };
            String::from_utf8(read(folder.path(), query).unwrap().bytes).unwrap()
        };
        assert_eq!(tail(0), "");
        assert_eq!(tail(1), line(9_999));
        assert_eq!(tail(5_000), (5_000..10_000).map(line).collect::<String>());
        let missing = folder.path().join("nothing");
        let query = LogQuery { from: LogFrom::Tail(5), max_bytes: 100 };
        assert_eq!(read(&missing, query).unwrap(), LogChunk::default());
    }
}
