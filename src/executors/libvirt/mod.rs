//! Virtual machines of libvirt: transient domains, never defined, so that nothing but this node ever starts one. Each
//! comes paused, is taken into the control group that the guard holds, and goes on only after that: one that comes too
//! late, from a daemon that was stuck, never runs.

mod describe;
mod domains;
mod image;
mod link;
mod partition;
mod speed;
mod traces;

use std::path::Path;
use std::sync::Arc;

use futures::stream::BoxStream;
use futures::{FutureExt, future::BoxFuture};
use quorate_core::effect::StartInstance;
use quorate_core::observation::Unavailable;
use quorate_core::spec::{ExecutorKind, MachineGraphics, MachineNetwork, MachineWorkload, Workload};
use tokio::sync::{OnceCell, watch};

use self::describe::Description;
use self::domains::Emulator;
use self::link::Link;
use self::traces::Marks;
use crate::layout::run_name;
use crate::logs::open_output;
use crate::ports::{EngineFact, Executor, Found, FoundStage, OutputPiece, Place, Placing, RunId, Tell};

/// The machines of the whole host.
const SYSTEM: &str = "qemu:///system";

/// By which means the processors of a machine run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DomainType {
    /// The host's own, with the kernel's help.
    Kvm,
    /// Emulated.
    Qemu,
}

impl DomainType {
    /// As libvirt has it.
    fn word(self) -> &'static str {
        match self {
            DomainType::Kvm => "kvm",
            DomainType::Qemu => "qemu",
        }
    }
}

/// The executor of virtual machines.
pub struct Libvirt {
    shared: Arc<Shared>,
}

struct Shared {
    uri: String,
    /// For what is asked all the time.
    asking: Link,
    /// For starts, which take long.
    starting: Link,
    emulator: OnceCell<Emulator>,
    /// Known once both means were measured.
    chosen: OnceCell<watch::Receiver<Option<DomainType>>>,
    changes: watch::Sender<u64>,
}

impl Libvirt {
    /// Over the libvirt at this address, the host's own by default, with machines of this type, by default of the
    /// faster one.
    pub fn new(uri: Option<String>, domain_type: Option<DomainType>) -> Self {
        let uri = uri.unwrap_or_else(|| SYSTEM.to_owned());
        let known = domain_type.map(|one| watch::Sender::new(Some(one)).subscribe());
        let shared = Shared {
            asking: Link::new(&uri),
            starting: Link::new(&uri),
            uri,
            emulator: OnceCell::new(),
            chosen: OnceCell::new_with(known),
            changes: watch::Sender::new(0),
        };
        Self { shared: Arc::new(shared) }
    }
}

impl Shared {
    async fn emulator(&self) -> Result<&Emulator, String> {
        self.emulator.get_or_try_init(|| self.asking.ask(|connection, _| domains::emulator(connection))).await
    }

    /// Measured in a task of its own: whoever asks may have less patience than that takes.
    async fn domain_type(&self) -> Result<DomainType, String> {
        let emulator = self.emulator().await?;
        let begin = async || {
            let (tell, chosen) = watch::channel(None);
            let (path, offered) = (emulator.path.clone(), emulator.kvm);
            tokio::spawn(async move {
                tell.send_replace(Some(speed::choose(&path, offered).await));
                tell.closed().await;
            });
            chosen
        };
        let mut chosen = self.chosen.get_or_init(begin).await.clone();
        let found = chosen.wait_for(Option::is_some).await.map(|found| *found);
        found.ok().flatten().ok_or_else(|| "it was not found out how machines run here".to_owned())
    }

    async fn survey(&self) -> Result<EngineFact, Unavailable> {
        let unavailable = |why: String, remedy: &str| Unavailable { why, remedy: remedy.to_owned() };
        let away = |error: String| {
            let why = format!("libvirt does not answer at {}: {error}", self.uri);
            unavailable(why, "install and start libvirt with its qemu driver on this host")
        };
        if !rustix::process::getuid().is_root() {
            let why = "only root may put machines into control groups".to_owned();
            return Err(unavailable(why, "run the node as root"));
        }
        if !image::tool_is_here() {
            return Err(unavailable("qemu-img is not on this host".to_owned(), "install qemu-utils"));
        }
        let version = self.asking.ask(|connection, _| domains::version(connection)).await.map_err(away)?;
        let domain_type = self.domain_type().await.map_err(away)?;
        let capabilities =
            vec!["adopt".to_owned(), "logs".to_owned(), format!("domain:{}", domain_type.word())];
        Ok(EngineFact { version, capabilities, placing: Placing { slice: true, beyond: None } })
    }

    async fn prepare(&self, start: &StartInstance) -> Result<(), String> {
        let machine = workload(start)?;
        image::format(&machine.image).await?;
        if let Some(boot) = &machine.boot {
            readable("spec.boot.kernel", &boot.kernel)?;
            boot.initrd.as_ref().map_or(Ok(()), |initrd| readable("spec.boot.initrd", initrd))?;
        }
        self.check_network(&machine.network).await?;
        let screen = match machine.graphics {
            MachineGraphics::None => return Ok(()),
            MachineGraphics::Vnc => "vnc",
            MachineGraphics::Spice => "spice",
        };
        let emulator = self.emulator().await?;
        if emulator.graphics.iter().any(|one| one == screen) {
            return Ok(());
        }
        let (has, path) = (emulator.graphics.join(" or "), &emulator.path);
        Err(format!("spec.vm_graphics: {path} has no {screen}; write {has}, or install what it lacks"))
    }

