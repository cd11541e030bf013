//! What happened: made by `apply` alone, for people and to wake those who reconcile. Nothing is ever
//! decided from an event; a lost or repeated one is harmless.

use serde::{Deserialize, Serialize};

use crate::evidence::Evidence;
use crate::ids::{Epoch, NodeId, OperationId, Revision, ServiceName, SlotId, Token, Version};
use crate::units::WallMs;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Worth knowing.
    Notice,
    /// Something waits or is less safe than it should be.
    Warning,
    /// Something wanted does not run, or could not decide.
    Critical,
}

/// An event with its place in the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRecord {
    /// The revision that made it.
    pub revision: Revision,
    /// The proposer's wall clock, for people.
    pub at: WallMs,
    /// The operator who asked for it, if one did.
    pub by: Option<String>,
    /// What happened.
    pub event: Event,
}

/// Everything that can happen to State. Key-value changes are not kept here: they have their own watch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// The cluster was made.
    Bootstrapped,
    /// The cluster went on from less than it once had, in a higher epoch.
    Recovered {
        /// What was done, in a few words.
        what: String,
        /// The epoch that begins.
        epoch: Epoch,
        /// The last revision that is surely there.
        last: Revision,
        /// Why.
        reason: String,
    },
    /// A node reported tokens of a history that is gone: the epoch was raised above them.
    EpochRaised {
        /// Which node.
        node: NodeId,
        /// The epoch now.
        epoch: Epoch,
    },
    /// What runs on a node was taken in after a recovery.
    InventoryTaken {
        /// Which node.
        node: NodeId,
        /// Copies that run on under a claim.
        adopted: u32,
        /// Claims that are told to stop, or ended, since nothing of them is to run.
        dropped: u32,
    },
    /// Every node was heard since a recovery, or proven to run nothing.
    RecoveryOver,
    /// After a recovery two nodes ran the same exclusive slot.
    RanTwice {
        /// Which slot.
        slot: SlotId,
        /// The newest grant: it runs on.
        keeps: (NodeId, Token),
        /// The others: they are told to stop.
        stops: Vec<(NodeId, Token)>,
    },
    /// Settings changed; `name = value` each.
    SettingsChanged(Vec<String>),
    /// A node was admitted.
    NodeAdmitted(NodeId),
    /// A known name came with a new disk: the old voter is removed.
    NodeReplaced(NodeId),
    /// A node changed what it says of itself.
    NodeUpdated(NodeId),
    /// A node was committed lost.
    NodeLost {
        /// Which one.
        node: NodeId,
        /// Why.
        because: Vec<String>,
    },
    /// A node was let back in.
    NodeRejoined {
        /// Which one.
        node: NodeId,
        /// Instances adopted without a restart.
        adopted: u32,
    },
    /// A node was cordoned or uncordoned.
    NodeCordoned {
        /// Which one.
        node: NodeId,
        /// On or off.
        on: bool,
    },
    /// An operator attested that a node is dead.
    NodeAttested {
        /// Which one.
        node: NodeId,
        /// Why the operator is sure.
        reason: String,
    },
    /// A node is leaving.
    NodeLeaving(NodeId),
    /// A node was forgotten.
    NodeRemoved(NodeId),
    /// A service was deployed or changed.
    ServiceDeployed {
        /// Which one.
        service: ServiceName,
        /// Its version now.
        version: Version,
        /// `deploy`, `scale`, `restart`.
        cause: String,
    },
    /// A service was stopped.
    ServiceStopped(ServiceName),
    /// A service is being deleted.
    ServiceDeleting(ServiceName),
    /// A service was forgotten.
    ServiceDeleted(ServiceName),
    /// A slot was granted.
    Granted {
        /// Which.
        slot: SlotId,
        /// To whom.
        node: NodeId,
        /// With which token.
        token: Token,
        /// Why there.
        because: String,
    },
    /// A claim was told to stop.
    StopOrdered {
        /// Whose.
        slot: SlotId,
        /// Where.
        node: NodeId,
        /// Why.
        because: String,
    },
    /// A claim ended.
    ClaimEnded {
        /// Whose.
        slot: SlotId,
        /// Where.
        node: NodeId,
        /// By which token.
        token: Token,
        /// What proved it.
        evidence: Evidence,
    },
    /// An operation began.
    OperationBegan {
        /// Which.
        operation: OperationId,
        /// In words.
        what: String,
    },
    /// An operation moved on.
    OperationAdvanced {
        /// Which.
        operation: OperationId,
        /// In words.
        what: String,
    },
    /// An operation ended.
    OperationEnded {
        /// Which.
        operation: OperationId,
        /// In words.
        what: String,
        /// As asked?
        well: bool,
    },
    /// An impossible state was met; this node stops acting on it.
    Alarm(String),
}

