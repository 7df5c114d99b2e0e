//! The program: libFuzzer around the target that the environment names.
#![no_main]

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use mesh_fuzz::{SEEDS, Target, VARIABLE};
use std::path::Path;
use std::process::exit;
use std::sync::OnceLock;

static TARGET: OnceLock<&Target> = OnceLock::new();

fuzz_target!(
    init: { TARGET.get_or_init(chosen); },
    |data: &[u8]| {
        (TARGET.get_or_init(chosen).run)(data);
    }
);

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let target = TARGET.get_or_init(chosen);
    let form = target
        .form()
        .filter(|(at, _)| *at < size && !seed.is_multiple_of(4));
    let changed = form.and_then(|(at, change)| {
        let mut alter = |bytes: &mut Vec<u8>| {
            let size = bytes.len();
            bytes.resize(size + 16, 0);
            let size = fuzzer_mutate(bytes, size, size + 16);
            bytes.truncate(size);
        };
        let message = change(&data[at..size], seed, &mut alter)?;
        let size = at + message.len();
        // Half of a message would be none.
        (size <= max_size).then(|| {
            data[at..size].copy_from_slice(&message);
            size
        })
    });
    changed.unwrap_or_else(|| fuzzer_mutate(data, size, max_size))
});

/// The target that is asked for. Does not return if there is none, or if seeds are asked for.
fn chosen() -> &'static Target {
    let name = std::env::var(VARIABLE).unwrap_or_default();
    let Some(target) = mesh_fuzz::target(&name) else {
        let names: Vec<&str> = mesh_fuzz::TARGETS
            .iter()
            .map(|target| target.name)
            .collect();
        eprintln!("{VARIABLE} is {name:?}, not one of {}", names.join(", "));
        exit(2);
    };
    let Some(to) = std::env::var_os(SEEDS) else {
        return target;
    };
    let from = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("seeds")
        .join(target.name);
    match target.write_seeds(&from, Path::new(&to)) {
        Ok(_) => exit(0),
        Err(error) => {
            eprintln!("{error}");
            exit(2);
        }
    }
}
