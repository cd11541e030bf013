//! What node, guard and the guard's twin say to one another over the unix socket: a hello with the version,
//! then frames of a length and a postcard body. Knows nothing of how any of them acts on it.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use quorate_core::effect::{StartInstance, StopInstance};
use quorate_core::ids::{NodeId, SlotId};
use quorate_core::observation::{ExecutorFact, SlotReport, Unavailable};
use quorate_core::units::{BootMs, Millis};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::ports::{ActError, EngineEnd, Placing, RunId};

/// Counts changes of the messages below. Node and guard come from one binary, but a guard outlives updates.
pub const PROTOCOL: u16 = 3;

/// The longest frame; an inventory of thousands of instances stays well below.
pub const MAX_FRAME: usize = 16 << 20;

/// Opens every hello of a node, whatever its version.
const HELLO: &[u8; 8] = b"QUOGUARD";

/// Opens every hello of a twin.
const TWIN_HELLO: &[u8; 8] = b"QUOGTWIN";

/// Who says hello.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Guest {
    /// The node of that name.
    Node(NodeId),
    /// The second holder of the deadlines.
    Twin,
}

/// A node's question.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Question {
    /// Comes back with the answer.
    pub number: u64,
    /// What is asked.
    pub ask: Ask,
}

/// What a node asks of its guard.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Ask {
    /// Are you there?
    Ping,
    /// Start an instance.
    Start(StartInstance),
    /// Hold the deadline of an instance that an engine is asked to start.
    Admit(StartInstance, Placing),
    /// The engine has started it.
    Begun {
        /// Which one.
        run: RunId,
        /// Its main process.
        pid: u32,
    },
    /// The engine has not, or it has ended.
    Over {
        /// Which one.
        run: RunId,
        /// How.
        end: EngineEnd,
    },
    /// End a slot's instance and raise its token.
    Stop(StopInstance),
    /// The lease lasts until then.
    Renew {
        /// Older numbers are dropped.
        number: u64,
        /// Its end.
        valid_until: BootMs,
        /// How long a kill may take.
        kill_margin: Millis,
    },
    /// Remove a slot's folders and record.
    Forget(SlotId),
    /// Every slot.
    Inventory,
    /// How each running instance was started.
    Runs,
    /// What the host can do.
    Facts,
}

/// What a guard says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Say {
    /// The session stands.
    Welcome(Welcome),
    /// It does not; why.
    Unwelcome(String),
    /// To a question.
    Answer {
        /// Which question.
        number: u64,
        /// The answer.
        answer: Box<Answer>,
    },
    /// Something started, ended or failed.
    Changed,
    /// Who holds the deadlines besides the guard, whenever that changes.
    Holders(Holders),
}

/// Who holds the deadlines besides the guard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holders {
    /// The second holder's process; 0 while there is none.
    pub twin: u32,
    /// Why two do not hold every deadline, while they do not.
    pub unarmed: Option<Unavailable>,
}

/// What a guard tells its twin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Told {
    /// What is stored changed: look at the lease and at these slots, and say what you hold.
    Look {
        /// Comes back with the answer.
        number: u64,
        /// Slots whose record changed.
        slots: Vec<SlotId>,
    },
    /// Nothing is left to hold, or another guard does without you.
    End,
}

/// A twin's answer: it holds everything that was stored when it was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holds {
    /// To which question.
    pub number: u64,
    /// Instances that it could not kill for sure, and why.
    pub unable: Vec<(SlotId, String)>,
}

/// The guard as it introduces itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// Its process.
    pub pid: u32,
    /// The highest renewal it holds: the next one has to be higher.
    pub renewal: u64,
    /// When the lease ends that it holds; 0 where it holds none.
    pub valid_until: BootMs,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Answer {
    /// Done, or well under way.
    Done,
    /// Not done.
    Refused(ActError),
    /// Its deadline is held: the engine may be asked. Its control group, where there is one.
    Admitted(Option<String>),
    /// Every slot.
    Inventory(BTreeMap<SlotId, SlotReport>),
    /// How each running instance was started.
    Runs(Vec<StartInstance>),
    /// What the host can do.
    Facts(ExecutorFact),
}

