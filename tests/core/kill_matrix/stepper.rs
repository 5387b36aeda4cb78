//! A process that is stepped through an operation, one instruction at a time, and killed after any of them.

use core::ffi::c_int;
use core::ptr;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// How far a step took the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Taken,
    /// It has come to the end of the operation.
    Done,
}

/// A child of this process under `ptrace(2)`, stopped before its operation.
#[derive(Debug)]
pub(crate) struct Stepped {
    pid: libc::pid_t,
}

impl Stepped {
    /// Forks a process that stops, does `prepare`, then stops before and after `operation`. `None` where tracing is forbidden.
    pub(crate) fn start(prepare: impl FnOnce(), operation: impl FnOnce()) -> Option<Self> {
        // SAFETY: the child runs the engine and nothing else, and leaves by `_exit` or by a signal.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0, "fork failed");
        if pid == 0 {
            prepare();
            // SAFETY: asks to be traced by the parent, which waits for the stops; no destructors run after them.
            unsafe {
                if libc::ptrace(libc::PTRACE_TRACEME, 0, ptr::null_mut::<u8>(), ptr::null_mut::<u8>()) != 0 {
                    libc::_exit(77);
                }
                libc::raise(libc::SIGSTOP);
                operation();
                libc::raise(libc::SIGSTOP);
                libc::_exit(0)
            }
        }
        let stepped = Self { pid };
        let status = stepped.wait();
        if libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 77 {
            return None;
        }
        assert!(libc::WIFSTOPPED(status) && libc::WSTOPSIG(status) == libc::SIGSTOP, "did not begin: {status:#x}");
        // SAFETY: a stopped tracee of this process. It must not outlive a failing test.
        unsafe { libc::ptrace(libc::PTRACE_SETOPTIONS, pid, 0, libc::PTRACE_O_EXITKILL) };
        Some(stepped)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid.cast_unsigned()
    }

    /// Lets it execute one instruction; a system call is one.
    pub(crate) fn step(&self) -> Step {
        // SAFETY: a stopped tracee of this process.
        let code = unsafe { libc::ptrace(libc::PTRACE_SINGLESTEP, self.pid, 0, 0) };
        assert_eq!(code, 0, "cannot step");
        let status = self.wait();
        assert!(libc::WIFSTOPPED(status), "the process ended in the operation: status {status:#x}");
        match libc::WSTOPSIG(status) {
            libc::SIGTRAP => Step::Taken,
            libc::SIGSTOP => Step::Done,
            signal => panic!("the process got signal {signal} in the operation"),
        }
    }

    /// Where the next instruction lies. `None` where this program does not know how to find out.
    #[allow(clippy::unnecessary_wraps)] // elsewhere there is none
    pub(crate) fn address(&self) -> Option<u64> {
        #[cfg(target_arch = "x86_64")]
        return Some(self.registers().rip);
        #[cfg(not(target_arch = "x86_64"))]
        None
    }

    /// Lets it run until the instruction at `address` is the next. `None`: it cannot be stopped there.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn run_to(&self, address: u64) -> Option<Step> {
        const BREAKPOINT: u8 = 0xcc;
        let memory = File::options().read(true).write(true).open(format!("/proc/{}/mem", self.pid)).ok()?;
        let mut instruction = [0];
        memory.read_exact_at(&mut instruction, address).ok()?;
        memory.write_all_at(&[BREAKPOINT], address).ok()?;
        // SAFETY: a stopped tracee of this process.
        let code = unsafe { libc::ptrace(libc::PTRACE_CONT, self.pid, 0, 0) };
        assert_eq!(code, 0, "cannot continue");
        let status = self.wait();
        assert!(libc::WIFSTOPPED(status), "the process ended in the operation: status {status:#x}");
        match libc::WSTOPSIG(status) {
            libc::SIGTRAP => {}
            libc::SIGSTOP => return Some(Step::Done),
            signal => panic!("the process got signal {signal} in the operation"),
        }
        let mut registers = self.registers();
        assert_eq!(registers.rip, address + 1, "stopped by something else");
        registers.rip = address;
        // SAFETY: as above; the registers are those it had, but for the way back over the breakpoint.
        let code = unsafe { libc::ptrace(libc::PTRACE_SETREGS, self.pid, 0, &raw const registers) };
        assert_eq!(code, 0, "cannot set the registers");
        memory.write_all_at(&instruction, address).expect("as it was written before");
        Some(Step::Taken)
    }

    #[cfg(not(target_arch = "x86_64"))]
    pub(crate) fn run_to(&self, _address: u64) -> Option<Step> {
        None
    }

    #[cfg(target_arch = "x86_64")]
    fn registers(&self) -> libc::user_regs_struct {
        let mut registers = core::mem::MaybeUninit::uninit();
        // SAFETY: a stopped tracee of this process; the kernel fills all of it.
        unsafe {
            let code = libc::ptrace(libc::PTRACE_GETREGS, self.pid, 0, registers.as_mut_ptr());
            assert_eq!(code, 0, "cannot read the registers");
            registers.assume_init()
        }
    }

    /// Kills it where it is.
    pub(crate) fn kill(self) {
        // SAFETY: a child of this process that has not been reaped.
        unsafe { libc::kill(self.pid, libc::SIGKILL) };
        loop {
            let status = self.wait();
            if libc::WIFSIGNALED(status) || libc::WIFEXITED(status) {
                return;
            }
        }
    }

    fn wait(&self) -> c_int {
        let mut status = 0;
        // SAFETY: waits for a child of this process.
        let pid = unsafe { libc::waitpid(self.pid, &raw mut status, libc::__WALL) };
        assert_eq!(pid, self.pid, "lost the process");
        status
    }
}
