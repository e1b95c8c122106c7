//! Files in memory: mapped where they can be. The one file of this module with unsafe code.
#![allow(unsafe_code)]

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// A whole file in memory, read-only, its pages loaded as they are touched. Page-aligned. A pipe or a device, such as
/// `/dev/stdin`, is read to its end instead.
///
/// The file must not be shortened or written in place while it is mapped: the bytes would change
/// under their readers, which [`Map::changed`] tells afterwards, and touching a page past a new end ends the process by SIGBUS, unless
/// [`guard_maps`] was called. Replacing the file by renaming another over it is safe, and is what
/// [`AtomicFile`](super::AtomicFile) does.
#[derive(Debug)]
pub struct Map(Content);

#[derive(Debug)]
enum Content {
    // The guard goes first.
    Mapped { _guarded: guard::Range, map: memmap2::Mmap, file: File, path: PathBuf, was: Metadata },
    Read(Words),
}

impl Map {
    /// Maps the file at `path`, or reads it if it is no regular file; an empty file gives no bytes.
    ///
    /// # Errors
    /// Those of opening, reading and mapping; a folder cannot be mapped.
    pub fn open(path: &Path) -> io::Result<Map> {
        let mut file = File::open(path)?;
        let meta = file.metadata()?;
        if meta.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if !meta.is_file() {
            return Words::read(&mut file).map(|words| Map(Content::Read(words)));
        }
        if meta.len() == 0 {
            return Ok(Map(Content::Read(Words::default())));
        }
        // SAFETY: the map is private to this value, read-only, and only handed out as `&[u8]` bound to
        // its life. That nobody changes the file meanwhile cannot be enforced by any program; it is the
        // documented condition of this type, and no value of a byte is invalid for the types read from it.
        let map = unsafe { memmap2::Mmap::map(&file) }?;
        Ok(Map(Content::Mapped { _guarded: guard::Range::new(&map), map, file, path: path.to_owned(), was: meta }))
    }

    /// The bytes of the file.
    pub fn bytes(&self) -> &[u8] {
        match &self.0 {
            Content::Mapped { map, .. } => map,
            Content::Read(words) => words.bytes(),
        }
    }

    /// The path of the mapped file, if the file has been written or shortened since: by its length and the time of its last
    /// change. That another was renamed over it changes nothing.
    pub fn changed(&self) -> Option<&Path> {
        let Content::Mapped { file, path, was, .. } = &self.0 else { return None };
        let same = |now: Metadata| now.len() == was.len() && now.modified().ok() == was.modified().ok();
        (!file.metadata().is_ok_and(same)).then_some(path)
    }

    /// Whether the bytes lie in a mapped file.
    pub fn is_mapped(&self) -> bool {
        matches!(self.0, Content::Mapped { .. })
    }
}

/// Bytes in memory, aligned for any element type.
#[derive(Debug, Default)]
pub(super) struct Words {
    words: Vec<u64>,
    len: usize,
}

impl Words {
    /// So many zeros.
    pub fn zeros(len: usize) -> Words {
        Words { words: vec![0; len.div_ceil(8)], len }
    }

    /// All that comes, to its end.
    fn read(from: &mut impl Read) -> io::Result<Words> {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes)?;
        let mut words = Words::zeros(bytes.len());
        words.bytes_mut().copy_from_slice(&bytes);
        Ok(words)
    }

    pub fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words)[..self.len]
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.words)[..self.len]
    }
}

/// From now on a mapped file that is shortened by somebody does not end the process: what was beyond its new end reads as
/// zeros. What is computed from them is wrong; searches say so afterwards ([`Map::changed`]).
///
/// This takes the process's handler for SIGBUS, which is why the library does not do it by itself: that is for the program
/// to decide. Faults outside of maps of this library go on to the handler that was there before. Does nothing where there
/// is no such signal, and when called again.
pub fn guard_maps() {
    guard::install();
}

#[cfg(unix)]
mod guard {
    use std::mem::MaybeUninit;
    use std::ptr;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

    use libc::{c_int, c_void, sigaction, siginfo_t};

    /// Where a map lies; `start` is 0 while it is nobody's. Places are used again, never freed: a handler may be reading.
    #[derive(Debug)]
    struct Place {
        start: AtomicUsize,
        end: AtomicUsize,
        next: *const Place,
    }

    impl Place {
        /// The end of the map that lies here, if the address is within.
        fn end_around(&self, address: usize) -> Option<usize> {
            let start = self.start.load(Ordering::Acquire);
            let end = self.end.load(Ordering::Acquire);
            // Nobody's, or somebody else's by now: then it was not the map of the thread that faulted.
            let stays = start != 0 && start == self.start.load(Ordering::Acquire);
            (stays && (start..end).contains(&address)).then_some(end)
        }
    }

