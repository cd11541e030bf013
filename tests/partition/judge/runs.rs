//! Who ran when, and with which token, by the records that the workloads wrote of themselves. A slot that ran in
//! two places at once is told with the time both ran; so is a token older than one before it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::Deserialize;

/// One line of a workload's record.
#[derive(Debug, Clone, Deserialize)]
pub struct Line {
    pub event: String,
    /// SLOT@TOKEN.
    pub instance: String,
    pub node: String,
    pub token: String,
    pub pid: u32,
    pub boottime_ns: u64,
}

/// The life of one process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    pub slot: String,
    pub node: String,
    /// Epoch and revision.
    pub token: (u64, u64),
    pub pid: u32,
    pub first: u64,
    pub last: u64,
    /// When it heard that it should stop, and did.
    pub stopped: Option<u64>,
}

/// Two processes of one slot at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlap {
    pub earlier: Span,
    pub later: Span,
    pub ns: u64,
}

/// Every life of every slot, oldest first.
#[derive(Debug, Clone, Default)]
pub struct Runs(BTreeMap<String, Vec<Span>>);

impl Runs {
    pub fn add(&mut self, line: &Line) {
        let slot = line.instance.split('@').next().unwrap_or_default();
        let token = token(&line.token).unwrap_or_else(|| panic!("{line:?} has no token"));
        let spans = self.0.entry(slot.to_owned()).or_default();
        let at = line.boottime_ns;
        let stopped = (line.event == "stop").then_some(at);
        match spans.iter_mut().rfind(|span| span.pid == line.pid && span.token == token) {
            // A process id may come again, a start of the same life may not.
            Some(span) if line.event != "start" => {
                span.last = span.last.max(at);
                span.stopped = span.stopped.or(stopped);
            }
            _ => {
                let (slot, node) = (slot.to_owned(), line.node.clone());
                spans.push(Span { slot, node, token, pid: line.pid, first: at, last: at, stopped });
                spans.sort_by_key(|span| span.first);
            }
        }
    }

    /// The lives of a slot, oldest first.
    pub fn of(&self, slot: &str) -> &[Span] {
        self.0.get(slot).map_or(&[], Vec::as_slice)
    }

