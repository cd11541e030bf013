//! The contract of an executor, kept by native processes and by containers of Docker and Podman, rootful and
//! rootless: one suite, asked as a node asks, seen on the host and in the engine.

mod bed;
mod engines;
mod faults;
mod life;
mod limits;
mod output;
mod refusals;

use bed::Bed;
use engines::{Engine, Kind};

/// Each point of the contract as a test of each kind.
macro_rules! contract {
    ($($kind:ident $module:ident: $($part:ident::$point:ident)+;)+) => {
        $(mod $module {
            $(#[tokio::test]
            async fn $point() {
                super::$part::$point(super::Kind::$kind).await;
            })+
        })+
    };
}

contract! {
    Process process:
        life::one_starts_knows_who_it_is_and_stops
        life::ends_are_told_apart
        life::one_that_ignores_the_signal_is_killed_after_its_grace
        life::it_outlives_the_node_and_the_guard
        life::checks_are_asked_inside
        output::it_is_read_by_its_end_and_followed
        limits::its_use_is_seen;
    Docker docker:
        life::one_starts_knows_who_it_is_and_stops
        life::ends_are_told_apart
        life::one_that_ignores_the_signal_is_killed_after_its_grace
        life::it_outlives_the_node_and_the_guard
        life::checks_are_asked_inside
        life::strays_are_taken_away
        life::the_engine_has_exactly_what_the_description_says
        life::the_check_of_an_image_counts_where_there_is_no_other
        output::it_is_read_by_its_end_and_followed
        limits::one_that_takes_too_much_memory_is_told_so
        limits::a_quarter_of_a_core_is_a_quarter
        limits::its_use_is_seen
        refusals::each_names_its_field_and_leaves_nothing;
    Podman podman:
        life::one_starts_knows_who_it_is_and_stops
        life::ends_are_told_apart
        life::one_that_ignores_the_signal_is_killed_after_its_grace
        life::it_outlives_the_node_and_the_guard
        life::checks_are_asked_inside
        life::strays_are_taken_away
        life::the_engine_has_exactly_what_the_description_says
        output::it_is_read_by_its_end_and_followed
        limits::one_that_takes_too_much_memory_is_told_so
        limits::a_quarter_of_a_core_is_a_quarter
        limits::its_use_is_seen
        refusals::each_names_its_field_and_leaves_nothing;
    Rootless rootless:
        life::one_starts_knows_who_it_is_and_stops
        life::ends_are_told_apart
        life::one_that_ignores_the_signal_is_killed_after_its_grace
        life::it_outlives_the_node_and_the_guard
        life::checks_are_asked_inside
        life::strays_are_taken_away
        output::it_is_read_by_its_end_and_followed
        limits::what_is_not_kept_is_named
        limits::its_use_is_seen
        refusals::each_names_its_field_and_leaves_nothing;
}