    /// The first of all places.
    static PLACES: AtomicPtr<Place> = AtomicPtr::new(ptr::null_mut());

    /// What handled SIGBUS before.
    static BEFORE: OnceLock<sigaction> = OnceLock::new();

    /// The bytes of a map, for as long as they are mapped.
    #[derive(Debug)]
    pub struct Range(&'static Place);

    // SAFETY: a place has atomic numbers and a pointer that never changes, to a place that is never freed.
    unsafe impl Send for Range {}
    // SAFETY: as above.
    unsafe impl Sync for Range {}

    /// All places, from the last one made.
    fn places() -> impl Iterator<Item = &'static Place> {
        // SAFETY: places are leaked boxes, and `next` is set before one is published.
        let at = |place: *const Place| unsafe { place.as_ref() };
        std::iter::successors(at(PLACES.load(Ordering::Acquire)), move |place| at(place.next))
    }

    impl Range {
        pub fn new(bytes: &[u8]) -> Range {
            let (start, end) = (bytes.as_ptr() as usize, bytes.as_ptr() as usize + bytes.len());
            let free = |place: &Place| {
                place.start.compare_exchange(0, usize::MAX, Ordering::AcqRel, Ordering::Relaxed).is_ok()
            };
            let place = places().find(|place| free(place)).unwrap_or_else(Range::another);
            place.end.store(end, Ordering::Release);
            place.start.store(start, Ordering::Release);
            Range(place)
        }

        fn another() -> &'static Place {
            let place = Place { start: usize::MAX.into(), end: 0.into(), next: ptr::null() };
            let place = Box::leak(Box::new(place));
            let mut first = PLACES.load(Ordering::Acquire);
            loop {
                place.next = first;
                match PLACES.compare_exchange(first, place, Ordering::AcqRel, Ordering::Acquire) {
                    Ok(_) => return place,
                    Err(now) => first = now,
                }
            }
        }
    }

    impl Drop for Range {
        fn drop(&mut self) {
            self.0.start.store(0, Ordering::Release);
        }
    }

    pub fn install() {
        // SAFETY: the structs are zeroed, as sigaction is documented to take them, and the handler has the signature that
        // SA_SIGINFO asks for. It runs on the alternative stack if there is one, as the handlers of std do.
        BEFORE.get_or_init(|| unsafe {
            let mut before = MaybeUninit::<sigaction>::zeroed().assume_init();
            libc::sigaction(libc::SIGBUS, ptr::null(), &mut before);
            before
        });
        // SAFETY: as above.
        unsafe {
            let mut ours = MaybeUninit::<sigaction>::zeroed().assume_init();
            ours.sa_sigaction = on_fault as extern "C" fn(c_int, *mut siginfo_t, *mut c_void) as usize;
            ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            libc::sigaction(libc::SIGBUS, &ours, ptr::null_mut());
        }
    }

    /// Does only what a handler may: reads atomic numbers and makes system calls.
    extern "C" fn on_fault(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
        // SAFETY: the kernel gives a valid `info` with SA_SIGINFO.
        let address = unsafe { (*info).si_addr() } as usize;
        // SAFETY: sysconf has no conditions.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
        if let Some(end) = places().find_map(|place| place.end_around(address)) {
            let from = address / page * page;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
            // SAFETY: the pages lie in a map of ours, which the thread that faulted holds on to while it reads it. They are
            // replaced by pages that read as zeros, which are valid bytes; the rest of the map stays.
            let zeros = unsafe { libc::mmap(from as *mut c_void, end - from, libc::PROT_READ, flags, -1, 0) };
            if zeros != libc::MAP_FAILED {
                return;
            }
        }
        let before = BEFORE.get();
        match before.map_or(libc::SIG_DFL, |before| before.sa_sigaction) {
            libc::SIG_DFL | libc::SIG_IGN => {
                // SAFETY: back to what ends the process; the fault comes again as soon as this returns.
                unsafe { libc::signal(signal, libc::SIG_DFL) };
            }
            handler if before.is_some_and(|before| before.sa_flags & libc::SA_SIGINFO != 0) => {
                // SAFETY: whoever installed it with SA_SIGINFO gave a function of this signature.
                let handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) =
                    unsafe { std::mem::transmute(handler) };
                handler(signal, info, context);
            }
            handler => {
                // SAFETY: whoever installed it without SA_SIGINFO gave a function of this signature.
                let handler: extern "C" fn(c_int) = unsafe { std::mem::transmute(handler) };
                handler(signal);
            }
        }
    }
}

#[cfg(not(unix))]
mod guard {
    /// Elsewhere mapped files cannot be shortened.
    #[derive(Debug)]
    pub struct Range;

    impl Range {
        pub fn new(_: &[u8]) -> Range {
            Range
        }
    }

    pub fn install() {}
}
