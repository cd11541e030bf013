//! The columns of events.

use quorate_core::view::{EventView, Level};

use super::{Cell, Column, Ctx, column, down, level_glyph, level_role, number, text};
use crate::theme::Role;
use crate::words;

pub(crate) const COLUMNS: &[Column<EventView>] = &[
    column("TIME", 9, 0, |e, _| Cell::new(words::clock(e.at), Role::Dim), |e| down(e.at.0)),
    number("REV", 7, 3, revision, |e| down(e.revision.0)),
    column("SUBJECT", 14, 0, |e, _| Cell::new(&*e.subject, Role::Title), |e| text(&e.subject)),
    column("BY", 8, 2, by, |e| text(e.by.clone().unwrap_or_default())),
    column("EVENT", 0, 0, event, |e| text(&e.text)),
];

/// What is in no log was seen here.
fn revision(e: &EventView, _: &Ctx<'_>) -> Cell {
    let text = if e.revision.0 == 0 { "seen".to_owned() } else { e.revision.to_string() };
    Cell::new(text, Role::Dim)
}

fn by(e: &EventView, _: &Ctx<'_>) -> Cell {
    Cell::new(e.by.clone().unwrap_or_else(|| "-".into()), Role::Dim)
}

fn event(e: &EventView, ctx: &Ctx<'_>) -> Cell {
    let role = if e.level == Level::Ok { Role::Base } else { level_role(e.level) };
    let glyph = if e.level == Level::Ok { " " } else { level_glyph(e.level, ctx.glyphs) };
    Cell::new(format!("{glyph} {}", e.text), role)
}
