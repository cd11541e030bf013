//! Names and numbers that identify things. Each is its own type, so that a node can never be passed
//! where a service is meant; each orders and prints the same way everywhere.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a text is not a valid name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing was given.
    #[error("{what} is empty; use 1 to 63 characters of a-z, 0-9, '-', '.' and '_'")]
    Empty {
        /// Which kind of name.
        what: &'static str,
    },
    /// More than 63 bytes.
    #[error("{what} {name:.20}... has {length} characters; use at most 63")]
    TooLong {
        /// Which kind of name.
        what: &'static str,
        /// The name as given.
        name: String,
        /// Its length in bytes.
        length: usize,
    },
    /// A character that would be ambiguous in a path, a label or a shell.
    #[error(
        "{what} {name:?} has the character {character:?}; use a-z, A-Z, 0-9, '-', '.' and '_', starting with a letter or digit"
    )]
    Character {
        /// Which kind of name.
        what: &'static str,
        /// The name as given.
        name: String,
        /// The first character refused.
        character: char,
    },
    /// A compound id (slot, token, ...) of the wrong form.
    #[error("{text:?} is not {form}")]
    Form {
        /// The text as given.
        text: String,
        /// What was expected.
        form: &'static str,
    },
}

fn check_name(what: &'static str, name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty { what });
    }
    if name.len() > 63 {
        return Err(NameError::TooLong { what, name: name.to_owned(), length: name.len() });
    }
    let bad = name
        .chars()
        .enumerate()
        .find(|&(at, c)| !(c.is_ascii_alphanumeric() || (at > 0 && matches!(c, '-' | '.' | '_'))));
    match bad {
        Some((_, character)) => Err(NameError::Character { what, name: name.to_owned(), character }),
        None => Ok(()),
    }
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks and wraps a name.
            pub fn new(name: impl Into<String>) -> Result<Self, NameError> {
                let name = name.into();
                check_name($what, &name)?;
                Ok(Self(name))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(name: String) -> Result<Self, NameError> {
                Self::new(name)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(name: &str) -> Result<Self, NameError> {
                Self::new(name)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

name_type!(
    /// A node's name, chosen by its operator (`node_id` in the config).
    NodeId,
    "node name"
);
name_type!(
    /// A service's name, unique in the cluster.
    ServiceName,
    "service name"
);
name_type!(
    /// One of the networks that join the nodes.
    Segment,
    "segment name"
);

macro_rules! opaque_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

opaque_type!(
    /// One boot of one host, as its kernel names it. A new boot means that nothing of the old one runs.
    BootId
);
opaque_type!(
    /// The host, as /etc/machine-id names it.
    MachineId
);
opaque_type!(
    /// The data directory, drawn once when it is made. A wiped disk has a new one.
    DiskId
);
opaque_type!(
    /// The cluster, drawn once at bootstrap.
    ClusterId
);
opaque_type!(
    /// Who sends requests, drawn once per client; scopes its request numbers.
    ClientId
);

macro_rules! number_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

number_type!(
    /// Applied log index, and so the version of State.
    Revision
);
number_type!(
    /// State's epoch, raised by a restore and by forced quorum.
    Epoch
);
number_type!(
    /// A node's lease epoch, raised by each rejoin.
    LeaseEpoch
);
number_type!(
    /// The number Raft knows a node's disk by: counted up in State, never reused.
    RaftId
);
number_type!(
    /// Counts deployments of one service: a new spec or a requested restart makes the next one.
    Version
);
number_type!(
    /// An operation, numbered from 1 in the order they were begun.
    OperationId
);

impl FromStr for OperationId {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        text.parse()
            .map(Self)
            .map_err(|_| NameError::Form { text: text.to_owned(), form: "an operation number such as 4711" })
    }
}

/// One wanted copy of a service, written `SERVICE/ORDINAL`; stable while the copy moves between nodes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SlotId {
    /// The service it is a copy of.
    pub service: ServiceName,
    /// Which copy, from 0.
    pub ordinal: u32,
}

impl fmt::Display for SlotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}", self.service, self.ordinal))
    }
}

impl FromStr for SlotId {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let wrong = || NameError::Form { text: text.to_owned(), form: "a slot such as web/0" };
        let (service, ordinal) = text.rsplit_once('/').ok_or_else(wrong)?;
        Ok(Self { service: service.parse()?, ordinal: ordinal.parse().map_err(|_| wrong())? })
    }
}

/// A fencing token: who may act on a slot. Compared as a pair; a higher one makes every lower one void.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Token {
    /// State's epoch when it was made.
    pub epoch: Epoch,
    /// The revision that decided it.
    pub revision: Revision,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}.{}", self.epoch, self.revision))
    }
}

impl FromStr for Token {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let wrong = || NameError::Form { text: text.to_owned(), form: "a token such as 1.4711" };
        let (epoch, revision) = text.split_once('.').ok_or_else(wrong)?;
        Ok(Self {
            epoch: Epoch(epoch.parse().map_err(|_| wrong())?),
            revision: Revision(revision.parse().map_err(|_| wrong())?),
        })
    }
}

/// Where a node is reached on one segment, for node-to-node traffic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Endpoint {
    /// The network it is on.
    pub segment: Segment,
    /// An address or a resolvable name, without brackets.
    pub host: String,
    /// The TCP port.
    pub port: u16,
}

impl fmt::Display for Endpoint {
    /// Writes `segment=host:port`, with brackets around an IPv6 address.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { segment, host, port } = self;
        let text = if host.contains(':') {
            format!("{segment}=[{host}]:{port}")
        } else {
            format!("{segment}={host}:{port}")
        };
        f.pad(&text)
    }
}

/// One running copy, written `SLOT@TOKEN`: no two are ever the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct InstanceId {
    /// The copy it realises.
    pub slot: SlotId,
    /// The grant it runs under.
    pub token: Token,
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}@{}", self.slot, self.token))
    }
}

impl FromStr for InstanceId {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let (slot, token) = text.split_once('@').ok_or_else(|| NameError::Form {
            text: text.to_owned(),
            form: "an instance such as web/0@1.4711",
        })?;
        Ok(Self { slot: slot.parse()?, token: token.parse()? })
    }
}

/// One write by one client. The answer to it is remembered, so a retry never applies twice.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestId {
    /// Who asks.
    pub client: ClientId,
    /// Which of its requests, from 1, rising.
    pub sequence: u64,
    /// Up to here it will ask for no answer again: they are forgotten. 0 keeps all that are remembered.
    pub settled: u64,
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.client, self.sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compound_ids_print_and_parse_alike() {
        let text = "web.api/3@2.4711";
        let id: InstanceId = text.parse().unwrap();
        assert_eq!(id.to_string(), text);
        assert_eq!(id.slot.ordinal, 3);
        assert_eq!(id.token, "2.4711".parse().unwrap());
    }

    #[test]
    fn tokens_compare_by_epoch_first() {
        let old: Token = "1.900".parse().unwrap();
        let new: Token = "2.5".parse().unwrap();
        assert!(old < new);
    }

    #[test]
    fn names_that_could_escape_a_path_are_refused() {
        for bad in ["", "../x", "a/b", ".hidden", "a b", "ümlaut"] {
            assert!(ServiceName::new(bad).is_err(), "{bad:?} was taken");
        }
        assert!(ServiceName::new("x".repeat(64)).is_err());
    }
}
