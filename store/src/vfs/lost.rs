//! Pages of maps that the disk can't give again read as zeros, instead of killing the process.
//!
//! Populating a range turns an error of the disk into a value. But the kernel may take a page back
//! between that and the moment when somebody touches it; if the disk then fails, the touch is a
//! SIGBUS. The handler here puts a page of zeros in its place, and says first that the map has lost
//! one. Zeros are no batch and have no valid checksum, so who verifies what it has read notices; who
//! can't verify asks afterwards whether a map has lost anything since it began.
//!
//! Everything else goes to whoever handled it before, by default to the end of the process: a fault at
//! another place or of another kind, and a signal that somebody sent.
#![expect(
    unsafe_code,
    reason = "a signal can't be handled in safe Rust, nor a page be replaced"
)]

use std::ffi::c_int;
use std::ops::Range;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Mutex, OnceLock};
use std::{io, mem};

use libc::{c_void, siginfo_t};

use crate::sync::lock;

/// A handler with `SA_SIGINFO`.
type Handler = extern "C" fn(c_int, *mut siginfo_t, *mut c_void);
/// A handler without.
type PlainHandler = extern "C" fn(c_int);

/// Maps whose places are kept together. There are as many blocks as maps ask for: one per segment
/// and index file that is open.
const BLOCK_PLACES: usize = 256;

static FIRST: Block = Block::new();
/// Places that no map has at present; those of the first block before anybody asked.
static FREE: Mutex<Option<Vec<&'static Place>>> = Mutex::new(None);
static BROKEN_MAPS: AtomicU64 = AtomicU64::new(0);
/// What a SIGBUS did before, and the bytes of a page.
static BEFORE: OnceLock<(libc::sigaction, usize)> = OnceLock::new();
static IS_INSTALLED: Mutex<bool> = Mutex::new(false);

/// Maps that have lost pages, since the process began; some may be counted twice.
pub(super) fn broken_maps() -> u64 {
    // What was read from maps before this is read before the number is.
    fence(Ordering::SeqCst);
    BROKEN_MAPS.load(Ordering::SeqCst)
}

/// Where a map lies, as the handler can read it.
struct Place {
    /// Address of the first byte; 0 if it is no map's.
    start: AtomicUsize,
    /// Address after the last byte.
    end: AtomicUsize,
    has_lost: AtomicBool,
    /// It is among [`BROKEN_MAPS`].
    is_counted: AtomicBool,
}

/// Places, never freed, so that the handler can walk over them without a lock.
struct Block {
    places: [Place; BLOCK_PLACES],
    next: AtomicPtr<Block>,
}

impl Block {
    const fn new() -> Self {
        Self {
            places: [const {
                Place {
                    start: AtomicUsize::new(0),
                    end: AtomicUsize::new(0),
                    has_lost: AtomicBool::new(false),
                    is_counted: AtomicBool::new(false),
                }
            }; BLOCK_PLACES],
            next: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// The block behind this one.
    fn next(&self) -> Option<&'static Block> {
        // SAFETY: null, or a block that `free_place` leaked.
        unsafe { self.next.load(Ordering::Acquire).as_ref() }
    }
}

/// A range of addresses whose lost pages read as zeros. Drop it before the map goes.
pub(super) struct Guarded(&'static Place);

impl Guarded {
    /// Guards `range`, which must be a map's.
    ///
    /// # Errors
    /// The system's, if SIGBUS can't be handled.
    pub(super) fn new(range: &Range<*const u8>) -> io::Result<Self> {
        install()?;
        let place = free_place();
        place.has_lost.store(false, Ordering::Relaxed);
        place.is_counted.store(false, Ordering::Relaxed);
        place.end.store(range.end.addr(), Ordering::Relaxed);
        place.start.store(range.start.addr(), Ordering::Release);
        Ok(Self(place))
    }

    /// Whether a page of it was lost.
    pub(super) fn has_lost(&self) -> bool {
        self.0.has_lost.load(Ordering::SeqCst)
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.0.start.store(0, Ordering::Release);
        lock(&FREE)
            .as_mut()
            .expect("it was taken from there")
            .push(self.0);
    }
}

fn free_place() -> &'static Place {
    let mut free = lock(&FREE);
    let free = free.get_or_insert_with(|| FIRST.places.iter().rev().collect());
    if free.is_empty() {
        let block: &'static Block = Box::leak(Box::new(Block::new()));
        let mut last = &FIRST;
        while let Some(next) = last.next() {
            last = next;
        }
        last.next
            .store(ptr::from_ref(block).cast_mut(), Ordering::Release);
        free.extend(block.places.iter().rev());
    }
    free.pop().expect("a block has places")
}

/// Handles SIGBUS from now on.
fn install() -> io::Result<()> {
    let mut is_installed = lock(&IS_INSTALLED);
    if *is_installed {
        return Ok(());
    }
    let check = |result: c_int| match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    };
    // SAFETY: all zeros is a valid `sigaction`: the default action, no flags, an empty mask.
    let (mut before, mut ours): (libc::sigaction, libc::sigaction) = unsafe { mem::zeroed() };
    // SAFETY: asks for the present action, into a place of its type.
    check(unsafe { libc::sigaction(libc::SIGBUS, ptr::null(), &raw mut before) })?;
    // Before the handler can run, which reads it.
    let page = rustix::param::page_size();
    BEFORE.get_or_init(|| (before, page));
    let handler: Handler = on_bus_error;
    ours.sa_sigaction = handler as usize;
    // On the thread's signal stack if it has one, as whoever was asked before may need it.
    ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: the handler does nothing but what may be done in one (signal-safety(7)): it reads and
    // writes atomics, and calls `mmap`, a bare system call, `sigaction` and `raise`.
    check(unsafe { libc::sigaction(libc::SIGBUS, &raw const ours, ptr::null_mut()) })?;
    *is_installed = true;
    Ok(())
}

