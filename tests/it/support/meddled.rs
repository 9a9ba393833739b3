//! A service on a disk that is slow or fails: a library of a few lines, compiled here and loaded before the C
//! library, stands between it and the system's calls.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::support::harness::Setup;
use crate::support::service::Service;

/// The service with the library between it and its disk. The library reads from a file, at every call, what it
/// has to do.
pub struct Meddled {
    pub service: Service,
    orders: PathBuf,
    _dir: tempfile::TempDir,
}

impl Meddled {
    pub fn start(setup: Setup) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (source, library, orders) =
            (dir.path().join("shim.c"), dir.path().join("shim.so"), dir.path().join("orders"));
        fs::write(&source, include_str!("shim.c")).unwrap();
        fs::write(&orders, "").unwrap();
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .args([&library, &source])
            .arg("-ldl")
            .output()
            .expect("a C compiler, as Rust needs one to link");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        let before = format!(
            "export SHIM_ORDERS='{}' LD_PRELOAD='{}'; trap '' XFSZ",
            orders.display(),
            library.display()
        );
        let mut service = Service::prepare(setup).after(&before);
        service.begin();
        Meddled { service, orders, _dir: dir }
    }

    /// Says what becomes of syncs, writes and reads from now on; see `shim.c`.
    pub fn order(&self, order: &str) {
        // Renamed, so that no call reads half of it.
        let fresh = self.orders.with_extension("new");
        fs::write(&fresh, order).unwrap();
        fs::rename(fresh, &self.orders).unwrap();
    }
}
