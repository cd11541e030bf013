//! Parts that several screens draw.

pub(crate) mod fences;
pub(crate) mod reach;
pub(crate) mod table;
