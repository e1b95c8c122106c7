//! What a command leaves behind: all of its files or none, whatever comes in between; and inputs that are no files or change.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use crate::sandbox::{Sandbox, values};

const N: usize = 500;
const DIM: usize = 8;
const Q: usize = 30;

const RANGE: &str = "range --base b.npy --queries q.npy --metric l2 --radius 4 \
                     --offsets o.npy --ids i.npy --distances d.npy --stats-json s.json";

/// A base and queries, and an old file for each output of [`RANGE`] but the last.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.f32("b.npy", &[N, DIM], &values(N * DIM, 1));
    sandbox.f32("q.npy", &[Q, DIM], &values(Q * DIM, 2));
    for name in ["o.npy", "i.npy", "d.npy"] {
        sandbox.write(name, format!("old {name}"));
    }
    sandbox
}

/// The program as a child, with no lines of its own on the terminal.
fn command(sandbox: &Sandbox, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nearfield"));
    command.args(line.split_whitespace()).current_dir(sandbox.path(".")).env("NEARFIELD_DEVICE", "cpu");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs the program in a shell that first does what `before` says.
fn in_shell(sandbox: &Sandbox, before: &str, line: &str) -> (ExitStatus, String) {
    let done = Command::new("sh")
        .args(["-c", &format!("{before}; exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_nearfield")])
        .args(line.split_whitespace())
        .current_dir(sandbox.path("."))
        .env("NEARFIELD_DEVICE", "cpu")
        .output()
        .unwrap();
    (done.status, String::from_utf8(done.stderr).unwrap())
}

fn is_part(name: &str) -> bool {
    name.ends_with(".part")
}

/// The files without what a killed process could not take away.
fn without_parts(files: BTreeMap<String, Vec<u8>>) -> BTreeMap<String, Vec<u8>> {
    files.into_iter().filter(|(name, _)| !is_part(name)).collect()
}

/// Lets the disk be full after `blocks` of 512 bytes per file: first so that writing fails, then so that the process is
/// killed by it. Gives whether there was room.
fn with_room_for(sandbox: &Sandbox, line: &str, blocks: usize, outputs: &[&str]) -> bool {
    let before = without_parts(sandbox.files());
    let (status, said) = in_shell(sandbox, &format!("trap '' XFSZ; ulimit -f {blocks}"), line);
    let after = sandbox.files();
    if status.success() {
        assert!(
            outputs.iter().all(|name| after.get(*name) != before.get(*name)),
            "something is old at {blocks} blocks"
        );
        assert!(!after.keys().any(|name| is_part(name)), "{:?}", after.keys());
        return true;
    }
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("cannot write `") && said.contains("File too large"), "{said}");
    assert!(before == after, "{blocks} blocks: files are now {:?}", after.keys());
    let (status, _) = in_shell(sandbox, &format!("ulimit -c 0; ulimit -f {blocks}"), line);
    assert!(status.signal().is_some(), "not killed at {blocks} blocks: {status}");
    assert!(before == without_parts(sandbox.files()), "a killed process changed something at {blocks} blocks");
    false
}

#[test]
fn a_full_disk_and_a_kill_at_every_write_leave_all_old_files() {
    let sandbox = sandbox();
    let outputs = ["o.npy", "i.npy", "d.npy", "s.json"];
    let failed = (0..100).take_while(|&blocks| !with_room_for(&sandbox, RANGE, blocks, &outputs)).count();
    assert!((2..100).contains(&failed), "failed {failed} times");
    assert_eq!(sandbox.read_i64("o.npy").0, [Q + 1]);
}

#[test]
fn a_full_disk_and_a_kill_leave_the_old_index_and_what_is_said_of_it() {
    let sandbox = sandbox();
    sandbox.write("x.index", include_bytes!("../data/faiss/ivf_sq8.index"));
    sandbox.write("x.nf", "old");
    sandbox.write("x.json", "old");
    let line = "import x.index --out x.nf --json x.json";
    let failed =
        (0..400).step_by(4).take_while(|&blocks| !with_room_for(&sandbox, line, blocks, &["x.nf", "x.json"])).count();
    assert!(failed > 5, "failed {failed} times");
    sandbox.run("info x.nf").ok();
}