/// The first frame of a node's session. Its form never changes, so that both ends can tell that they differ.
pub fn hello(node: &NodeId) -> Vec<u8> {
    greeting(HELLO, node.as_str())
}

/// The first frame of a twin's.
pub fn twin_hello() -> Vec<u8> {
    greeting(TWIN_HELLO, "")
}

fn greeting(opening: &[u8; 8], name: &str) -> Vec<u8> {
    let mut body = opening.to_vec();
    body.extend(PROTOCOL.to_le_bytes());
    body.extend(name.as_bytes());
    frame(&body)
}

/// Is this the first frame of a twin, of whichever version?
pub fn is_twin(body: &[u8]) -> bool {
    body.starts_with(TWIN_HELLO)
}

/// Reads the first frame's body.
pub fn read_hello(body: &[u8]) -> anyhow::Result<Guest> {
    let twin = is_twin(body);
    let rest = body.strip_prefix(if twin { TWIN_HELLO } else { HELLO });
    let Some((version, name)) = rest.and_then(|rest| rest.split_first_chunk::<2>()) else {
        bail!("this is the guard of a node and speaks to that node only");
    };
    let version = u16::from_le_bytes(*version);
    if version != PROTOCOL {
        bail!(
            "this guard speaks protocol {PROTOCOL}, the node {version}: drain the node, then end the guard"
        );
    }
    if twin {
        return Ok(Guest::Twin);
    }
    let name = std::str::from_utf8(name).context("the node's name is not text")?;
    Ok(Guest::Node(name.parse()?))
}

/// A body with its length in front.
pub fn frame(body: &[u8]) -> Vec<u8> {
    let mut framed = (body.len() as u32).to_le_bytes().to_vec();
    framed.extend(body);
    framed
}

/// A message as a frame.
pub fn encode<T: Serialize>(message: &T) -> anyhow::Result<Vec<u8>> {
    let body = postcard::to_stdvec(message).context("cannot encode a message")?;
    if body.len() > MAX_FRAME {
        bail!("a message of {} bytes is longer than the {MAX_FRAME} a frame may have", body.len());
    }
    Ok(frame(&body))
}

/// A message from a frame's body.
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> anyhow::Result<T> {
    postcard::from_bytes(body).context("cannot read a message of the other end")
}

/// Takes the first whole frame's body off `buffer`, if there is one.
pub fn next_frame(buffer: &mut Vec<u8>) -> anyhow::Result<Option<Vec<u8>>> {
    let Some((length, rest)) = buffer.split_first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_le_bytes(*length) as usize;
    if length > MAX_FRAME {
        bail!("a frame of {length} bytes was announced; {MAX_FRAME} is the most");
    }
    let Some(body) = rest.get(..length) else { return Ok(None) };
    let body = body.to_vec();
    buffer.drain(..4 + length);
    Ok(Some(body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_apart_wherever_they_are_cut() {
        let question = Question { number: 7, ask: Ask::Forget("web/0".parse().unwrap()) };
        let mut bytes = encode(&question).unwrap();
        bytes.extend(encode(&question).unwrap());
        let mut buffer = Vec::new();
        let mut seen = Vec::new();
        for byte in bytes {
            buffer.push(byte);
            while let Some(body) = next_frame(&mut buffer).unwrap() {
                seen.push(decode::<Question>(&body).unwrap());
            }
        }
        assert_eq!(seen, [question.clone(), question]);
        assert!(buffer.is_empty());
        assert!(next_frame(&mut vec![0xff; 8]).is_err());
    }

    #[test]
    fn a_hello_of_another_version_is_told_what_to_do() {
        let node = NodeId::new("a").unwrap();
        assert_eq!(read_hello(&twin_hello()[4..]).unwrap(), Guest::Twin);
        assert_eq!(read_hello(&hello(&node)[4..]).unwrap(), Guest::Node(node.clone()));
        let mut other = hello(&node)[4..].to_vec();
        other[8] = 99;
        assert!(read_hello(&other).unwrap_err().to_string().contains("drain"));
        assert!(read_hello(b"GET / HTTP/1.1").is_err());
    }
}
