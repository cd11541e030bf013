//! Units that the host has already: which may be managed, and whose run each of them is. A unit of the host bears
//! no mark of its run, so one is kept beside what ends with the boot.

use std::fs;
use std::path::PathBuf;

use super::bus::Bus;
use crate::ports::RunId;

/// Refuses a unit that anything but this node could start.
pub(super) async fn check(bus: &Bus, name: &str) -> Result<(), String> {
    let wrong = |why: String, remedy: &str| Err(format!("spec.unit: {name} {why}; {remedy}"));
    let asked = |error: zbus::Error| format!("spec.unit: {name} cannot be asked about: {error}");
    let unit = bus.manager().load_unit(name).await.map_err(asked)?;
    let text = async |of: &str, property: &str| -> Result<String, String> {
        bus.property(&unit, of, property).await.map_err(asked)
    };
    let state = text("Unit", "LoadState").await?;
    if state != "loaded" {
        return wrong(format!("is {state} on this node"), "install the unit there, or name another");
    }
    let enabled = text("Unit", "UnitFileState").await?;
    if matches!(enabled.as_str(), "enabled" | "enabled-runtime" | "linked-runtime" | "alias" | "generated") {
        let remedy = format!("run systemctl disable {name}: only the cluster may start it");
        return wrong(format!("is {enabled}: the host would start it by itself"), &remedy);
    }
    let restart = text("Service", "Restart").await?;
    if restart != "no" {
        let remedy = "set Restart=no in a drop-in: only the cluster may start it again";
        return wrong(format!("has Restart={restart}"), remedy);
    }
    for others in ["TriggeredBy", "WantedBy", "RequiredBy", "UpheldBy", "BoundBy"] {
        // Older managers do not know all of these.
        let names: Vec<String> = bus.property(&unit, "Unit", others).await.unwrap_or_default();
        if !names.is_empty() {
            let remedy = "take it out of those: only the cluster may start it";
            return wrong(format!("is started by {}", names.join(", ")), remedy);
        }
    }
    let active = text("Unit", "ActiveState").await?;
    if matches!(active.as_str(), "active" | "activating" | "reloading") {
        return wrong("runs already, started by somebody else".to_owned(), "stop it first");
    }
    Ok(())
}

/// Which run has which unit.
#[derive(Debug, Clone)]
pub(super) struct Marks {
    folder: PathBuf,
}

impl Marks {
    /// Of one node, where a reboot forgets them as it ends the units.
    pub(super) fn of(owner: &str) -> Self {
        Self { folder: PathBuf::from("/run/quorate").join(owner).join("units") }
    }

    fn path(&self, run: &RunId) -> PathBuf {
        self.folder.join(super::names::unit("unit", run))
    }

    /// Written before the unit is started.
    pub(super) fn put(&self, run: &RunId, unit: &str) -> std::io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        fs::write(self.path(run), unit)
    }

    pub(super) fn get(&self, run: &RunId) -> Option<String> {
        fs::read_to_string(self.path(run)).ok()
    }

    /// Another run that has the unit, if there is one.
    pub(super) fn other(&self, run: &RunId, unit: &str) -> Option<RunId> {
        self.all().into_iter().find(|(other, name)| other != run && name == unit).map(|(other, _)| other)
    }

    /// When a run was given its unit, in seconds of the wall clock, which the journal counts by.
    pub(super) fn since(&self, run: &RunId) -> Option<u64> {
        let written = fs::metadata(self.path(run)).ok()?.modified().ok()?;
        Some(written.duration_since(std::time::UNIX_EPOCH).ok()?.as_secs())
    }

    pub(super) fn drop(&self, run: &RunId) {
        let _ = fs::remove_file(self.path(run));
    }

    /// Every run and its unit.
    pub(super) fn all(&self) -> Vec<(RunId, String)> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| {
                let run = super::names::run("unit", entry.file_name().to_str()?)?;
                Some((run, fs::read_to_string(entry.path()).ok()?))
            })
            .collect()
    }
}
