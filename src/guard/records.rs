//! What the guard writes down: highest tokens and exit reasons on disk, what runs and how long the lease
//! lasts where a reboot forgets it. Decides nothing; a record it cannot read it names.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use quorate_core::effect::{Isolation, StartInstance};
use quorate_core::ids::{BootId, InstanceId, NodeId, OperationId, SlotId, Token};
use quorate_core::observation::{ExitKind, ExitReason};
use quorate_core::units::{BootMs, Millis, WallMs};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::layout::{slot_folder, slot_of_folder};
use crate::ports::Placing;

/// Marks a file of this guard and the version of its form.
const MAGIC: &[u8; 4] = b"QGR2";

/// Three words and their sum.
const LEASE_BYTES: usize = 32;

/// A lease that is torn so often is damaged.
const LEASE_LOOKS: usize = 16;

/// What outlives a boot, per slot.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SlotRecord {
    /// The highest token accepted.
    pub highest: Token,
    /// Was it a stop's? Then nothing starts under it.
    pub stopped: bool,
    /// The state copy last moved into place.
    pub state_from: Option<OperationId>,
    /// How the last run ended.
    pub last_exit: Option<ExitReason>,
    /// How long the last run lasted.
    pub last_ran: Millis,
    /// The run that ended by itself or failed to start, until a stop or another start.
    pub ended: Option<Ended>,
}

/// A run that is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Which one.
    pub id: InstanceId,
    /// In which boot.
    pub boot: BootId,
    /// Which restart it was.
    pub restart: u32,
    /// When it was started, for people.
    pub started_at: WallMs,
    /// When it ended.
    pub ended: BootMs,
    /// How, or why it never started.
    pub outcome: Result<ExitReason, String>,
    /// How the run before it ended.
    pub before: Option<ExitReason>,
}

/// What the next guard needs to take over a run. Forgotten with the boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecord {
    /// How it was asked for.
    pub start: StartInstance,
    /// For which node.
    pub node: NodeId,
    /// How an engine places it; nothing special for what the guard starts itself.
    pub placing: Placing,
    /// In which boot.
    pub boot: BootId,
    /// Its main process; none before it is known.
    pub pid: Option<u32>,
    /// That process's start time: a process id alone may be another's by now.
    pub start_time: u64,
    /// For people.
    pub started_at: WallMs,
    /// For its age.
    pub started: BootMs,
    /// Kills for memory seen in its group before it started.
    pub memory_kills: u64,
    /// How often its group had reached its memory limit before it started.
    pub memory_hits: u64,
    /// Set once it is being ended.
    pub ending: Option<Ending>,
}

/// How a run is being ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// What its exit will be called.
    pub kind: ExitKind,
    /// When everything left of it is killed.
    pub kill_at: BootMs,
}

/// The lease as last told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HeldLease {
    /// Which renewal.
    pub number: u64,
    /// When it runs out.
    pub valid_until: BootMs,
    /// How long a kill may take.
    pub kill_margin: Millis,
}

impl HeldLease {
    /// When an instance is to be dead at the latest; never, if it may stay.
    pub fn deadline(&self, isolation: Isolation) -> Option<BootMs> {
        match isolation {
            Isolation::Keep => None,
            Isolation::Kill => Some(self.valid_until),
            Isolation::Stop { grace } => Some(self.valid_until + grace),
        }
    }

    /// From when on a kill that is not done yet is so late that only a reset of the host helps in time.
    pub fn overdue(&self, deadline: BootMs) -> BootMs {
        deadline + Millis(self.kill_margin.0 / 2)
    }
}

/// Records on disk, per slot.
#[derive(Debug, Clone)]
pub struct Slots {
    folder: PathBuf,
}

impl Slots {
    /// Opens, or makes, the folder.
    pub fn open(folder: PathBuf) -> anyhow::Result<Self> {
        make_private(&folder)?;
        Ok(Self { folder })
    }

    /// Every record. One that cannot be read is an error: a highest token must never be forgotten.
    pub fn load(&self) -> anyhow::Result<BTreeMap<SlotId, SlotRecord>> {
        let mut all = BTreeMap::new();
        for (name, path) in files(&self.folder)? {
            if let Some(slot) = slot_of_folder(&name) {
                all.insert(slot, decode(&path)?);
            }
        }
        Ok(all)
    }

