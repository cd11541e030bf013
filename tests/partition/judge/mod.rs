//! The judges: they read what the workloads wrote of themselves and what the clients were answered, and know
//! nothing of the product. All times are nanoseconds of CLOCK_BOOTTIME, which all processes of a host share.

pub mod register;
pub mod runs;