impl EventRecord {
    /// What it concerns, such as `node n2`, `web/0`, `operation 7`.
    pub fn subject(&self) -> String {
        match &self.event {
            Event::Bootstrapped
            | Event::Recovered { .. }
            | Event::RecoveryOver
            | Event::SettingsChanged(_)
            | Event::Alarm(_) => "cluster".to_owned(),
            Event::EpochRaised { node, .. }
            | Event::InventoryTaken { node, .. }
            | Event::NodeAdmitted(node)
            | Event::NodeReplaced(node)
            | Event::NodeUpdated(node)
            | Event::NodeLost { node, .. }
            | Event::NodeRejoined { node, .. }
            | Event::NodeCordoned { node, .. }
            | Event::NodeAttested { node, .. }
            | Event::NodeLeaving(node)
            | Event::NodeRemoved(node) => format!("node {node}"),
            Event::ServiceDeployed { service, .. }
            | Event::ServiceStopped(service)
            | Event::ServiceDeleting(service)
            | Event::ServiceDeleted(service) => format!("service {service}"),
            Event::RanTwice { slot, .. }
            | Event::Granted { slot, .. }
            | Event::StopOrdered { slot, .. }
            | Event::ClaimEnded { slot, .. } => slot.to_string(),
            Event::OperationBegan { operation, .. }
            | Event::OperationAdvanced { operation, .. }
            | Event::OperationEnded { operation, .. } => format!("operation {operation}"),
        }
    }

    /// How bad it is.
    pub fn level(&self) -> Level {
        match &self.event {
            Event::Alarm(_) | Event::NodeLost { .. } | Event::Recovered { .. } | Event::RanTwice { .. } => {
                Level::Critical
            }
            Event::EpochRaised { .. } | Event::NodeReplaced(_) | Event::NodeAttested { .. } => Level::Warning,
            Event::ClaimEnded { evidence, .. } => match evidence {
                Evidence::StopAcknowledged { .. } => Level::Ok,
                Evidence::Rebooted { .. } => Level::Notice,
                Evidence::Fenced { .. } | Evidence::Silence { .. } | Evidence::Attested { .. } => {
                    Level::Warning
                }
            },
            Event::OperationEnded { well, .. } => {
                if *well {
                    Level::Ok
                } else {
                    Level::Warning
                }
            }
            Event::Bootstrapped
            | Event::RecoveryOver
            | Event::InventoryTaken { .. }
            | Event::SettingsChanged(_)
            | Event::NodeAdmitted(_)
            | Event::NodeRejoined { .. }
            | Event::NodeCordoned { .. }
            | Event::NodeLeaving(_)
            | Event::NodeRemoved(_)
            | Event::ServiceStopped(_)
            | Event::ServiceDeleting(_)
            | Event::ServiceDeleted(_)
            | Event::OperationBegan { .. } => Level::Notice,
            Event::NodeUpdated(_)
            | Event::ServiceDeployed { .. }
            | Event::Granted { .. }
            | Event::StopOrdered { .. }
            | Event::OperationAdvanced { .. } => Level::Ok,
        }
    }

