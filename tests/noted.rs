//! What could not be tested here, so that no test passes in silence: `scripts/test` names it all at its end.

use std::io::Write;

/// Says that something was not tested, past the test runner, which hides what passing tests print; and notes it in the file
/// that `NEARFIELD_TEST_NOTES` names.
pub fn not_tested(what: &str) {
    let _ = writeln!(std::io::stderr(), "\n*** NOT TESTED: {what}");
    if let Some(path) = std::env::var_os("NEARFIELD_TEST_NOTES") {
        let file = std::fs::OpenOptions::new().append(true).create(true).open(&path);
        let written = file.and_then(|mut file| writeln!(file, "{what}"));
        written.unwrap_or_else(|e| panic!("NEARFIELD_TEST_NOTES={}: {e}", path.display()));
    }
}
