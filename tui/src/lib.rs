//! The cockpit: a pure function of its memory, the cluster's view and a theme.
//!
//! Reading order: [`Msg`] comes in, `update` changes the [`App`] and hands out [`Out`], [`draw`] makes the
//! picture; `commands` is the one list of what can be told to it, `rows` what tables say, `screens` and
//! `popups` what is drawn. [`Cockpit`] runs all of it on a thread of its own, apart from the node.

mod actions;
mod app;
mod canvas;
mod commands;
mod draw;
mod feed;
mod input;
mod keymap;
mod logs;
mod msg;
mod popups;
mod query;
mod rows;
mod run;
mod screens;
mod summary;
mod table;
mod terminal;
mod theme;
mod update;
mod widgets;
mod words;

pub use app::{App, Settings};
pub use commands::reference;
pub use draw::{Drawn, draw};
pub use feed::Feed;
pub use msg::{
    Ahead, Connection, DemoAction, Foresight, LogLine, LogRequest, Loss, Msg, Out, Preview, PreviewLine,
    SimAction,
};
pub use run::{Cockpit, Ended};
pub use theme::{Depth, Surroundings, Theme, ThemeError};
pub use update::update;
