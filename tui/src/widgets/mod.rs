//! Parts that several screens draw.

pub(crate) mod table;
