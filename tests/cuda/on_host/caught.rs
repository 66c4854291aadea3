//! Tests of the tester: what each flavour finds of the bugs in `tests/cuda_on_host/planted/`, and that
//! it finds nothing in their correct twins.

use super::build::{Flavour, Kernels};
use super::{Outcome, Run};
use crate::planted::CASES;

/// Words of each run's report on a planted bug; `None` where the run need not see the bug.
struct Caught {
    name: &'static str,
    plain: Option<&'static str>,
    address: Option<&'static str>,
    thread: Option<&'static str>,
}

/// The test itself fails, on wrong numbers.
const NUMBERS: Option<&str> = Some("left == right");
const RACE: Option<&str> = Some("ThreadSanitizer: data race");

static EXPECTED: [Caught; 14] = [
    Caught { name: "removed_barrier", plain: NUMBERS, address: NUMBERS, thread: RACE },
    Caught { name: "removed_warp_barrier", plain: NUMBERS, address: NUMBERS, thread: RACE },
    Caught { name: "missing_fence", plain: None, address: None, thread: RACE },
    Caught { name: "lost_update", plain: None, address: None, thread: RACE },
    Caught {
        name: "divergent_barrier",
        plain: Some("divergent __syncthreads: thread (0,0,0) waits at kernels/planted/"),
        address: Some("divergent __syncthreads"),
        thread: Some("divergent __syncthreads"),
    },
    Caught {
        name: "divergent_shuffle",
        plain: Some("deadlock: thread (0,0,0) waits at kernels/planted/"),
        address: Some("deadlock"),
        thread: Some("deadlock"),
    },
    Caught { name: "missing_lane", plain: NUMBERS, address: NUMBERS, thread: NUMBERS },
    Caught { name: "uninitialised_shared", plain: NUMBERS, address: NUMBERS, thread: NUMBERS },
    Caught {
        name: "static_shared_overrun",
        plain: None,
        address: Some("global-buffer-overflow"),
        thread: None,
    },
    Caught {
        name: "dynamic_shared_overrun",
        plain: Some("a write 0 bytes past the end of the 240 bytes of dynamic shared memory"),
        address: Some("use-after-poison"),
        thread: None,
    },
    Caught {
        name: "read_past_end",
        plain: None,
        address: Some("heap-buffer-overflow"),
        thread: None,
    },
    Caught {
        name: "write_past_end",
        plain: Some("a write 0 bytes past the end of 240 bytes of device memory"),
        address: Some("heap-buffer-overflow"),
        thread: Some("a write 0 bytes past the end of 240 bytes of device memory"),
    },
    Caught {
        name: "misaligned_load",
        plain: None,
        address: Some("misaligned address 0x"),
        thread: None,
    },
    Caught {
        name: "saturating_cast",
        plain: None,
        address: Some("is outside the range of representable values of type 'int'"),
        thread: None,
    },
];

fn run(flavour: Flavour, case: &str, kernels: &Kernels) -> Outcome {
    let tests = ["--exact", "planted::planted_case"];
    let variables = [("MEDCAM_ON_HOST_CASE", case)];
    Run { flavour, order: "forward", tests: &tests, variables: &variables }.of(kernels)
}

fn catches(flavour: Flavour, expected: fn(&Caught) -> Option<&'static str>) {
    let correct = Kernels::of(CASES.iter().map(|case| case.programs[0]).collect());
    let outcome = run(flavour, "correct", &correct);
    assert!(outcome.passed, "{flavour:?}, without bugs:\n{}", outcome.text);
    let mut wrong = String::new();
    for (case, caught) in CASES.iter().zip(&EXPECTED) {
        assert_eq!(case.name, caught.name);
        let Some(says) = expected(caught) else { continue };
        let outcome = run(flavour, case.name, &Kernels::of(vec![case.programs[1]]));
        if outcome.passed || !outcome.text.contains(says) {
            wrong += &format!("{flavour:?}, {}: not {says:?}, but\n{}\n", case.name, outcome.text);
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn plain() {
    catches(Flavour::Plain, |caught| caught.plain);
}

#[test]
fn address_sanitizer() {
    catches(Flavour::Address, |caught| caught.address);
}

#[test]
fn thread_sanitizer() {
    catches(Flavour::Thread, |caught| caught.thread);
}

/// A program that was not built for the host is refused by name, not run as something else.
#[test]
fn a_program_without_a_library_is_refused() {
    let outcome = run(Flavour::Plain, CASES[0].name, &Kernels::of(vec![CASES[1].programs[0]]));
    assert!(!outcome.passed, "{}", outcome.text);
    let says = "0 libraries for the host have exactly the kernels removed_barrier_f32";
    assert!(outcome.text.contains(says), "{}", outcome.text);
}
