//! What the fuzzers have found worth keeping (`fuzz/corpus`), run once.
#![allow(unsafe_code, unreachable_pub, clippy::unwrap_used, clippy::print_stderr)]

#[path = "../../fuzz/targets/mod.rs"]
mod targets;

use std::fs;
use std::path::Path;

#[test]
fn every_kept_input_passes() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    for (name, run) in targets::ALL {
        let mut count = 0;
        for entry in fs::read_dir(corpora.join(name)).unwrap() {
            let path = entry.unwrap().path();
            // Seen only when it fails.
            eprintln!("{}", path.display());
            run(&fs::read(path).unwrap());
            count += 1;
        }
        assert!(count > 30, "{name} has a corpus of {count}");
    }
}