    /// Writes one record so that it is there after a power cut.
    pub fn save(&self, slot: &SlotId, record: &SlotRecord) -> anyhow::Result<()> {
        let path = self.folder.join(slot_folder(slot));
        write_new(&path, record, true)?;
        File::open(&self.folder)?.sync_all().with_context(|| format!("cannot sync {}", self.folder.display()))
    }

    /// Forgets a slot.
    pub fn remove(&self, slot: &SlotId) {
        let _ = fs::remove_file(self.folder.join(slot_folder(slot)));
    }
}

/// Records of this boot.
#[derive(Debug)]
pub struct Runs {
    folder: PathBuf,
    boot: BootId,
    lease: File,
}

impl Runs {
    /// Opens the folder of this boot below `folder`, and drops those of earlier boots.
    pub fn open(folder: &Path, boot: &BootId) -> anyhow::Result<Self> {
        make_private(folder)?;
        for (name, path) in files(folder)? {
            if name != boot.0 {
                let _ = fs::remove_dir_all(path);
            }
        }
        let folder = folder.join(&boot.0);
        make_private(&folder)?;
        let path = folder.join("lease");
        let lease = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let lease = lease.with_context(|| format!("cannot open {}", path.display()))?;
        Ok(Self { folder, boot: boot.clone(), lease })
    }

    /// The folder of this boot as the guard made it, if it is still there.
    pub fn find(folder: &Path, boot: &BootId) -> Option<Self> {
        let folder = folder.join(&boot.0);
        let lease = OpenOptions::new().read(true).write(true).open(folder.join("lease")).ok()?;
        Some(Self { folder, boot: boot.clone(), lease })
    }

    /// Every run this boot knows of. An unreadable record is left out with its slot named: its group
    /// then has no owner and is killed.
    pub fn load(&self) -> anyhow::Result<(Vec<RunRecord>, Vec<String>)> {
        let mut all = Vec::new();
        let mut broken = Vec::new();
        for (name, path) in files(&self.folder)? {
            if slot_of_folder(&name).is_none() {
                continue;
            }
            match decode::<RunRecord>(&path) {
                Ok(record) if record.boot == self.boot => all.push(record),
                Ok(_) => {}
                Err(error) => broken.push(format!("{error:#}")),
            }
        }
        Ok((all, broken))
    }

    /// Writes one run; it has to survive this process, not the host.
    pub fn save(&self, run: &RunRecord) -> anyhow::Result<()> {
        write_new(&self.folder.join(slot_folder(&run.start.id.slot)), run, false)
    }

    /// Drops a run that is over.
    pub fn remove(&self, slot: &SlotId) {
        let _ = fs::remove_file(self.folder.join(slot_folder(slot)));
    }

    /// One run, if there is any; an unreadable record is an error.
    pub fn read(&self, slot: &SlotId) -> anyhow::Result<Option<RunRecord>> {
        let path = self.folder.join(slot_folder(slot));
        if !path.exists() {
            return Ok(None);
        }
        decode::<RunRecord>(&path).map(|record| Some(record).filter(|record| record.boot == self.boot))
    }

    /// Keeps the lease: one small write, since it comes with every heartbeat.
    pub fn save_lease(&self, lease: HeldLease) -> io::Result<()> {
        let mut bytes = [0_u8; LEASE_BYTES];
        let words = [lease.number, lease.valid_until.0, lease.kill_margin.0];
        for (at, word) in words.iter().enumerate() {
            bytes[at * 8..at * 8 + 8].copy_from_slice(&word.to_le_bytes());
        }
        let sum = xxh3_64(&bytes[..24]).to_le_bytes();
        bytes[24..].copy_from_slice(&sum);
        self.lease.write_all_at(&bytes, 0)
    }

