//! The cockpit as an operator has it: the real program in a real pseudo-terminal.

mod demo;
mod own;
mod screen;
mod sim;
mod tape;
