//! Ports of a host that a container publishes: how they are written, how they are read, and when two of
//! them cannot be on one host. Does not know which node holds which.

use core::net::IpAddr;
use std::fmt;

use crate::document::{Field, shown};

use super::{PortMapping, Transport};

/// Ports of one container.
const MAX_PORTS: usize = 256;
const REMEDY: &str = "write [ADDRESS:]HOST:CONTAINER[/tcp or /udp], such as 8080:80, 127.0.0.1:8080:80 or \
                      \"[::1]:53:53/udp\", or {host: 8080, container: 80}";
const WORDS: [(&str, Transport); 2] = [("tcp", Transport::Tcp), ("udp", Transport::Udp)];

impl PortMapping {
    /// Can only one of the two be published on a host? So it is with the same port and transport, where the
    /// address is the same or one of them takes every address.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.host == other.host
            && self.transport == other.transport
            && (self.address() == other.address() || self.address().is_none() || other.address().is_none())
    }

    /// The one address it is published at; nothing if it takes them all.
    fn address(&self) -> Option<&str> {
        self.address.as_deref().filter(|address| !matches!(*address, "0.0.0.0" | "::"))
    }

    /// What it takes of its host, for people: `8080/tcp`, or `127.0.0.1:8080/tcp`.
    pub fn on_host(&self) -> String {
        format!("{}{}/{}", self.prefix(), self.host, self.transport)
    }

    /// The address as it stands before a port.
    fn prefix(&self) -> String {
        match &self.address {
            None => String::new(),
            Some(address) if address.contains(':') => format!("[{address}]:"),
            Some(address) => format!("{address}:"),
        }
    }
}

/// As a description has it.
impl fmt::Display for PortMapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}{}:{}/{}", self.prefix(), self.host, self.container, self.transport))
    }
}

/// The ports of one container, no two of them in one another's way.
pub(super) fn ports(field: &Field<'_>) -> Option<Vec<PortMapping>> {
    let items = field.items(MAX_PORTS)?;
    let mut ports: Vec<Option<PortMapping>> = items.iter().map(port).collect();
    for at in 1..items.len() {
        let earlier = ports[..at].iter().flatten();
        if let Some(one) = &ports[at]
            && let Some(other) = earlier.into_iter().find(|other| other.overlaps(one))
        {
            let message = format!("{one} takes the same port of the host as {other}");
            ports[at] = items[at].fail(message, "publish it at another port or address, or remove one");
        }
    }
    ports.into_iter().collect()
}

fn port(item: &Field<'_>) -> Option<PortMapping> {
    if item.is_scalar() {
        return item.parsed(128, REMEDY, from_text);
    }
    let map = item.fields(&["address", "host", "container", "transport"])?;
    let number = |key: &str, remedy: &str| match map.get(key) {
        Some(field) => field.whole(1..=65_535).and_then(|port| u16::try_from(port).ok()),
        None => map.missing(key, remedy),
    };
    let host = number("host", "write host: 8080, the port of the host");
    let container = number("container", "write container: 80, the port inside");
    let remedy =
        "write an address of the host, such as 127.0.0.1 or \"::1\", or remove the key for all of them";
    let address = map.get("address").map_or(Some(None), |field| field.parsed(64, remedy, address).map(Some));
    let transport = map.get("transport").map_or(Some(Transport::default()), |field| field.word(&WORDS));
    Some(PortMapping { address: address?, host: host?, container: container?, transport: transport? })
}

fn from_text(text: &str) -> Result<PortMapping, String> {
    let wrong = |why: &str| format!("{} is not a port: {why}", shown(text));
    let (rest, transport) = match text.rsplit_once('/') {
        None => (text, Transport::default()),
        Some((rest, name)) => {
            let known = WORDS.iter().find(|(word, _)| *word == name);
            (rest, known.ok_or_else(|| wrong("after / stands tcp or udp"))?.1)
        }
    };
    let (at, numbers) = match rest.strip_prefix('[') {
        Some(rest) => {
            let closed =
                rest.split_once("]:").ok_or_else(|| wrong("the bracket is not closed before a port"))?;
            (Some(closed.0), closed.1)
        }
        None => match rest.rmatch_indices(':').nth(1) {
            Some((colon, _)) => (Some(&rest[..colon]), &rest[colon + 1..]),
            None => (None, rest),
        },
    };
    if !rest.starts_with('[') && at.is_some_and(|at| at.contains(':')) {
        return Err(wrong("an IPv6 address stands in brackets"));
    }
    let (host, container) =
        numbers.split_once(':').ok_or_else(|| wrong("it names one port where two belong"))?;
    let number = |text: &str| {
        let digits = text.bytes().all(|b| b.is_ascii_digit());
        let port = text.parse::<u16>().ok().filter(|port| digits && *port > 0);
        port.ok_or_else(|| wrong(&format!("{} is no number from 1 to 65535", shown(text))))
    };
    let (host, container) = (number(host)?, number(container)?);
    Ok(PortMapping { address: at.map(address).transpose()?, host, container, transport })
}

/// An address in the one way it is written here, so that equal ones are equal texts.
fn address(text: &str) -> Result<String, String> {
    match text.parse::<IpAddr>() {
        Ok(address) => Ok(address.to_canonical().to_string()),
        Err(_) => Err(format!("{} is not an address", shown(text))),
    }
}
