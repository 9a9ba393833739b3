//! The end of a process that could not keep its promises.

/// Ends the process where going on could lose or double counts. The journal is complete; the next start
/// reads it.
pub fn die(why: &str) -> ! {
    tracing::error!("{why}; the process ends, and recovers at the next start");
    // A test lets this thread alone end, as little of the process as can.
    #[cfg(test)]
    std::panic::resume_unwind(Box::new(why.to_owned()));
    #[cfg(not(test))]
    std::process::abort()
}