#[test]
fn what_a_killed_process_left_goes_with_the_next() {
    let sandbox = sandbox();
    in_shell(&sandbox, "ulimit -c 0; ulimit -f 1", RANGE);
    assert!(sandbox.files().keys().any(|name| is_part(name)), "nothing to take away");
    sandbox.run(RANGE).ok();
    assert!(!sandbox.files().keys().any(|name| is_part(name)), "{:?}", sandbox.files().keys());
}

fn pipe(sandbox: &Sandbox, name: &str) {
    assert!(Command::new("mkfifo").arg(sandbox.path(name)).status().unwrap().success());
}

/// A process that has staged `i.npy` and waits for a reader of the pipe `d.npy`.
fn waiting(sandbox: &Sandbox, before: &str) -> Child {
    pipe(sandbox, "p.npy");
    let line = "search --base b.npy --queries q.npy --metric l2 -k 3 --ids i.npy --distances p.npy";
    let mut child = Command::new("sh")
        .args(["-c", &format!("{before}exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_nearfield")])
        .args(line.split_whitespace())
        .current_dir(sandbox.path("."))
        .env("NEARFIELD_DEVICE", "cpu")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let full = |path: &Path| is_part(path.to_str().unwrap()) && fs::metadata(path).is_ok_and(|m| m.len() > 700);
    for _ in 0..3000 {
        let mut entries = fs::read_dir(sandbox.path(".")).unwrap().map(|e| e.unwrap().path());
        if entries.any(|path| full(&path)) {
            return child;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    child.kill().unwrap();
    panic!("nothing was staged: {}", child.wait().unwrap());
}

fn send(child: &Child, signal: &str) {
    assert!(Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).status().unwrap().success());
}

#[test]
fn a_signal_removes_what_was_being_written() {
    for (name, number) in [("INT", 2), ("TERM", 15), ("HUP", 1)] {
        let sandbox = sandbox();
        let before = sandbox.files();
        let mut child = waiting(&sandbox, "");
        send(&child, name);
        assert_eq!(child.wait().unwrap().signal(), Some(number), "the process ends as by the signal");
        fs::remove_file(sandbox.path("p.npy")).unwrap();
        assert!(before == sandbox.files(), "SIG{name} left {:?}", sandbox.files().keys());
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_signal_that_is_ignored_stays_ignored() {
    let sandbox = sandbox();
    let mut child = waiting(&sandbox, "trap '' INT HUP; ");
    send(&child, "INT");
    send(&child, "HUP");
    let mut came = Vec::new();
    File::open(sandbox.path("p.npy")).unwrap().read_to_end(&mut came).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(came.starts_with(b"\x93NUMPY"));
    assert_eq!(sandbox.read_i64("i.npy").0, [Q, 3]);
}

#[test]
fn outputs_to_stdout_and_to_nowhere() {
    let sandbox = sandbox();
    let search = "search --base b.npy --queries q.npy --metric l2 -k 3";
    sandbox.run(&format!("{search} --ids i.npy")).ok();
    let wanted = fs::read(sandbox.path("i.npy")).unwrap();
    let piped = command(&sandbox, &format!("{search} --ids /dev/stdout")).output().unwrap();
    assert!(piped.status.success() && piped.stdout == wanted, "{:?}", piped.stderr);
    sandbox.run(&format!("{search} --ids /dev/null --distances /dev/null")).ok();
    // An index, which is not written from its beginning to its end; what is said of it goes elsewhere.
    sandbox.run("build --base b.npy --metric l2 --out x.nf").ok();
    let piped = command(&sandbox, "build --base b.npy --metric l2 --out /dev/stdout").output().unwrap();
    assert!(piped.status.success() && piped.stdout == fs::read(sandbox.path("x.nf")).unwrap(), "{:?}", piped.stderr);
    assert!(String::from_utf8(piped.stderr).unwrap().contains("500"));
    // A file that stdout was sent to is written, too.
    let (status, said) = in_shell(&sandbox, "exec > y.npy", &format!("{search} --ids /dev/stdout"));
    assert!(status.success() && fs::read(sandbox.path("y.npy")).unwrap() == wanted, "{said}");
    let map = sandbox.run("map --base b.npy --out /dev/stdout");
    map.refused(&["`/dev/stdout`", "a .svg or a .png"]);
}

#[test]
fn inputs_from_pipes() {
    let sandbox = sandbox();
    sandbox.run("search --base b.npy --queries q.npy --metric l2 -k 3 --ids i.npy").ok();
    let wanted = sandbox.read_i64("i.npy");
    let bytes = fs::read(sandbox.path("b.npy")).unwrap();
    pipe(&sandbox, "p.npy");
    let (name, sent) = (sandbox.path("p.npy"), bytes.clone());
    let sender = std::thread::spawn(move || File::create(name).unwrap().write_all(&sent).unwrap());
    sandbox.run("search --base p.npy --queries q.npy --metric l2 -k 3 --ids j.npy").ok();
    sender.join().unwrap();
    assert_eq!(sandbox.read_i64("j.npy"), wanted);
    let mut line = command(&sandbox, "search --base /dev/stdin --queries q.npy --metric l2 -k 3 --ids k.npy");
    let mut child = line.stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&bytes).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(sandbox.read_i64("k.npy"), wanted);
    // And where stdin is a file.
    let (status, said) =
        in_shell(&sandbox, "exec < b.npy", "search --base /dev/stdin --queries q.npy --metric l2 -k 3 --ids l.npy");
    assert!(status.success(), "{said}");
    assert_eq!(sandbox.read_i64("l.npy"), wanted);
}

/// Starts a search whose queries come from a pipe, changes the file that it has opened by then, and sends the queries.
fn changed_meanwhile(file: &str, args: &str, change: impl Fn(&Path)) {
    let sandbox = sandbox();
    let many = 40_000;
    sandbox.f32("b.npy", &[many, DIM], &values(many * DIM, 1));
    sandbox.run("build --base b.npy --metric l2 --screen none --out x.nf").ok();
    let queries = fs::read(sandbox.path("q.npy")).unwrap();
    pipe(&sandbox, "p.npy");
    let before = sandbox.files();
    let child =
        command(&sandbox, &format!("{args} --queries p.npy -k 3 --ids i.npy --distances d.npy")).spawn().unwrap();
    // This waits until the program opens the pipe, which it does after the base.
    let mut sender = OpenOptions::new().write(true).open(sandbox.path("p.npy")).unwrap();
    change(&sandbox.path(file));
    sender.write_all(&queries).unwrap();
    drop(sender);
    let done = child.wait_with_output().unwrap();
    let said = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(2), "{}: {said}", done.status);
    assert!(said.contains(&format!("error: `{file}` was changed ")) && said.contains(" while it was in use"), "{said}");
    for name in ["o.npy", "i.npy", "d.npy"] {
        assert_eq!(fs::read(sandbox.path(name)).unwrap(), before[name], "{name}");
    }
    assert!(!sandbox.files().keys().any(|name| is_part(name)));
}

#[test]
fn inputs_that_change_meanwhile_are_an_error_and_no_signal() {
    for (file, args) in [("b.npy", "search --base b.npy --metric l2"), ("x.nf", "search --index-file x.nf")] {
        // Shorter: the pages beyond are gone, and reading them is a fault.
        changed_meanwhile(file, args, |path| {
            OpenOptions::new().write(true).open(path).unwrap().set_len(5000).unwrap();
        });
        // Longer.
        changed_meanwhile(file, args, |path| {
            OpenOptions::new().append(true).open(path).unwrap().write_all(b"more").unwrap();
        });
        // As long as before.
        changed_meanwhile(file, args, |path| {
            let mut bytes = fs::read(path).unwrap();
            bytes[100_000..200_000].fill(0);
            OpenOptions::new().write(true).open(path).unwrap().write_all(&bytes).unwrap();
        });
        // Another file of the same name, length and time.
        changed_meanwhile(file, args, |path| {
            let beside = path.with_extension("new");
            fs::copy(path, &beside).unwrap();
            let time = fs::metadata(path).unwrap().modified().unwrap();
            File::options().write(true).open(&beside).unwrap().set_modified(time).unwrap();
            fs::rename(beside, path).unwrap();
        });
    }
}

#[test]
fn slices_of_big_ann() {
    let sandbox = sandbox();
    let (base, head) = (values(N * DIM, 1), [1_000_000_000u32, DIM as u32]);
    let bytes = [bytemuck::cast_slice::<u32, u8>(&head), bytemuck::cast_slice(&base)].concat();
    sandbox.write("x.fbin", &bytes);
    sandbox.write("x.fbin.crop_nb_500", &bytes);
    sandbox.run("search --base b.npy --queries q.npy --metric l2 -k 3 --ids i.npy").ok();
    let wanted = sandbox.read_i64("i.npy");
    let said = sandbox.run("search --base x.fbin --queries q.npy --metric l2 -k 3 --ids j.npy").ok();
    assert_eq!(said.err, "note: `x.fbin`: its header says 1000000000 rows, the file ends after 500: these are read\n");
    assert_eq!(sandbox.read_i64("j.npy"), wanted);
    let said = sandbox.run("search --base x.fbin.crop_nb_500 --queries q.npy --metric l2 -k 3 --ids k.npy").ok();
    assert_eq!(said.err, "");
    assert_eq!(sandbox.read_i64("k.npy"), wanted);
}

#[test]
fn booleans_by_jaccard_and_an_output_that_is_an_input() {
    let sandbox = sandbox();
    let mask: Vec<bool> = (0..20 * 6).map(|i| i * i % 7 < 3).collect();
    sandbox.bools("m.npy", &[20, 6], &mask);
    sandbox.run("search --base m.npy --queries m.npy --metric jaccard -k 20 --ids j.npy --distances e.npy").ok();
    let (ids, distances) = (sandbox.read_i64("j.npy").1, sandbox.read_f32("e.npy").1);
    for (i, (&id, &distance)) in ids.iter().zip(&distances).enumerate() {
        let (a, b) = (&mask[i / 20 * 6..][..6], &mask[id as usize * 6..][..6]);
        let count = |both: fn(bool, bool) -> bool| a.iter().zip(b).filter(|&(&x, &y)| both(x, y)).count() as f32;
        let either = count(|x, y| x | y);
        assert_eq!(distance, if either == 0.0 { 0.0 } else { count(|x, y| x != y) / either });
    }
    // The archive is the input, whatever array of it is read.
    sandbox.write("one.npz", include_bytes!("../data/format/one.npz"));
    let line = "search --base one.npz:only --queries one.npz --metric l2 -k 1 --ids one.npz";
    sandbox.run(line).refused(&["`one.npz` is an input"]);
}

#[test]
fn a_radius_of_minus_infinity() {
    let sandbox = sandbox();
    let line = "range --base b.npy --queries q.npy --offsets o.npy --ids i.npy --radius -inf";
    sandbox.run(&format!("{line} --metric ip")).ok();
    assert_eq!(sandbox.read_i64("o.npy").1[Q], (N * Q) as i64, "every similarity is at least that");
    sandbox.run(&format!("{line} --metric l2")).ok();
    assert_eq!(sandbox.read_i64("o.npy").1, [0; Q + 1], "no distance is at most that");
}

/// Also where there is no runtime folder, which a driver of Mesa would complain about.
#[test]
fn nothing_is_said_without_need() {
    let sandbox = sandbox();
    let done =
        command(&sandbox, "devices").env_remove("XDG_RUNTIME_DIR").env_remove("WAYLAND_DISPLAY").output().unwrap();
    assert!(done.status.success());
    assert_eq!(String::from_utf8(done.stderr).unwrap(), "");
}
