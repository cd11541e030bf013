//! Quorate
fn main() {}