    async fn check_network(&self, network: &MachineNetwork) -> Result<(), String> {
        match network {
            MachineNetwork::None | MachineNetwork::User => Ok(()),
            MachineNetwork::Bridge(name) => {
                if Path::new("/sys/class/net").join(name).join("bridge").is_dir() {
                    return Ok(());
                }
                Err(format!("spec.vm_network: {name} is no bridge of this node; make it here"))
            }
            MachineNetwork::Network(name) => {
                let name = name.clone();
                self.asking.ask(move |connection, _| domains::check_network(connection, &name)).await
            }
        }
    }

    async fn launch(&self, start: &StartInstance, place: &Place) -> Result<Option<u32>, String> {
        let (run, machine) = (RunId::of(start), workload(start)?);
        let domain_type = self.domain_type().await?;
        let overlay = image::overlay(&place.folder, run.id.token, &machine.image).await?;
        open_output(&place.logs).map_err(|error| format!("cannot open the output file: {error}"))?;
        let partition = place.group.as_deref().map(partition::ready);
        Marks::of(&place.owner).put(&run).map_err(|error| format!("cannot note down {run}: {error}"))?;
        let xml = describe::xml(&Description {
            owner: &place.owner,
            run: &run,
            machine,
            domain_type,
            overlay: &overlay,
            console: &place.logs.join("current"),
            partition: partition.as_deref(),
        });
        let name = run_name(&place.owner, &run);
        let own = name.clone();
        self.starting.ask(move |connection, wanted| domains::create(connection, &own, &xml, wanted)).await?;
        match traces::process(&name) {
            Some(pid) => Ok(Some(pid)),
            None => Err(format!("libvirt started {name} and its process is not to be found")),
        }
    }

    async fn found(&self, owner: &str) -> Result<Vec<Found>, String> {
        let whose = owner.to_owned();
        let mut all = self.asking.ask(move |connection, _| domains::all(connection, &whose)).await?;
        for run in Marks::of(owner).all() {
            if !all.iter().any(|found| found.run == run) {
                let stage = traces::end(&run_name(owner, &run)).map_or(FoundStage::Made, FoundStage::Exited);
                all.push(Found { run, stage, health: None, usage: None, unenforced: Vec::new() });
            }
        }
        Ok(all)
    }

    async fn remove(&self, owner: &str, run: &RunId) -> Result<(), String> {
        let name = run_name(owner, run);
        self.asking.ask(move |connection, _| domains::destroy(connection, &name)).await?;
        Marks::of(owner).drop(run);
        Ok(())
    }
}

fn workload(start: &StartInstance) -> Result<&MachineWorkload, String> {
    match &start.spec.workload {
        Workload::Machine(machine) => Ok(machine),
        other => Err(format!("{} is no virtual machine but of the executor {}", start.id, other.executor())),
    }
}

fn readable(field: &str, path: &str) -> Result<(), String> {
    match std::fs::File::open(path).and_then(|file| file.metadata()) {
        Ok(found) if found.is_file() => Ok(()),
        Ok(_) => Err(format!("{field}: {path} is no file of this node; correct the path")),
        Err(error) => Err(format!("{field}: {path} cannot be read on this node: {error}")),
    }
}

impl Executor for Libvirt {
    fn kind(&self) -> ExecutorKind {
        ExecutorKind::Libvirt
    }

    fn survey(&self) -> BoxFuture<'_, Result<EngineFact, Unavailable>> {
        self.shared.survey().boxed()
    }

    fn prepare<'a>(&'a self, start: &'a StartInstance, _tell: Tell<'a>) -> BoxFuture<'a, Result<(), String>> {
        self.shared.prepare(start).boxed()
    }

    fn launch<'a>(
        &'a self,
        start: &'a StartInstance,
        place: &'a Place,
    ) -> BoxFuture<'a, Result<Option<u32>, String>> {
        self.shared.launch(start, place).boxed()
    }

    fn release<'a>(&'a self, owner: &'a str, run: &'a RunId) -> BoxFuture<'a, Result<(), String>> {
        let name = run_name(owner, run);
        self.shared.asking.ask(move |connection, wanted| domains::release(connection, &name, wanted)).boxed()
    }

    fn found<'a>(&'a self, owner: &'a str) -> BoxFuture<'a, Result<Vec<Found>, String>> {
        self.shared.found(owner).boxed()
    }

    fn ask_to_stop<'a>(&'a self, owner: &'a str, run: &'a RunId) -> BoxFuture<'a, Result<(), String>> {
        let name = run_name(owner, run);
        self.shared.asking.ask(move |connection, _| domains::press_power_button(connection, &name)).boxed()
    }

    fn remove<'a>(&'a self, owner: &'a str, run: &'a RunId) -> BoxFuture<'a, Result<(), String>> {
        self.shared.remove(owner, run).boxed()
    }

    fn exec<'a>(
        &'a self,
        _owner: &'a str,
        run: &'a RunId,
        _command: &'a [String],
    ) -> BoxFuture<'a, Result<String, String>> {
        async move { Err(format!("{run}: nothing is run inside of a virtual machine")) }.boxed()
    }

    fn output(
        &self,
        _owner: &str,
        _run: &RunId,
        _after: Option<String>,
    ) -> Option<BoxStream<'static, Result<OutputPiece, String>>> {
        // The serial console is written to the folder of output itself.
        None
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }
}
