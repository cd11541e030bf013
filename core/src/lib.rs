//! Quorate's decisions, all of them, as pure functions over plain values.
//!
//! ```text
//!     config -> node -> COMMAND -> raft -> apply -> EVENT -> reconcile -> EFFECT -> driver -> OBSERVATION -> detect / plan -> COMMAND
//!     State + Observed -> VIEW -> draw            key -> Action -> COMMAND
//! ```
//!
//! Reading order: [`ids`] and [`units`] name things; [`document`] reads what people write; [`spec`] is
//! what an operator asks for; [`lease`] is a node's right to run it; [`observation`], [`reach`] and
//! [`effect`] are what comes from and goes to the world; [`state`] is what the cluster agrees on; [`detect`] judges who is
//! alive, [`plan`] says what is due and what waits; [`reconcile`] makes one node follow it.

pub mod command;
pub mod config;
pub mod detect;
pub mod document;
pub mod effect;
pub mod event;
pub mod evidence;
pub mod fence;
pub mod ids;
pub mod lease;
pub mod observation;
pub mod plan;
pub mod reach;
pub mod reconcile;
pub mod settings;
pub mod sim;
pub mod spec;
pub mod state;
pub mod units;
pub mod view;