    /// The slots that wrote anything.
    pub fn slots(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Every slot that ran twice at once.
    pub fn overlaps(&self) -> Vec<Overlap> {
        self.0.values().flat_map(|spans| overlaps(spans)).collect()
    }

    /// Every later life with an older token, after the one before it.
    pub fn disorder(&self) -> Vec<[Span; 2]> {
        let pairs = self.0.values().flat_map(|spans| spans.windows(2));
        pairs
            .filter(|pair| pair[1].token < pair[0].token)
            .map(|pair| [pair[0].clone(), pair[1].clone()])
            .collect()
    }
}

fn overlaps(spans: &[Span]) -> Vec<Overlap> {
    let mut found = Vec::new();
    let Some((first, rest)) = spans.split_first() else { return found };
    let mut longest = first;
    for span in rest {
        if span.first <= longest.last {
            let ns = longest.last.min(span.last) - span.first;
            found.push(Overlap { earlier: longest.clone(), later: span.clone(), ns });
        }
        if span.last > longest.last {
            longest = span;
        }
    }
    found
}

fn token(text: &str) -> Option<(u64, u64)> {
    let (epoch, revision) = text.split_once('.')?;
    Some((epoch.parse().ok()?, revision.parse().ok()?))
}

/// Reads records while they grow, each line once.
#[derive(Debug, Default)]
pub struct Reader {
    pub runs: Runs,
    /// By inode: a record that has grown large goes on under another name.
    read: BTreeMap<u64, u64>,
}

impl Reader {
    /// Takes in what was written since the last time to any file of a folder.
    pub fn catch_up(&mut self, folder: &Path) {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            // It may have been given another name since the folder was read; it is met again under that one.
            let Ok(file) = File::open(&path) else { continue };
            let done = self.read.entry(file.metadata().unwrap().ino()).or_default();
            let mut file = BufReader::new(file);
            file.seek(SeekFrom::Start(*done)).unwrap();
            let mut line = String::new();
            // A line that is being written is left for the next time.
            while file.read_line(&mut line).unwrap() > 0 && line.ends_with('\n') {
                *done += line.len() as u64;
                let parsed = serde_json::from_str(&line);
                self.runs.add(&parsed.unwrap_or_else(|error| panic!("{}: {error}: {line}", path.display())));
                line.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `event node token pid at`, separated by spaces.
    fn runs(lines: &[&str]) -> Runs {
        let mut runs = Runs::default();
        for line in lines {
            let mut words = line.split(' ').map(str::to_owned);
            let mut word = || words.next().unwrap();
            let (event, node, token) = (word(), word(), word());
            let (pid, boottime_ns) = (word().parse().unwrap(), word().parse().unwrap());
            let instance = format!("db/0@{token}");
            runs.add(&Line { event, instance, node, token, pid, boottime_ns });
        }
        runs
    }

    #[test]
    fn one_after_the_other_is_in_order() {
        let runs = runs(&[
            "start n1 1.5 10 100",
            "tick n1 1.5 10 110",
            "stop n1 1.5 10 120",
            "start n1 1.5 11 130",
            "tick n1 1.5 11 140",
            "start n2 1.9 12 141",
        ]);
        assert_eq!((runs.overlaps(), runs.disorder()), (Vec::new(), Vec::new()));
        assert_eq!(
            runs.of("db/0").iter().map(|span| span.stopped).collect::<Vec<_>>(),
            [Some(120), None, None]
        );
    }

    #[test]
    fn a_double_run_is_found_with_its_length_even_behind_a_third_life() {
        let lines =
            ["start n1 1.5 10 100", "start n1 1.7 11 120", "tick n1 1.7 11 130", "start n2 1.9 12 150"];
        let runs = runs(&[&lines[..], &["tick n1 1.5 10 170", "tick n2 1.9 12 200"]].concat());
        let found: Vec<_> =
            runs.overlaps().iter().map(|one| (one.earlier.pid, one.later.pid, one.ns)).collect();
        assert_eq!(found, [(10, 11, 10), (10, 12, 20)]);
    }

    #[test]
    fn a_double_run_of_one_moment_is_found() {
        let runs = runs(&["start n1 1.5 10 100", "tick n1 1.5 10 110", "start n2 1.9 12 110"]);
        assert_eq!(runs.overlaps().iter().map(|one| one.ns).collect::<Vec<_>>(), [0]);
    }

    #[test]
    fn a_process_id_that_comes_again_is_another_life() {
        let runs = runs(&["start n1 1.5 10 100", "start n1 1.5 10 200", "tick n1 1.5 10 210"]);
        assert_eq!(runs.of("db/0").len(), 2);
        assert!(runs.overlaps().is_empty());
    }

    #[test]
    fn tokens_that_fall_are_found_by_epoch_first() {
        let falls = runs(&["start n1 2.5 10 100", "start n2 1.9 11 200"]);
        assert_eq!(falls.disorder().len(), 1);
        let rises = runs(&["start n1 1.9 10 100", "start n2 2.5 11 200"]);
        assert!(rises.disorder().is_empty());
    }

    #[test]
    fn a_record_is_read_while_it_grows_and_each_line_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        let line = |at: u64, end: &str| {
            format!(
                r#"{{"event":"tick","service":"db","instance":"db/0@1.5","node":"n1","token":"1.5","pid":7,"boottime_ns":{at}}}{end}"#
            )
        };
        let mut reader = Reader::default();
        std::fs::write(&path, line(1, "\n") + &line(2, "")).unwrap();
        reader.catch_up(folder.path());
        assert_eq!(reader.runs.of("db/0")[0].last, 1);
        std::fs::write(&path, line(1, "\n") + &line(2, "\n")).unwrap();
        reader.catch_up(folder.path());
        let spans = reader.runs.of("db/0");
        assert_eq!((spans.len(), spans[0].first, spans[0].last), (1, 1, 2));
    }
}
