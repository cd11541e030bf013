//! What runs instances on this node: all of them together (`Instances`), one driver for each engine, and the
//! health checks they share. Knows what it is told to run and how that goes, nothing of why.
//!
//! ```text
//! start -> guard (native process)                       guard holds every deadline and says what runs
//!       -> guard.admit -> prepare -> launch -> guard.begun -> release   (engine)
//! keep:  guard's inventory + what each engine has -> guard.begun / guard.over, strays removed
//! ```

mod ask;
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

pub use instances::Instances;
#[cfg(feature = "libvirt")]
pub use libvirt::{DomainType, Libvirt};
pub use systemd::Systemd;

use crate::ports::Executor;

/// A driver for each engine that this build knows, whether this host has the engine or not.
pub fn drivers() -> Vec<Arc<dyn Executor>> {
    #[cfg(feature = "libvirt")]
    let machines: Arc<dyn Executor> = Arc::new(Libvirt::new(None, None));
    #[cfg(not(feature = "libvirt"))]
    let machines: Arc<dyn Executor> =
        Arc::new(unbuilt::Unbuilt::new(quorate_core::spec::ExecutorKind::Libvirt));
    vec![Arc::new(Systemd::new(None)), machines]
}