    /// What happened, in a sentence without its subject's kind.
    pub fn text(&self) -> String {
        let why = |text: String, because: &str| {
            if because.is_empty() { text } else { format!("{text}: {because}") }
        };
        match &self.event {
            Event::Bootstrapped => "the cluster was made".to_owned(),
            Event::Recovered { what, epoch, last, reason } => why(
                format!(
                    "the cluster was {what} and goes on in epoch {epoch}: acknowledged writes after revision \
                     {last} may be gone"
                ),
                reason,
            ),
            Event::EpochRaised { node, epoch } => {
                format!("{node} knows tokens of a history that is gone here: it goes on in epoch {epoch}")
            }
            Event::InventoryTaken { node, adopted, dropped } => {
                format!("{node} told what it runs: {adopted} adopted, {dropped} claims dropped")
            }
            Event::RecoveryOver => {
                "it is known what runs on every node: exclusive services are granted again".to_owned()
            }
            Event::RanTwice { slot, keeps: (node, token), stops } => {
                let others: Vec<String> =
                    stops.iter().map(|(node, token)| format!("{token} on {node}")).collect();
                format!(
                    "{slot} RAN TWICE: {token} on {node} and {}; {token} is the newest grant and runs on, the \
                     rest is told to stop",
                    others.join(", ")
                )
            }
            Event::SettingsChanged(changes) => format!("settings changed: {}", changes.join(", ")),
            Event::NodeAdmitted(node) => format!("{node} was admitted"),
            Event::NodeReplaced(node) => {
                format!("{node} came with a new disk: it joins as a new voter, the old one is removed")
            }
            Event::NodeUpdated(node) => format!("{node} changed what it says of itself"),
            Event::NodeLost { node, because } => why(format!("{node} is lost"), &because.join("; ")),
            Event::NodeRejoined { node, adopted: 0 } => format!("{node} is back"),
            Event::NodeRejoined { node, adopted: 1 } => {
                format!("{node} is back; 1 instance was adopted without a restart")
            }
            Event::NodeRejoined { node, adopted } => {
                format!("{node} is back; {adopted} instances were adopted without a restart")
            }
            Event::NodeCordoned { node, on: true } => {
                format!("{node} was cordoned: nothing new is placed there")
            }
            Event::NodeCordoned { node, on: false } => format!("{node} was uncordoned"),
            Event::NodeAttested { node, reason } => format!("{node} was attested dead: {reason}"),
            Event::NodeLeaving(node) => format!("{node} is leaving for good"),
            Event::NodeRemoved(node) => format!("{node} was removed"),
            Event::ServiceDeployed { service, version, cause } => match cause.as_str() {
                "scale" => format!("{service} was scaled"),
                "restart" => format!("{service} is restarted as version {version}"),
                _ => format!("{service} was deployed, version {version}"),
            },
            Event::ServiceStopped(service) => format!("{service} was stopped by an operator"),
            Event::ServiceDeleting(service) => format!("{service} is being deleted"),
            Event::ServiceDeleted(service) => format!("{service} is gone"),
            Event::Granted { slot, node, token, because } => {
                why(format!("{slot} goes to {node} with token {token}"), because)
            }
            Event::StopOrdered { slot, node, because } => {
                why(format!("{slot} on {node} is told to stop"), because)
            }
            Event::ClaimEnded { slot, node, evidence, .. } => {
                format!("{slot} does not run on {node} any more: {}", evidence.words())
            }
            Event::OperationBegan { what, .. } => format!("{what} begins"),
            Event::OperationAdvanced { what, .. } | Event::OperationEnded { what, .. } => what.clone(),
            Event::Alarm(text) => format!("IMPOSSIBLE STATE: {text}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Millis;

    fn record(event: Event) -> EventRecord {
        EventRecord { revision: Revision(7), at: WallMs(0), by: None, event }
    }

    #[test]
    fn events_read_as_sentences_and_name_their_evidence() {
        let (node, slot): (NodeId, SlotId) = ("n2".parse().unwrap(), "db/0".parse().unwrap());
        let evidence = Evidence::Silence { lease_epoch: crate::ids::LeaseEpoch(3), waited: Millis(15_600) };
        let token = "1.6".parse().unwrap();
        let ended = record(Event::ClaimEnded { slot: slot.clone(), node: node.clone(), token, evidence });
        assert_eq!(
            ended.text(),
            "db/0 does not run on n2 any more: silent for 15.6 s, past its guarded deadline"
        );
        assert_eq!((ended.subject().as_str(), ended.level()), ("db/0", Level::Warning));
        let because = vec!["no heartbeat for 5s".to_owned(), "3 of 3 lost it".to_owned()];
        let lost = record(Event::NodeLost { node: node.clone(), because });
        assert_eq!(lost.text(), "n2 is lost: no heartbeat for 5s; 3 of 3 lost it");
        assert_eq!(lost.subject(), "node n2");
        let token = "1.7".parse().unwrap();
        let granted = record(Event::Granted { slot, node, token, because: String::new() });
        assert_eq!(granted.text(), "db/0 goes to n2 with token 1.7");
    }
}
