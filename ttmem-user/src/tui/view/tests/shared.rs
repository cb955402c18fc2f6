//! What `ttmem watch` shows: the totals of a table, and where the rest is.

use super::*;
use crate::fixture::shared::{Shared, shared};

#[test]
fn golden_shared_overview() {
    for (name, how) in [
        ("running", Shared::Running),
        ("inexact", Shared::Inexact),
        ("exited", Shared::Exited),
        ("replaced", Shared::Replaced),
        ("unwatched", Shared::Unwatched),
    ] {
        for (width, height) in [(80, 24), (160, 40)] {
            let screen = after("", &shared(how), width, height);
            assert_snapshot!(format!("shared_{name}_{width}x{height}"), screen);
        }
    }
}

/// Of what is not in a table no view says a number.
#[test]
fn what_is_not_shared_is_not_made_up() {
    let running = shared(Shared::Running);
    for key in "23456789".chars() {
        let screen = after(&key.to_string(), &running, 80, 24);
        let says = |text: &str| screen.contains(text);
        let elsewhere = says("ttmem that attached") && !says("ttmem that …");
        assert!(elsewhere || says("whether allocations failed is not known"), "{screen}");
    }
    let failed = Snapshot {
        failures: crate::ledger::snapshot::FailuresSnapshot {
            count: Some(2),
            ..running.failures.clone()
        },
        ..running
    };
    for key in ["7", "i"] {
        let screen = after(key, &failed, 80, 24);
        assert!(screen.contains("failed allocations: 2; they are with the ttmem"), "{screen}");
    }
    assert_snapshot!("shared_circular_80x24", after("4", &failed, 80, 24));
    assert_snapshot!("shared_health_80x24", after("9", &shared(Shared::Inexact), 80, 24));
}
