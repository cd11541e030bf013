//! Parts that several screens draw.

pub(crate) mod reach;
pub(crate) mod table;
