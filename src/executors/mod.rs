//! What runs instances on this node: all of them together (`Instances`), one driver for each engine, and the
//! health checks they share. Knows what it is told to run and how that goes, nothing of why.
//!
//! ```text
//! start -> guard (native process)                       guard holds every deadline and says what runs
//!       -> guard.admit -> prepare -> launch -> guard.begun -> release   (engine)
//! keep:  guard's inventory + what each engine has -> guard.begun / guard.over, strays removed
//! ```

mod ask;
mod container;
mod drive;
mod engine;
mod health;
mod instances;
#[cfg(feature = "libvirt")]
mod libvirt;
mod pump;
mod seen;
mod systemd;
#[cfg(not(feature = "libvirt"))]
mod unbuilt;

use std::sync::Arc;

pub use container::{Access, Containers};
pub use instances::Instances;
#[cfg(feature = "libvirt")]
pub use libvirt::{DomainType, Libvirt};
use quorate_core::spec::ContainerEngine;
pub use systemd::Systemd;

use crate::ports::Executor;

/// A driver for each engine that this build knows, whether this host has the engine or not.
pub fn drivers() -> Vec<Arc<dyn Executor>> {
    let containers = [ContainerEngine::Docker, ContainerEngine::Podman].map(|engine| -> Arc<dyn Executor> {
        Arc::new(Containers::new(engine, Access::from_environment(engine)))
    });
    let units: Arc<dyn Executor> = Arc::new(Systemd::new(None));
    #[cfg(feature = "libvirt")]
    let machines: Arc<dyn Executor> = Arc::new(Libvirt::new(None, None));
    #[cfg(not(feature = "libvirt"))]
    let machines: Arc<dyn Executor> =
        Arc::new(unbuilt::Unbuilt::new(quorate_core::spec::ExecutorKind::Libvirt));
    containers.into_iter().chain([units, machines]).collect()
}
