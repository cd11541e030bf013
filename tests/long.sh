#!/usr/bin/env bash
# The long forms of two tests on real hosts with real cuts; root, iproute2 and nftables are needed.
#
#   tests/long.sh rounds [ROUNDS]             a cluster split three to two, with random timings; 50 rounds
#   tests/long.sh soak [SECONDS] [SERVICES]   random faults on five nodes; 1800 seconds, 50 services
#
# QUORATE_SEED repeats the timings and faults of a run, which prints its own; QUORATE_KEEP=1 keeps the
# folder of a run that failed.
set -euo pipefail
cd "$(dirname "$0")/.."

export QUORATE_REQUIRE=netns
case "${1:-}" in
  rounds)
    export QUORATE_ROUNDS="${2:-50}"
    test=split::a_split_of_three_to_two_stops_each_service_by_its_deadline_and_starts_it_elsewhere_only_after
    ;;
  soak)
    export QUORATE_SOAK="${2:-1800}" QUORATE_SERVICES="${3:-50}"
    test=soak::random_faults_run_nothing_twice_lose_no_write_and_leave_all_work_running
    ;;
  *)
    sed -n 's/^# \{0,1\}//p' "$0" | sed 1d >&2
    exit 2
    ;;
esac
exec cargo test --workspace --test partition -- --exact --nocapture "$test"