extern "C" fn on_bus_error(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel gives a handler with SA_SIGINFO a valid `siginfo_t`.
    let code = unsafe { (*info).si_code };
    // A page that can't be had has this code; a misaligned access and memory that fails have others, and
    // who sent a signal has one that is not positive (sigaction(2)).
    let address = (code == libc::BUS_ADRERR).then(|| {
        // SAFETY: as above, and with this code it has an address.
        unsafe { (*info).si_addr().addr() }
    });
    // SAFETY: the address of this thread's `errno`, which the interrupted code may be about to read.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above, it is valid for reads.
    let saved = unsafe { *errno };
    if !address.is_some_and(put_zeros) {
        pass_on(signal, info, context, code > 0);
    }
    // SAFETY: as above, it is valid for writes.
    unsafe { *errno = saved };
}

/// Puts a page of zeros under `address`, if it lies in a guarded range.
fn put_zeros(address: usize) -> bool {
    let mut block = Some(&FIRST);
    while let Some(places) = block {
        for place in &places.places {
            let start = place.start.load(Ordering::Acquire);
            let end = place.end.load(Ordering::Acquire);
            // The second look tells whether `end` is that of another map, which just came.
            let is_in = start != 0 && (start..end).contains(&address);
            if is_in && place.start.load(Ordering::Acquire) == start {
                return replace(address, place);
            }
        }
        block = places.next();
    }
    false
}

fn replace(address: usize, place: &Place) -> bool {
    let Some((_, page)) = BEFORE.get() else {
        return false;
    };
    // Before anybody can see the zeros. Of two threads at once each counts: one that left it to the
    // other could go on with zeros that are not counted yet.
    place.has_lost.store(true, Ordering::SeqCst);
    if !place.is_counted.load(Ordering::SeqCst) {
        BROKEN_MAPS.fetch_add(1, Ordering::SeqCst);
        place.is_counted.store(true, Ordering::SeqCst);
    }
    let at = address - address % page;
    if put(at, *page) {
        return true;
    }
    // A process has so many maps, and each page that is replaced alone makes more of them: the whole
    // of this one is one. All of it is refused then.
    let start = place.start.load(Ordering::Acquire);
    let end = place.end.load(Ordering::Acquire).next_multiple_of(*page);
    put(start, end - start)
}

/// Puts `len` zeros at `at`, both whole pages, which must lie in a guarded map that this thread is
/// reading from.
fn put(at: usize, len: usize) -> bool {
    // SAFETY: the pages are of a map that this thread is reading from, so whoever owns the map still
    // holds it, and unmaps whatever lies there in the end. Each is replaced in one step: who reads it
    // meanwhile sees its bytes or zeros, and a map's bytes are plain ones, valid as either.
    let zeros = unsafe {
        libc::mmap(
            ptr::with_exposed_provenance_mut(at),
            len,
            libc::PROT_READ,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
            -1,
            0,
        )
    };
    zeros != libc::MAP_FAILED
}

/// Does what a SIGBUS did before this handler: Rust's standard library tells a stack overflow by it.
fn pass_on(signal: c_int, info: *mut siginfo_t, context: *mut c_void, is_fault: bool) {
    let Some((before, _)) = BEFORE.get() else {
        return end(signal);
    };
    match before.sa_sigaction {
        // A fault can't be ignored: the same instruction would meet it again.
        libc::SIG_IGN if !is_fault => return,
        libc::SIG_IGN | libc::SIG_DFL => return end(signal),
        handler if before.sa_flags & libc::SA_SIGINFO != 0 => {
            // SAFETY: the system gave us this address as that of a handler, and the flag says which kind.
            let handler = unsafe { mem::transmute::<usize, Handler>(handler) };
            handler(signal, info, context);
        }
        handler => {
            // SAFETY: as above, without the flag it is of the other kind.
            let handler = unsafe { mem::transmute::<usize, PlainHandler>(handler) };
            handler(signal);
        }
    }
    // A handler may leave the end to the default action and to the instruction that faulted, which runs
    // again when it returns. A signal that was sent has no such instruction.
    if !is_fault && is_default(signal) {
        end(signal);
    }
}

fn is_default(signal: c_int) -> bool {
    // SAFETY: all zeros is a valid `sigaction`, to be written over.
    let mut now: libc::sigaction = unsafe { mem::zeroed() };
    // SAFETY: asks for the present action, into a place of its type; may be done in a handler.
    let asked = unsafe { libc::sigaction(signal, ptr::null(), &raw mut now) };
    asked == 0 && now.sa_sigaction == libc::SIG_DFL
}

/// Ends the process by the signal, when its handler returns.
fn end(signal: c_int) {
    // SAFETY: all zeros is the default action; both calls may be made in a handler (signal-safety(7)).
    unsafe {
        let default: libc::sigaction = mem::zeroed();
        libc::sigaction(signal, &raw const default, ptr::null_mut());
        libc::raise(signal);
    }
}