    /// The lease as last kept; a damaged one counts as run out.
    pub fn load_lease(&self) -> Option<HeldLease> {
        let mut bytes = [0_u8; LEASE_BYTES];
        // The other holder may be writing it at this moment: what is torn is looked at again.
        for _ in 0..LEASE_LOOKS {
            if self.lease.read_exact_at(&mut bytes, 0).is_err() {
                return None;
            }
            let (words, _) = bytes.as_chunks::<8>();
            if words[3] == xxh3_64(&bytes[..24]).to_le_bytes() {
                let [number, valid_until, kill_margin] = [0, 1, 2].map(|at| u64::from_le_bytes(words[at]));
                let (valid_until, kill_margin) = (BootMs(valid_until), Millis(kill_margin));
                return Some(HeldLease { number, valid_until, kill_margin });
            }
            std::thread::yield_now();
        }
        Some(HeldLease::default())
    }

    /// Removes everything of this boot, when nothing runs and the guard ends.
    pub fn clear(&self) {
        let _ = fs::remove_dir_all(&self.folder);
        let _ = self.folder.parent().map(fs::remove_dir);
    }
}

/// Makes a folder that only its owner enters.
pub fn make_private(folder: &Path) -> anyhow::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("cannot make the folder {}", folder.display()))
}

fn files(folder: &Path) -> anyhow::Result<Vec<(String, PathBuf)>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    Ok(entries
        .flatten()
        .filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())))
        .collect())
}

fn write_new<T: Serialize>(path: &Path, record: &T, durable: bool) -> anyhow::Result<()> {
    let body = postcard::to_stdvec(record).context("cannot encode a record")?;
    let beside = path.with_file_name(format!(".{}.new", path.file_name().unwrap_or_default().display()));
    let failed = || format!("cannot write {}", path.display());
    let mut file = File::create(&beside).with_context(failed)?;
    file.write_all(MAGIC).with_context(failed)?;
    file.write_all(&xxh3_64(&body).to_le_bytes()).with_context(failed)?;
    file.write_all(&body).with_context(failed)?;
    if durable {
        file.sync_all().with_context(failed)?;
    }
    fs::rename(&beside, path).with_context(failed)
}

fn decode<T: DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let body =
        bytes.get(12..).filter(|body| bytes[..4] == *MAGIC && bytes[4..12] == xxh3_64(body).to_le_bytes());
    let Some(body) = body else {
        bail!(
            "{} is damaged or of another version; move it away once its slot is known to be stopped",
            path.display()
        )
    };
    postcard::from_bytes(body).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slot_records_survive_and_damage_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let slots = Slots::open(folder.path().join("slots")).unwrap();
        let slot: SlotId = "web/0".parse().unwrap();
        let record = SlotRecord { highest: "1.7".parse().unwrap(), ..SlotRecord::default() };
        slots.save(&slot, &record).unwrap();
        assert_eq!(slots.load().unwrap()[&slot], record);
        let path = folder.path().join("slots/web.0");
        let mut bytes = fs::read(&path).unwrap();
        bytes[13] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert!(slots.load().unwrap_err().to_string().contains("damaged"));
    }

    #[test]
    fn a_damaged_lease_counts_as_run_out_and_another_boot_as_none() {
        let folder = tempfile::tempdir().unwrap();
        let runs = Runs::open(folder.path(), &BootId("one".to_owned())).unwrap();
        assert_eq!(runs.load_lease(), None);
        let lease = HeldLease { number: 3, valid_until: BootMs(9_000), kill_margin: Millis(200) };
        runs.save_lease(lease).unwrap();
        assert_eq!(runs.load_lease(), Some(lease));
        assert_eq!(lease.deadline(Isolation::Stop { grace: Millis(500) }), Some(BootMs(9_500)));
        assert_eq!(lease.deadline(Isolation::Kill).map(|due| lease.overdue(due)), Some(BootMs(9_100)));
        assert_eq!(lease.deadline(Isolation::Keep), None);
        runs.lease.write_all_at(&[0xff], 2).unwrap();
        assert_eq!(runs.load_lease().map(|lease| lease.valid_until), Some(BootMs(0)));
        let next = Runs::open(folder.path(), &BootId("two".to_owned())).unwrap();
        assert_eq!(next.load_lease(), None);
        assert!(!folder.path().join("one").exists());
    }
}
