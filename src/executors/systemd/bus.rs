//! The service manager's D-Bus interfaces, as far as they are used here, and jobs waited for by their signals.
//! Knows nothing of instances.

use std::time::Duration;

use futures::StreamExt;
use zbus::wire::{OwnedObjectPath, OwnedVariant, Variant};
use zbus::{Connection, proxy};

/// How long one call may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The address of the system's bus, where none is named.
pub(super) const SYSTEM_BUS: &str = "unix:path=/run/dbus/system_bus_socket";

/// A unit as a listing has it.
pub(super) type Listed =
    (String, String, String, String, String, String, OwnedObjectPath, u32, String, OwnedObjectPath);

/// Auxiliary units of a transient one: none are ever made here.
type Auxiliary<'a> = Vec<(&'a str, Vec<(&'a str, Variant<'a>)>)>;

#[proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
pub(super) trait Manager {
    fn subscribe(&self) -> zbus::Result<()>;
    fn start_transient_unit(
        &self,
        name: &str,
        mode: &str,
        properties: &[(&str, Variant<'_>)],
        auxiliary: &Auxiliary<'_>,
    ) -> zbus::Result<OwnedObjectPath>;
    fn start_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn stop_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn kill_unit(&self, name: &str, whom: &str, signal: i32) -> zbus::Result<()>;
    fn reset_failed_unit(&self, name: &str) -> zbus::Result<()>;
    fn load_unit(&self, name: &str) -> zbus::Result<OwnedObjectPath>;
    fn list_units_by_patterns(&self, states: &[&str], patterns: &[&str]) -> zbus::Result<Vec<Listed>>;
    #[zbus(property)]
    fn version(&self) -> zbus::Result<String>;
    #[zbus(signal)]
    fn job_removed(&self, id: u32, job: OwnedObjectPath, unit: String, result: String) -> zbus::Result<()>;
    #[zbus(signal)]
    fn unit_removed(&self, id: String, unit: OwnedObjectPath) -> zbus::Result<()>;
}

/// The manager over one connection.
#[derive(Clone)]
pub(super) struct Bus {
    connection: Connection,
    manager: ManagerProxy<'static>,
}

impl Bus {
    /// Connects, and has the manager send its signals: without `Subscribe` it sends none.
    pub(super) async fn connect(address: &str) -> zbus::Result<Self> {
        let builder = zbus::connection::Builder::address(address);
        let connection = builder.method_timeout(PATIENCE).build().await?;
        let manager = ManagerProxy::new(&connection).await?;
        manager.subscribe().await?;
        Ok(Self { connection, manager })
    }

    pub(super) fn manager(&self) -> &ManagerProxy<'static> {
        &self.manager
    }

    /// Asks for a job and waits for its end; what became of it, such as `done` or `failed`.
    pub(super) async fn job<F>(&self, ask: F) -> zbus::Result<String>
    where
        F: Future<Output = zbus::Result<OwnedObjectPath>>,
    {
        // Listening comes first: a short job is over before its name is known.
        let mut removed = self.manager.receive_job_removed().await?;
        let job = ask.await?;
        while let Some(signal) = removed.next().await {
            let args = signal.args()?;
            if args.job == job {
                return Ok(args.result.clone());
            }
        }
        Err(zbus::Error::Failure("the bus went away while a job ran".to_owned()))
    }

    /// A property of a unit.
    pub(super) async fn property<T>(&self, unit: &OwnedObjectPath, of: &str, name: &str) -> zbus::Result<T>
    where
        T: TryFrom<OwnedVariant>,
        T::Error: Into<zbus::Error>,
    {
        let reply = self
            .connection
            .call_method(
                Some("org.freedesktop.systemd1"),
                unit,
                Some("org.freedesktop.DBus.Properties"),
                "Get",
                &(format!("org.freedesktop.systemd1.{of}"), name),
            )
            .await?;
        let value: OwnedVariant = reply.body().deserialize()?;
        T::try_from(value).map_err(Into::into)
    }
}
