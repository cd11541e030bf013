//! Addresses to dial instead of the published ones. A demo or a test puts a relay between nodes this way,
//! so that a way can be cut without root; in production the table is empty. Does not know who is dialled.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, ensure};
use quorate_core::ids::Endpoint;

/// A file of detours is never larger.
const LARGEST: u64 = 64 * 1024;

/// Which address is dialled instead of which. Clones share the table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Detours(Arc<BTreeMap<String, String>>);

impl Detours {
    /// From a file: one JSON object, `{"HOST:PORT as published": "HOST:PORT to dial"}`.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let mut text = String::new();
        let file = std::fs::File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        let read = file.take(LARGEST + 1).read_to_string(&mut text);
        read.with_context(|| format!("cannot read {}", path.display()))?;
        ensure!(text.len() as u64 <= LARGEST, "{} is larger than {LARGEST} bytes", path.display());
        let table: BTreeMap<String, String> = serde_json::from_str(&text).with_context(|| {
            format!("{} is no table of detours; write one JSON object of addresses", path.display())
        })?;
        if let Some(wrong) = table.values().find(|address| !dialable(address)) {
            anyhow::bail!("{}: {wrong:?} cannot be dialled; write HOST:PORT", path.display());
        }
        Ok(Self(Arc::new(table)))
    }

    /// What to dial for an address.
    pub fn of<'a>(&'a self, address: &'a str) -> &'a str {
        self.0.get(address).map_or(address, String::as_str)
    }

    /// What to dial for an endpoint.
    pub fn of_endpoint(&self, endpoint: &Endpoint) -> String {
        let Endpoint { host, port, .. } = endpoint;
        let address = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        self.of(&address).to_owned()
    }
}

fn dialable(address: &str) -> bool {
    let parts = address.rsplit_once(':');
    parts.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0))
}

#[cfg(test)]
mod tests {
    use quorate_core::ids::Segment;

    use super::*;

    fn table(text: &str) -> anyhow::Result<Detours> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Detours::read(file.path())
    }

    #[test]
    fn an_address_with_a_detour_is_dialled_elsewhere_and_any_other_as_it_is() {
        let detours =
            table(r#"{"127.0.0.1:7000": "127.0.0.1:9000", "[::1]:7000": "127.0.0.1:9001"}"#).unwrap();
        assert_eq!(detours.of("127.0.0.1:7000"), "127.0.0.1:9000");
        assert_eq!(detours.of("127.0.0.2:7000"), "127.0.0.2:7000");
        let at = |host: &str| Endpoint { segment: Segment::new("a").unwrap(), host: host.into(), port: 7000 };
        assert_eq!(detours.of_endpoint(&at("127.0.0.1")), "127.0.0.1:9000");
        assert_eq!(detours.of_endpoint(&at("::1")), "127.0.0.1:9001");
        assert_eq!(detours.of_endpoint(&at("::2")), "[::2]:7000");
        assert_eq!(Detours::default().of("n1:7000"), "n1:7000");
    }

    #[test]
    fn a_file_that_is_no_table_of_addresses_is_refused_with_its_name() {
        for text in ["", "[]", "{\"a:1\": 1}", "{\"a:1\": \"nowhere\"}", "{\"a:1\": \"b:0\"}"] {
            let error = format!("{:#}", table(text).unwrap_err());
            assert!(error.contains("/"), "{error}");
        }
        assert!(table(&" ".repeat(70_000)).unwrap_err().to_string().contains("larger"));
    }
}
