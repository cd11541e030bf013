//! What a start needs besides its image: networks, folders and ports of the host. Checked before anything is
//! begun, so that an error names the field and there is nothing to take away.

use std::net::{TcpListener, UdpSocket};
use std::path::Path;

use quorate_core::spec::{ContainerWorkload, PortMapping, Transport};
use serde::de::IgnoredAny;

use super::access::{Reached, name};
use super::plain::{self, Refused, escaped};

/// Networks that every engine has, by the names of ways to do without one.
const OWN_NETWORKS: [&str; 6] = ["default", "bridge", "host", "none", "private", "slirp4netns"];

/// All of it but the image.
pub(super) async fn all(reached: &Reached, spec: &ContainerWorkload) -> Result<(), String> {
    network(reached, spec).await?;
    for (at, mount) in spec.mounts.iter().enumerate() {
        if mount.source.starts_with('/') && !Path::new(&mount.source).exists() {
            let source = &mount.source;
            return Err(format!("spec.mounts[{at}].source: {source} is not on this node; make it first"));
        }
    }
    if spec.network.as_deref() != Some("host") {
        for (at, port) in spec.ports.iter().enumerate() {
            free(port).map_err(|why| format!("spec.ports[{at}]: {why}"))?;
        }
    }
    Ok(())
}

async fn network(reached: &Reached, spec: &ContainerWorkload) -> Result<(), String> {
    let Some(network) = spec.network.as_deref() else { return Ok(()) };
    if OWN_NETWORKS.contains(&network) {
        return Ok(());
    }
    let path = format!("/networks/{}", escaped(network));
    match plain::get::<IgnoredAny>(&reached.socket, &path).await {
        Ok(_) => Ok(()),
        Err(Refused::Missing) => {
            let engine = name(reached.engine);
            Err(format!(
                "spec.network: {engine} has no network {network}; make it on this node: {engine} network create {network}"
            ))
        }
        Err(Refused::Other(why)) => Err(why),
    }
}

fn free(port: &PortMapping) -> Result<(), String> {
    let address = port.address.as_deref().unwrap_or("0.0.0.0");
    let address = address.trim_start_matches('[').trim_end_matches(']');
    let tried = match port.transport {
        Transport::Tcp => TcpListener::bind((address, port.host)).map(drop),
        Transport::Udp => UdpSocket::bind((address, port.host)).map(drop),
    };
    tried.map_err(|error| {
        let (host, transport) = (port.host, port.transport);
        match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                format!(
                    "port {host}/{transport} of {address} is in use on this node; free it or choose another"
                )
            }
            std::io::ErrorKind::AddrNotAvailable => {
                format!("this node has no address {address}; name one of its own, or none for all")
            }
            _ => format!("port {host}/{transport} of {address}: {error}"),
        }
    })
}
