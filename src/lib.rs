//! Quorate
